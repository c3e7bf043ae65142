"""What the search of the site finds: the sections of all pages with their text, in a script that a page loads itself.

A page that is opened from a disk may not fetch a file, but may run a script that is beside it.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

LISTING = re.compile(r"<pre\b.*?</pre>", re.S)  # code and what it printed
HEADING = re.compile("h[1-6]")
JOINED = {"msub": "_", "msup": "^", "msubsup": "_^", "munder": "_", "munderover": "_^", "mfrac": "/"}  # of a formula
ASIDE = {"anchor", "source"}  # links beside a heading


class Index:
    """The sections of all pages, gathered page by page."""

    def __init__(self) -> None:
        self.pages: list[tuple[str, str]] = []  # address and title
        self.sections: list[
            tuple[int, str, str, str]
        ] = []  # which page, the name of the heading, the heading, the text

    def add(self, page: str, title: str, body: str) -> None:
        """Take in what a page says: its title and the HTML of its text."""
        reader = _Reader(title)
        reader.feed(LISTING.sub(" ", body))
        reader.close()
        number = len(self.pages)
        self.pages.append((page, title))
        for name, heading, words in reader.sections:
            text = _spaced(words)
            if name or text or len(reader.sections) == 1:
                self.sections.append((number, name, _spaced(heading), text))

    def script(self) -> str:
        """A script that sets `vqlearnIndex`."""
        whole = {"pages": self.pages, "sections": self.sections}
        return f"var vqlearnIndex = {json.dumps(whole, ensure_ascii=False, separators=(',', ':'))};\n"


def _spaced(words: list[str]) -> str:
    return " ".join("".join(words).split())


class _Reader(HTMLParser):
    """Splits HTML at its headings; a formula becomes a word such as x_0."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.sections: list[tuple[str, list[str], list[str]]] = [("", [title], [])]
        self.heading = self.aside = False
        self.formula: list[list[str | int]] = []  # the open elements of a formula, and how many parts each has by now

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if HEADING.fullmatch(tag):
            self.heading = bool(found.get("id"))
            self.aside = not self.heading  # the title of a page, which is known
            if self.heading:
                self.sections.append((str(found["id"]), [], []))
        elif tag == "a" and found.get("class") in ASIDE:
            self.aside = True
        elif tag == "math" or self.formula:
            self.formula.append([tag, 0])
        elif not self.heading and tag not in ("a", "b", "code", "em", "i", "span", "strong", "sub", "sup"):
            self._write(" ")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if HEADING.fullmatch(tag):
            self.heading = self.aside = False
        elif tag == "a":
            self.aside = False
        elif self.formula and self.formula[-1][0] == tag:
            self.formula.pop()
            if self.formula:
                self._join()

    def _join(self) -> None:
        """The sign between a part of a formula that has ended and the next."""
        parent = self.formula[-1]
        signs = JOINED.get(str(parent[0]), "")
        self._write(signs[int(parent[1]) : int(parent[1]) + 1])
        parent[1] = int(parent[1]) + 1

    def handle_data(self, data: str) -> None:
        if not self.aside:
            self._write("".join(data.split()) if self.formula else data)

    def _write(self, text: str) -> None:
        _, heading, words = self.sections[-1]
        (heading if self.heading else words).append(text)
