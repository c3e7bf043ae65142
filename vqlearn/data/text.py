"""A text without what means nothing, as captions are learned and prompts are read."""

from __future__ import annotations

import re
import unicodedata

from vqlearn.arguments import shown

# Code points that show nothing (Unicode's Default_Ignorable_Code_Point) ...
_NOTHING = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# ... and those that join or choose the signs around them, as in emoji, and are nothing after a space or an ASCII letter
_JOINERS = re.compile("(?<![^\x00-\x7f\\s])[\u200c\u200d\ufe0e\ufe0f]+")


def plain(text: str) -> str:
    """A prompt without what means nothing: composed characters, single spaces, no control or zero-width characters.

    The tokens of any other text stay what they are. Raises ValueError for what is no text.

    >>> plain("a red\\u00a0\\u200b circle\\n")
    'a red circle'
    """
    if not isinstance(text, str):
        raise ValueError(f"prompt must be a string, got {shown(text)}")
    if broken := re.search("[\ud800-\udfff]", text):
        raise ValueError(f"prompt holds U+{ord(broken[0]):04X}, which is half a character and no text")
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", _NOTHING.sub("", text))
    return unicodedata.normalize("NFC", _JOINERS.sub("", text)).strip()
