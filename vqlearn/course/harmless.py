"""What HTML of a notebook or a guide may hold on a page; the rest is removed, by nh3."""

from __future__ import annotations

import functools
import re
from urllib.parse import unquote

import nh3

TAGS = (
    "a abbr b blockquote br caption cite code dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i img "
    "ins kbd li ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var "
    "math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle "
    "msub msubsup msup mtable mtd mtext mtr munder munderover none"
)
ATTRIBUTES = {
    "*": {"class", "id", "title", "lang", "dir", "tabindex", "aria-label"},
    "a": {"href", "name"},
    "img": {"alt", "src", "width", "height", "loading"},
    "details": {"open"},
    "li": {"value"},
    "ol": {"start", "reversed"},
    **{cell: {"colspan", "rowspan", "scope"} for cell in ("td", "th")},
    "math": {"display", "xmlns"},
    "mo": {"fence", "form", "largeop", "lspace", "maxsize", "minsize", "movablelimits", "rspace", "stretchy"},
    "mspace": {"width", "height", "depth"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mtable": {"columnalign", "columnspacing", "rowspacing"},
    "mfrac": {"linethickness"},
    **{letter: {"mathvariant"} for letter in ("mi", "mn", "mtext")},
    **{part: {"accent", "accentunder"} for part in ("mover", "munder", "munderover")},
    "mtd": {"columnalign", "columnspan", "rowspan"},
    "menclose": {"notation"},
    "mpadded": {"width", "height", "depth", "lspace", "voffset"},
}
BESIDE = re.compile(r"[\w.][\w./ %-]*")  # the address of a picture in the site's own folder


def _loads_nothing_else(deep: int, tag: str, attribute: str, value: str) -> str | None:
    if (tag, attribute) != ("img", "src"):
        return value
    inside = value
    for _ in range(deep):
        inside = inside.removeprefix("../")
    return value if BESIDE.fullmatch(inside) and ".." not in unquote(inside).split("/") else None


@functools.cache
def _cleaner(deep: int) -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=set(TAGS.split()), attributes=ATTRIBUTES, url_schemes={"http", "https", "mailto"}, link_rel=None,
        attribute_filter=functools.partial(_loads_nothing_else, deep),
        clean_content_tags={"script", "style", "iframe", "object", "template", "title", "noscript", "svg"},
    )  # fmt: skip


def harmless(text: str, deep: int = 0) -> str:
    """HTML with nothing in it but text, pictures, links and formulas, whoever wrote it; every element is closed.

    Pictures are those of the site's own folder, of which the page lies `deep` folders deep.
    """
    return _cleaner(deep).clean(text)
