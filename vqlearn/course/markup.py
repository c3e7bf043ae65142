"""Markdown, mathematics and code as HTML: what a browser shows by itself, without a script."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable
from typing import Any

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from vqlearn.course.harmless import harmless

GLUED = re.compile(r"(\(?<math (?:(?!</math>).)*</math>[.,;:!?)'’”]+)", re.S)  # no line begins with a comma
LETTERS = {"bold": (0x1D400, 0x1D41A, 0x1D7CE), "double-struck": (0x1D538, 0x1D552, 0x1D7D8)}  # of A, a, 0
PICTURE = re.compile(r"""<img\b(?:"[^"]*"|'[^']*'|[^'">])*>""", re.I)
ATTRIBUTE = re.compile(r"""\b([\w-]+)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""")
LONG = 45  # characters of TeX
WORDS = "log|exp|max|min|arg|sin|cos|ln"
Section = tuple[int, str, str]  # level, name and HTML of a heading


class Text(IPythonRenderer):
    """The Markdown of one page as HTML, by nbconvert's reader; collects its sections.

    `link(url)` says where a link leads, None if nowhere, `picture(url)` the same of a picture, and `code(text)` whether
    a piece of code is a name that has an entry. `escape` shows HTML as it is written. The page is `deep` folders deep.
    """

    def __init__(
        self,
        link: Callable[[str], str | None],
        picture: Callable[[str], str | None] = lambda url: url,
        code: Callable[[str], str | None] = lambda text: None,
        *,
        escape: bool = False,
        deep: int = 0,
    ) -> None:
        super().__init__(escape=escape)
        self.harmless = functools.partial(harmless, deep=deep)
        self.sections: list[Section] = []
        self.reader = MarkdownWithMath(self)
        self.link_of, self.picture_of, self.entry_of = link, picture, code

    def render(self, source: str) -> str:
        return GLUED.sub(r'<span class="keep">\1</span>', self.harmless(self.reader.render(source)))

    def inline(self, source: str) -> str:
        return self.render(source).strip().removeprefix("<p>").removesuffix("</p>")

    def heading(self, text: str, level: int, **_: Any) -> str:
        slug = re.sub(r"[^\w.]+", "-", plain(text).lower()).strip("-.") or "section"
        taken = [name for _, name, _ in self.sections]
        while slug in taken:
            slug += "-"
        self.sections.append((level, slug, self.harmless(text)))
        return f'<h{level} id="{slug}">{text} {anchor(slug)}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        there = self.link_of(url)
        return f'<a href="{html.escape(there)}">{text}</a>' if there else text

    def image(self, text: str, url: str, title: str | None = None) -> str:
        there = self.picture_of(url)
        return f'<img loading="lazy" alt="{html.escape(plain(text))}" src="{html.escape(there)}">' if there else text

    def block_html(self, html: str) -> str:
        return PICTURE.sub(self._placed, super().block_html(html))

    def inline_html(self, html: str) -> str:
        return PICTURE.sub(self._placed, super().inline_html(html))

    def _placed(self, tag: re.Match[str]) -> str:
        """A picture in HTML with its address on the page; the words in its place if it is none of ours."""
        parts: dict[str, str] = {name.lower(): value.strip("\"'") for name, value in ATTRIBUTE.findall(tag[0])}
        there = self.picture_of(html.unescape(parts.get("src", "")))
        if not there:
            return parts.get("alt", "")
        shown = " ".join(f'{name}="{value}"' for name, value in {**parts, "src": html.escape(there)}.items())
        return f"<img {shown}>"

    def codespan(self, text: str) -> str:
        code = f"<code>{html.escape(text, quote=False)}</code>"
        there = self.entry_of(text)
        return f'<a href="{html.escape(there)}">{code}</a>' if there else code

    def table(self, text: str) -> str:
        return f'<div class="table" tabindex="0"><table>\n{text}</table></div>\n'

    def block_code(self, code: str, info: str | None = None) -> str:
        return highlighted(code, info or "text")

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return mathml(body, block=True)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)


def anchor(name: str) -> str:
    """The link to a section beside its heading."""
    return f'<a class="anchor" href="#{name}" aria-label="Link to this section">#</a>'


def plain(text: str) -> str:
    """The text of a piece of HTML."""
    return html.unescape(re.sub(r"<[^>]*>", "", text)).strip()


def mathml(tex: str, *, block: bool = False) -> str:
    """TeX as MathML, which browsers set by themselves, a `\\tag` at its side. Raises ValueError if that fails."""
    tag = re.search(r"\\tag\{([^}]*)\}", tex)
    body = re.sub(r"\\tag\{[^}]*\}", "", tex).strip()
    found = _mended(_converted(body, block), body)
    if not block:  # a long one may have to be pushed aside on a phone
        return f'<span class="long" tabindex="0">{found}</span>' if len(body) > LONG else found
    number = f'<span class="number">({html.escape(tag[1])})</span>' if tag else ""
    name = f' id="eq-{html.escape(tag[1])}"' if tag else ""
    return f'<span class="equation"{name}><span class="formula" tabindex="0">{found}</span>{number}</span>'


def _converted(body: str, block: bool) -> str:
    try:
        from latex2mathml.converter import convert
    except ImportError:
        raise ValueError("the site needs latex2mathml: python -m pip install latex2mathml") from None
    try:
        return str(convert(body, display="block" if block else "inline"))
    except Exception as error:
        raise ValueError(f"this formula cannot be set: {body!r} ({type(error).__name__}: {error})") from error


def _mended(found: str, body: str) -> str:
    """The converter's MathML with what it leaves over or sets too wide put right."""
    found = re.sub(r"&#x([0-9A-F]+);", lambda code: html.escape(chr(int(code[1], 16))), found)
    found = re.sub(r"<mo>([‖|∥])</mo>", r'<mo stretchy="false">\1</mo>', found)
    found = re.sub(r"<mo>([∞⌊⌋])</mo>", r"<mi>\1</mi>", found)  # no operators: no space around them
    found = re.sub(rf">\\({WORDS}|[{{}}])<", r">\1<", found)  # what it hands through
    if "\\" in re.sub(r"<[^>]*>", "", found):
        raise ValueError(f"this formula has a command that is not known: {body!r}")
    found = re.sub(r'<(m[ino])([^>]*?) mathvariant="([\w-]+)"([^>]*)>([^<]*)<', _letters, found)
    found = re.sub(rf"(<mi>(?:{WORDS})</mi>)(?!<mo[^>]*>\()", r'\1<mspace width="0.17em"/>', found)
    found = re.sub(r"<mover><mi>", '<mover accent="true"><mi>', found)
    return found


def _letters(tag: re.Match[str]) -> str:
    """Bold and double-struck letters by their own characters: browsers heed `mathvariant` no more."""
    kind, before, variant, after, text = tag.groups()
    if variant not in LETTERS:
        return f'<{kind}{before} mathvariant="{variant}"{after}>{text}<'
    upper, lower, digit = LETTERS[variant]
    shifted = "".join(
        chr(upper + ord(c) - 65) if "A" <= c <= "Z" else chr(lower + ord(c) - 97) if "a" <= c <= "z"
        else chr(digit + ord(c) - 48) if "0" <= c <= "9" else c
        for c in html.unescape(text)
    )  # fmt: skip
    return f"<{kind}{before}{after}>{shifted}<"


# ----------------------------------------------------------------------------------------------------------------- code


def highlighted(code: str, language: str = "ipython3", anchors: str = "") -> str:
    """Code as HTML, coloured; `anchors` is a prefix for a name of each line."""
    text = str(highlight(code, _lexer(language.split()[0]), _formatter(anchors)))
    text = re.sub(r'<a id="([^"]+)" name="[^"]+" href="[^"]+"></a>', r'<span id="\1"></span>', text)  # no empty links
    return text.replace("<pre>", '<pre tabindex="0">')


@functools.cache
def _lexer(language: str) -> Lexer:
    try:
        return get_lexer_by_name(language)
    except ClassNotFound:
        return get_lexer_by_name("text")


@functools.cache
def _formatter(anchors: str) -> HtmlFormatter[str]:
    return HtmlFormatter(cssclass="code", lineanchors=anchors)  # to make one takes as long as to colour a signature


def code_colours() -> str:
    """The colours of code in both schemes, each on a background of ours."""

    def rules(style: str, scope: str) -> str:
        lines = HtmlFormatter(style=style).get_style_defs(f"{scope} .code".strip()).splitlines()
        return "\n".join(line for line in lines if re.search(r"\.code \.\w+ \{ (color|font)", line)) + "\n"

    by_system = rules("github-dark", ":root:not([data-scheme=light])")
    dark = rules("github-dark", ":root[data-scheme=dark]")
    return f"{rules('default', '')}@media (prefers-color-scheme: dark) {{\n{by_system}}}\n{dark}"
