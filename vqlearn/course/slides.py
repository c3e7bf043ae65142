"""Slides of a notebook for a lecture: one page of HTML with reveal.js, which needs no network and no other file.

Each section of the notebook is a column of slides: what its paragraphs say first, its equations, figures with their
captions, short code and short outputs. The whole text goes into the notes, long code is folded. How much fits on a
slide is estimated here, and what is still too high or too wide is made smaller by the page itself.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from vqlearn import assets
from vqlearn.course import copying
from vqlearn.course.exercises import HEADING, exercises
from vqlearn.course.markup import Text, code_colours, highlighted
from vqlearn.course.reduced import parts_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

SPACE = 560  # pixels of a slide below its heading, of 720
WIDTH = 76  # characters of a line of text
LINE, SMALL = 43, 25  # pixels of a line of text, and of code or output
MOST_CODE, MOST_OUTPUT = 12, 10  # lines that are shown
MOST_WORDS = 34  # of a paragraph
PICTURE = re.compile(r'<img [^>]*?src="data:image/png;base64,[^"]+"[^>]*>')
SIZE = re.compile(r' (?:width|height)="\d+"| style="[^"]*"')
DETAILS = re.compile(r"<details>.*?</details>", re.S)
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
PROTECTED = re.compile(r"\$[^$]+\$|`[^`]+`|\[[^\]]*\]\([^)]*\)|\*\*[^*]+\*\*|\b(?:Eq|Fig|al|e\.g|i\.e|vs)\.", re.S)
CAPTION = re.compile(r"\*\*Figure \d+[a-z]?\.\d+\.\*\*")
LAST = "Check yourself", "In one breath"  # sections that are shown in another way


class Block(NamedTuple):
    """A piece of a slide: HTML, about how many pixels high it is, and where it stands if that is not its place.

    `place` is "first" for what begins a slide, "last" for what ends one, and "below" for what stays with the piece
    before it.
    """

    html: str
    height: float
    place: str = ""


class Slide(NamedTuple):
    """A slide below its column's heading; `notes` is the text of the notebook that it shortens."""

    html: str
    notes: str = ""


def write(folder: str | Path, paths: list[Path]) -> list[str]:
    """Write slides of these notebooks to `folder`, and return the files' names; files of these names are replaced."""
    from vqlearn.data.files import replaced

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"DIR must be a folder, {str(folder)!r} is a file")
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"DIR: there is no folder {str(folder.parent)!r}; make it first or choose another")
    folder.mkdir(exist_ok=True)
    for path in paths:
        with replaced(folder / f"{path.stem}.html") as part:
            part.write_text(page(copying.read(path).cells), encoding="utf-8", newline="\n")
    return [f"{path.stem}.html" for path in paths]


def page(cells: list[NotebookNode]) -> str:
    """The slides of a notebook as one page of HTML."""
    template = Environment(loader=FileSystemLoader(assets.FOLDER), autoescape=True).get_template("slides.html")
    parts = {name: Markup(_asset(name)) for name in ("reveal.css", "slides.css", "reveal.js", "slides.js")}
    text, first = Text(lambda url: url if re.match("https?:", url) else None), cells[0].source
    title = re.findall(r"^# (.+)$", first, re.M)[0]
    promise = re.findall(r"^> (.+)$", first, re.M)[0]
    columns = [(Markup(text.inline(name)), slides) for name, slides in _columns(cells, text)]
    shared = {"title": title, "promise": Markup(text.inline(promise)), "colours": Markup(code_colours())}
    return template.render(columns=columns, parts=parts, **shared)


def _asset(name: str) -> str:
    return (assets.FOLDER / name).read_text(encoding="utf-8").replace("</script", "<\\/script")


def _columns(cells: list[NotebookNode], text: Text) -> Iterator[tuple[str, list[Slide]]]:
    """The sections of a notebook: their headings and slides."""
    for name, section in _sections(cells[1:]):
        if name == LAST[0]:
            yield name, [Slide(_list_of_exercises(cells, text))]
        elif name == LAST[1]:
            bullets = next((part for part in _paragraphs(section[0].source) if part.startswith("- ")), "")
            yield name, [Slide(text.render(bullets))] if bullets else []
        else:
            yield name, [*_slides([*_blocks(section, text)], text, _prose(section))]


def _sections(cells: list[NotebookNode]) -> list[tuple[str, list[NotebookNode]]]:
    """The cells below each heading `##`."""
    found: list[tuple[str, list[NotebookNode]]] = []
    for cell in (part for whole in cells for part in parts_of(whole)):
        heading = re.match(r"## (.+)\n*", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            found.append((heading[1], []))
            cell.source = cell.source[heading.end() :]
        if found and cell.source:
            found[-1][1].append(cell)
    return found


def _list_of_exercises(cells: list[NotebookNode], text: Text) -> str:
    lines = [f"{'★' * one.points}{'☆' * (3 - one.points)} {one.title}" for one in exercises(cells)]
    return text.render("\n".join(f"- {line}" for line in lines))


# ------------------------------------------------------------------------------------------------------------ pieces


def _prose(section: list[NotebookNode]) -> str:
    return "\n\n".join(DETAILS.sub("", cell.source).strip() for cell in section if cell.cell_type == "markdown")


def _paragraphs(source: str) -> list[str]:
    """The paragraphs, equations, lists and tables of a text, in Markdown."""
    source, fenced = _aside(FENCED, DETAILS.sub("", source))
    source = re.sub(r"^(#{3,} .+)$", r"\n\1\n", source, flags=re.M)
    source = re.sub(r"(\$\$.*?\$\$)", r"\n\n\1\n\n", source, flags=re.S)
    parts = (part.strip() for part in re.split(r"\n\s*\n", source))
    return [_back(part, fenced) for part in parts if part]


def _aside(pattern: re.Pattern[str], text: str) -> tuple[str, list[str]]:
    """A text with a mark in place of whatever matches, and what the marks stand for."""
    found = pattern.findall(text)
    numbers = iter(range(len(found)))
    return pattern.sub(lambda _: f"\0{next(numbers)}\0", text), found


def _back(text: str, found: list[str]) -> str:
    return re.sub("\0(\\d+)\0", lambda mark: found[int(mark[1])], text)


def _blocks(section: list[NotebookNode], text: Text) -> Iterator[Block]:
    """What a section shows: a figure begins a new slide, and its caption stays with it."""
    for cell in section:
        if cell.cell_type == "markdown":
            yield from (_of_text(part, text) for part in _paragraphs(cell.source))
        elif cell.cell_type == "code":
            yield from _of_code(cell)


def _of_text(part: str, text: Text) -> Block:
    if part.startswith("$$"):
        rows = part.count("\\\\") + 1 + part.count("\\underbrace")
        return Block(text.render(part), 60 + 42 * rows)
    if part.startswith(("|", "- ", "1. ", "* ")):
        lines = sum(1 + len(line) // WIDTH for line in part.splitlines())
        return Block(text.render(part), LINE * lines + 30)
    if part.startswith("```"):
        return Block(text.render(part), SMALL * part.count("\n") + 30)
    place = "last" if part.startswith("**Predict") else "below" if CAPTION.match(part) else ""
    short = lead(part)
    return Block(text.render(short), LINE * (1 + len(short) // WIDTH) + 18, place)


def lead(paragraph: str) -> str:
    """The first sentence of a paragraph, and those after it as far as the whole stays short."""
    masked, found = _aside(PROTECTED, paragraph)
    sentences = re.split(r"(?<=[.!?])\s+(?=\S)", masked)
    shown = sentences[0]
    for sentence in sentences[1:]:
        if len(f"{shown} {sentence}".split()) > MOST_WORDS:
            break
        shown += f" {sentence}"
    return _back(shown, found)


def _of_code(cell: NotebookNode) -> Iterator[Block]:
    pictures, printed = _outputs(cell)
    source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("# NBVAL"))
    count = source.count("\n") + 1
    if pictures:
        for number, picture in enumerate(pictures):
            code = "" if number else folded(source)
            yield Block(f'<div class="figure">{picture}{code}</div>', 0.78 * SPACE, "first")
    elif printed or count <= MOST_CODE:
        shown = highlighted(source) if count <= MOST_CODE else folded(source)
        yield Block(shown, SMALL * count + 36 if count <= MOST_CODE else 46)
    if printed:
        lines = printed.splitlines()
        short = lines[:MOST_OUTPUT] + ["..."] * (len(lines) > MOST_OUTPUT)
        yield Block(f'<pre class="printed">{html.escape(chr(10).join(short))}</pre>', SMALL * len(short) + 26)


def folded(source: str) -> str:
    """Code that is shown when it is asked for, over the slide."""
    return f"<details><summary>code</summary>{highlighted(source)}</details>"


def _outputs(cell: NotebookNode) -> tuple[list[str], str]:
    """The pictures of a cell, and what it prints; nothing of a widget, or of a cell that only imports."""
    pictures, printed = [], ""
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output.output_type == "stream":
            printed += output.text
        elif "application/vnd.jupyter.widget-view+json" not in data:
            pictures += [SIZE.sub("", tag) for tag in PICTURE.findall(data.get("text/html", ""))]
    return pictures, printed.rstrip()


# ------------------------------------------------------------------------------------------------------------ slides


def _slides(blocks: list[Block], text: Text, prose: str) -> Iterator[Slide]:
    """As many pieces on each slide as there is space for; the notes are with the first."""
    notes = text.render(HEADING.sub("", prose)) if prose else ""
    for number, part in enumerate(_packed(blocks)):
        yield Slide("\n".join(part), "" if number else notes)


def _packed(blocks: Iterable[Block]) -> Iterator[list[str]]:
    shown: list[str] = []
    left = float(SPACE)
    for block in blocks:
        if shown and (block.place == "first" or left < 0 or (block.height > left and block.place != "below")):
            yield shown
            shown, left = [], float(SPACE)
        shown.append(block.html)
        left = -1.0 if block.place == "last" else max(left - block.height, 0.0)
    if shown:
        yield shown
