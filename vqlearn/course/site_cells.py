"""The cells of a notebook on a page of the site: code, what it printed, its pictures as files, and live widgets."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nbconvert.filters import ansi2html
from nbformat import NotebookNode
from nbformat.v4 import new_output

from vqlearn.course.harmless import harmless
from vqlearn.course.markup import highlighted

PICTURE = re.compile(r'<img ([^>]*)src="data:image/png;base64,([^"]+)"([^>]*)>')
MARKER = re.compile(r"^# NBVAL_\w+\n", re.M)
BROAD = 600  # pixels: more is moved aside on a phone, and not made smaller
WIDGET = '<p class="aside">A widget is shown here when the notebook runs in JupyterLab.</p>'
LIVE = re.compile(
    r"\bwidgets\.(schedule_explorer|posterior_microscope)\("
)  # these run on the page, see site-widgets.js


class Cells:
    """Code cells as HTML; pictures go to `folder`/images, numbered after `name`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.pictures = folder, name, 0

    def code(self, cell: NotebookNode) -> str:
        """A code cell with its outputs; a picture of a live widget is what a browser without scripts shows."""
        parts = [f'<div class="cell">{highlighted(MARKER.sub("", cell.source))}</div>']
        live = LIVE.search(cell.source)
        for output in joined(cell.outputs):
            kind = f'class="output" data-widget="{live[1]}"' if live else 'class="output"'
            parts.append(f"<div {kind}>{self.output(output)}</div>")
        return "\n".join(parts)

    def output(self, output: NotebookNode) -> str:
        """An output as HTML, its pictures as files."""
        data = output.get("data", {})
        if "application/vnd.jupyter.widget-view+json" in data:
            return WIDGET
        if "image/png" in data:
            data["text/html"] = f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
        if "text/html" in data:
            return harmless(PICTURE.sub(self._extracted, data["text/html"]))
        text = output.get("text", data.get("text/plain", "\n".join(output.get("traceback", []))))
        return f'<pre tabindex="0">{harmless(ansi2html(text))}</pre>'  # type: ignore[no-untyped-call]

    def _extracted(self, tag: re.Match[str]) -> str:
        self.pictures += 1
        file = f"images/{self.name}{self.pictures}.png"
        (self.folder / file).write_bytes(base64.b64decode(tag[2]))
        width = re.search(r'width="(\d+)"', tag[0])
        broad = ' class="broad"' if width and int(width[1]) > BROAD else ""
        return f'<a href="{file}"{broad}><img loading="lazy" {tag[1]}src="{file}"{tag[3]}></a>'


def joined(outputs: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """The outputs of a cell, where what was printed in several pieces, one after the other, is one."""
    for printed, group in itertools.groupby(outputs, lambda output: output.output_type == "stream"):
        if printed:
            yield new_output("stream", text="".join(output.text for output in group))  # type: ignore[no-untyped-call]
        else:
            yield from group
