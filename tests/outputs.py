"""Outputs of notebooks, compared as readers see them: text to the letter, pictures but for rounding."""

from __future__ import annotations

import base64
import io
import re

EMBEDDED = re.compile(r"data:image/png;base64,([\w+/=\s]+)")


class Output(str):
    """HTML that equals another where the text is the same, and pictures are but for how a processor rounds."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        if str.__eq__(self, other):
            return True
        from tests import figures

        pictures = [[io.BytesIO(base64.b64decode(one)) for one in EMBEDDED.findall(html)] for html in (self, other)]
        return EMBEDDED.sub("", self) == EMBEDDED.sub("", other) and all(
            figures.difference(*pair) <= figures.ROUNDING for pair in zip(*pictures, strict=True)
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__
