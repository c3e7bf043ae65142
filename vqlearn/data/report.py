"""What was found in a folder of pictures, counted and named: what is used, skipped and mended."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 3  # names that are listed for each remark


class Remarks(dict[str, list[str]]):
    """Names of files, or of lines, for each thing that there is to say of them."""

    def add(self, remark: str, name: str) -> None:
        self.setdefault(remark, []).append(name)

    def lines(self, most: int | None = SHOWN) -> list[str]:
        """Each remark in the order of the alphabet, with how many names it has and at most so many of them."""
        return [_line(remark, self[remark], most) for remark in sorted(self)]


@dataclass
class Report:
    """What a folder holds; `str(report)` names the first of each kind, `report.text(None)` all of them."""

    head: list[str]
    skipped: Remarks = field(default_factory=Remarks)  # pictures that are not used
    mended: Remarks = field(default_factory=Remarks)  # pictures that are used, and not quite as they are
    others: Remarks = field(default_factory=Remarks)  # captions, lines and folders

    def text(self, most: int | None = SHOWN) -> str:
        """The report, with at most so many names of each kind."""
        parts = [line for line in self.head if line]
        for title, remarks in (("skipped", self.skipped), ("mended", self.mended), ("besides", self.others)):
            if remarks:
                parts += [f"{title}:", *(f"  {line}" for line in remarks.lines(most))]
        return "\n".join(parts)

    def __str__(self) -> str:
        return self.text()


def _line(remark: str, names: list[str], most: int | None) -> str:
    named = ", ".join(map(printable, names[:most]))
    return f"{len(names)} {remark}: {named}{' ...' if len(names) > len(names[:most]) else ''}"


def counted(count: int, noun: str) -> str:
    """A number of things, in words.

    >>> counted(1, "picture"), counted(2, "picture")
    ('1 picture', '2 pictures')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(name: str) -> str:
    """A name in signs that every report can hold: what is no text in a file's name, and line ends, are escaped."""
    escaped = name.encode("utf-8", "backslashreplace").decode()
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in escaped)
