"""The course as a static site: pages that need no server, no network and no notebook program.

Mathematics becomes MathML while the site is built, so that a browser sets it without a script. Pictures become files,
links between notebooks lead to pages, and links into the package to its source, highlighted. No page loads anything
that is not in the folder.
"""

from __future__ import annotations

import ast
import base64
import html
import json
import os
import posixpath
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from vqlearn import assets

ROOT = assets.FOLDER.parent.parent  # of a clone
MARK = ".vqlearn-site.json"  # the names of all files of a site: what a later build may replace
TABLE = re.compile(r"^\|.*\|\n\|[-| :]+\|\n\|.*\|\n?", re.M)
PICTURE = re.compile(r'<img ([^>]*)src="data:image/png;base64,([^"]+)"([^>]*)>')
GLUED = re.compile(r"(\(?<math (?:(?!</math>).)*</math>[.,;:!?)'’”]+)", re.S)  # no line begins with a comma
MARKER = re.compile(r"^# NBVAL_\w+\n", re.M)
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
LETTERS = {"bold": (0x1D400, 0x1D41A, 0x1D7CE), "double-struck": (0x1D538, 0x1D552, 0x1D7D8)}  # of A, a, 0
BROAD = 600  # pixels: more is moved aside on a phone, and not made smaller
LONG = 45  # characters of TeX
WORDS = "log|exp|max|min|arg|sin|cos|ln"
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 3 3"><path fill="#002051" d="M0 0h3v3H0z"/>'
    '<path fill="#fdea45" d="M0 0h1v1H0zM2 1h1v1H2z"/><path fill="#7f7c75" d="M1 0h1v1H1zM0 1h1v1H0zM1 2h2v1H1z"/>'
    '<path stroke="#eee" stroke-width=".2" d="M1 2l1-1"/></svg>\n'
)


class Book(NamedTuple):
    """A notebook of the course: what its first cell says, and its cells."""

    number: str
    title: str
    promise: str
    facts: dict[str, str]
    intro: str
    cells: list
    page: str


def build(folder: str | Path, notebooks: list[Path], *, address: str | None = None) -> list[str]:
    """Write the site of these notebooks to `folder`, and return the names of its pages.

    The folder is replaced as a whole, and only if it is new, empty or an earlier site. `address` is the project's, for
    links to files that are no part of the package. Raises ValueError for a folder that holds anything else.
    """
    folder = Path(os.path.abspath(folder))
    _check_target(folder)
    with tempfile.TemporaryDirectory(prefix=".vqlearn-site-", dir=folder.parent) as beside:
        place = Path(beside, "new")
        pages = _Site(place, [_book(path) for path in notebooks], address).write()
        names = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
        (place / MARK).write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")
        if folder.exists():
            os.replace(folder, Path(beside, "old"))
        try:
            os.replace(place, folder)
        except OSError:
            if Path(beside, "old").exists():
                os.replace(Path(beside, "old"), folder)
            raise
    return pages


def _check_target(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"DIR must be a folder, {str(folder)!r} is a file or a link")
    if not folder.parent.is_dir():
        raise ValueError(f"DIR: there is no folder {str(folder.parent)!r}; make it first or choose another")
    if not os.access(folder.parent, os.W_OK):
        raise ValueError(f"DIR: {str(folder.parent)!r} cannot be written; choose another folder")
    if not folder.exists():
        return
    try:
        ours = {MARK, *json.loads((folder / MARK).read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):
        ours = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in ours and (path.is_symlink() or not path.is_dir()):
            raise ValueError(f"DIR: {str(folder)!r} holds {name!r}, which is no part of a site; choose another folder")


def _book(path: Path) -> Book:
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    first = cells[0].source
    number, title = re.search(r"^# (\d+) · (.+)$", first, re.M).groups()  # type: ignore[union-attr]
    promise = re.search(r"^> (.+)$", first, re.M)[1]  # type: ignore[index]
    table = TABLE.search(first)
    names, _, values = ([field.strip() for field in line.strip("| ").split("|")] for line in table[0].splitlines())  # type: ignore[index]
    return Book(
        number, title, promise, dict(zip(names, values, strict=True)),
        first[table.end() :].strip(), cells[1:], f"{path.stem}.html",  # type: ignore[union-attr]
    )  # fmt: skip


class _Site:
    """One build: the pages that are written, and those of the package's source that they ask for."""

    def __init__(self, place: Path, books: list[Book], address: str | None) -> None:
        from jinja2 import Environment, FileSystemLoader

        self.place, self.books, self.address = place, books, address
        self.pages = {f"notebooks/{book.page.removesuffix('.html')}.ipynb": book.page for book in books}
        self.asked: list[str] = []  # files of the package
        self.template = Environment(loader=FileSystemLoader(assets.FOLDER), autoescape=True).get_template("site.html")

    def write(self) -> list[str]:
        for folder in ("images", "source"):
            (self.place / folder).mkdir(parents=True)
        written = [self._index(), *(self._page(number, book) for number, book in enumerate(self.books))]
        done = 0
        while done < len(self.asked):  # a text of the package may ask for more
            written.append(self._source(self.asked[done]))
            done += 1
        for name in ("site.css", "site.js"):
            shutil.copyfile(assets.FOLDER / name, self.place / name)
        with open(self.place / "site.css", "a", encoding="utf-8", newline="\n") as css:
            css.write(_code_colours())
        (self.place / "icon.svg").write_text(ICON, encoding="utf-8", newline="\n")
        (self.place / ".nojekyll").touch()  # GitHub Pages: take the files as they are
        return written

    def _save(self, page: str, title: str, **parts: Any) -> str:
        from markupsafe import Markup

        given: list[tuple[int, str, str]] = parts.pop("sections", [])
        sections = [(level, name, Markup(text)) for level, name, text in given]
        safe = {name: Markup(part) if isinstance(part, str) else part for name, part in parts.items()}
        root = "../" * page.count("/")
        text = self.template.render(
            root=root, page=page, title=title, books=self.books, plain=_plain, sections=sections, **safe
        )
        text = re.sub(r"\n{3,}", "\n\n", text)
        (self.place / page).write_text(text + "\n", encoding="utf-8", newline="\n")
        return page

    def _index(self) -> str:
        cards = []
        for book in self.books:
            text = _text(self, "notebooks/x", "index.html")
            cards.append((book, *(text.inline(part) for part in (book.promise, *list(book.facts.values())[2:]))))
        return self._save("index.html", "The course", cards=cards)

    def _page(self, number: int, book: Book) -> str:
        text = _text(self, f"notebooks/{book.page}", book.page)
        facts = {name: text.inline(value) for name, value in book.facts.items()}
        parts, pictures = [text.render(book.intro)], 0
        for cell in book.cells:
            if cell.cell_type == "markdown":
                parts.append(text.render(cell.source))
            elif cell.cell_type == "code":
                parts.append(_highlighted(MARKER.sub("", cell.source)))
                for output in cell.outputs:
                    shown, pictures = self._output(output, f"{book.number}-", pictures)
                    parts.append(f'<div class="output">{shown}</div>')
        around = [self.books[i] if 0 <= i < len(self.books) else None for i in (number - 1, number + 1)]
        return self._save(
            book.page, f"{book.number} · {book.title}", book=book, promise=text.inline(book.promise), facts=facts,
            body="\n".join(parts), sections=text.sections, before=around[0], after=around[1],
        )  # fmt: skip

    def _output(self, output, name: str, pictures: int) -> tuple[str, int]:
        """An output as HTML, its pictures as files; and how many pictures there are by now."""
        from nbconvert.filters import ansi2html

        data = output.get("data", {})

        def extracted(tag: re.Match) -> str:
            nonlocal pictures
            pictures += 1
            file = f"images/{name}{pictures}.png"
            (self.place / file).write_bytes(base64.b64decode(tag[2]))
            width = re.search(r'width="(\d+)"', tag[0])
            broad = ' class="broad"' if width and int(width[1]) > BROAD else ""
            return f'<a href="{file}"{broad}><img loading="lazy" {tag[1]}src="{file}"{tag[3]}></a>'

        if "image/png" in data:
            data["text/html"] = f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
        if "application/vnd.jupyter.widget-view+json" in data:
            return (
                '<p class="aside">Here a widget stands that moves when the notebook runs in JupyterLab.</p>',
                pictures,
            )
        if "text/html" in data:
            return PICTURE.sub(extracted, data["text/html"]), pictures
        text = output.get("text", data.get("text/plain", "\n".join(output.get("traceback", []))))
        return f"<pre>{ansi2html(text)}</pre>", pictures

    def _source(self, name: str) -> str:
        page, source = self.pages[name], (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".md"):
            text = _text(self, name, page)
            body = text.render(FRONT_MATTER.sub("", source))
            title = next((_plain(text) for _, _, text in text.sections[:1]), name)
            return self._save(page, title, body=body, sections=text.sections[1:])
        kinds = ast.FunctionDef, ast.ClassDef
        found = [node for node in ast.parse(source).body if isinstance(node, kinds) and node.name[0] != "_"]
        sections = [(2, f"L-{node.lineno}", f"<code>{node.name}</code>") for node in found]
        body = f"<h1><code>{html.escape(name)}</code></h1>\n{_highlighted(source, anchors='L')}"
        return self._save(page, name, body=body, sections=sections, wide=True)

    def link(self, origin: str, page: str, url: str) -> str | None:
        """Where a link of a file of the project leads on one of our pages; None if nowhere."""
        if re.match(r"[a-z]+:|#", url):
            return url
        target, _, fragment = url.partition("#")
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if inside not in self.pages and re.fullmatch(r"vqlearn/.+\.(py|md)", inside) and (ROOT / inside).is_file():
            self.pages[inside] = f"source/{inside.removeprefix('vqlearn/').replace('/', '-')}.html"
            self.asked.append(inside)
        if inside in self.pages:
            there = posixpath.relpath(self.pages[inside], posixpath.dirname(page) or ".")
            return there + (f"#{fragment}" if fragment else "")
        return f"{self.address}/blob/HEAD/{inside}" if self.address else None


def _text(site: _Site, origin: str, page: str):
    """Markdown of one page to HTML, by nbconvert's reader; collects its sections."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Text(IPythonRenderer):
        def __init__(self) -> None:
            super().__init__(escape=False)
            self.sections: list[tuple[int, str, str]] = []
            self.reader = MarkdownWithMath(self)

        def render(self, source: str) -> str:
            return GLUED.sub(r'<span class="keep">\1</span>', self.reader.render(source))

        def inline(self, source: str) -> str:
            return self.render(source).strip().removeprefix("<p>").removesuffix("</p>")

        def heading(self, text: str, level: int, **_) -> str:
            slug = re.sub(r"[^\w.]+", "-", _plain(text).lower()).strip("-.") or "section"
            taken = [name for _, name, _ in self.sections]
            while slug in taken:
                slug += "-"
            self.sections.append((level, slug, text))
            anchor = f'<a class="anchor" href="#{slug}" aria-label="Link to this section">#</a>'
            return f'<h{level} id="{slug}">{text} {anchor}</h{level}>\n'

        def link(self, text: str, url: str, title: str | None = None) -> str:
            there = site.link(origin, page, url)
            return f'<a href="{html.escape(there)}">{text}</a>' if there else text

        def table(self, text: str) -> str:
            return f'<div class="table" tabindex="0"><table>\n{text}</table></div>\n'

        def block_code(self, code: str, info: str | None = None) -> str:
            return _highlighted(code, info or "text")

        def inline_math(self, body: str) -> str:
            return mathml(body)

        def block_math(self, body: str) -> str:
            return mathml(body, block=True)

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)

    return Text()


# ------------------------------------------------------------------------------------------ mathematics and code


def mathml(tex: str, *, block: bool = False) -> str:
    """TeX as MathML, which browsers set by themselves, a `\\tag` at its side. Raises ValueError if that fails."""
    try:
        from latex2mathml.converter import convert
    except ImportError:
        raise ValueError("the site needs latex2mathml: python -m pip install latex2mathml") from None

    tag = re.search(r"\\tag\{([^}]*)\}", tex)
    body = re.sub(r"\\tag\{[^}]*\}", "", tex).strip()
    try:
        found = convert(body, display="block" if block else "inline")
    except Exception as error:
        raise ValueError(f"this formula cannot be set: {body!r} ({type(error).__name__}: {error})") from error
    found = re.sub(r"&#x([0-9A-F]+);", lambda code: html.escape(chr(int(code[1], 16))), found)
    found = re.sub(r"<mo>([‖|∥])</mo>", r'<mo stretchy="false">\1</mo>', found)
    found = re.sub(r"<mo>([∞⌊⌋])</mo>", r"<mi>\1</mi>", found)  # no operators: no space around them
    found = re.sub(rf">\\({WORDS}|[{{}}])<", r">\1<", found)  # what it hands through
    if "\\" in re.sub(r"<[^>]*>", "", found):
        raise ValueError(f"this formula has a command that is not known: {body!r}")
    found = re.sub(r'<(m[ino])([^>]*?) mathvariant="([\w-]+)"([^>]*)>([^<]*)<', _letters, found)
    found = re.sub(rf"(<mi>(?:{WORDS})</mi>)(?!<mo[^>]*>\()", r'\1<mspace width="0.17em"/>', found)
    found = re.sub(r"<mover><mi>", '<mover accent="true"><mi>', found)
    if not block:  # a long one may have to be pushed aside on a phone
        return f'<span class="long" tabindex="0">{found}</span>' if len(body) > LONG else found
    number = f'<span class="number">({html.escape(tag[1])})</span>' if tag else ""
    name = f' id="eq-{html.escape(tag[1])}"' if tag else ""
    return f'<span class="equation"{name}><span class="formula" tabindex="0">{found}</span>{number}</span>'


def _letters(tag: re.Match) -> str:
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


def _highlighted(code: str, language: str = "ipython3", anchors: str = "") -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language.split()[0])
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    text = highlight(code, lexer, HtmlFormatter(cssclass="code", lineanchors=anchors))
    return text.replace("<pre>", '<pre tabindex="0">')


def _code_colours() -> str:
    """The colours of code in both schemes, each on a background of ours."""
    from pygments.formatters import HtmlFormatter

    def rules(style: str, scope: str) -> str:
        lines = HtmlFormatter(style=style).get_style_defs(f"{scope} .code".strip()).splitlines()
        return "\n".join(line for line in lines if re.search(r"\.code \.\w+ \{ (color|font)", line)) + "\n"

    by_system = rules("github-dark", ":root:not([data-scheme=light])")
    dark = rules("github-dark", ":root[data-scheme=dark]")
    return f"{rules('default', '')}@media (prefers-color-scheme: dark) {{\n{by_system}}}\n{dark}"


def _plain(text: str) -> str:
    """The text of a piece of HTML."""
    return html.unescape(re.sub(r"<[^>]*>", "", text)).strip()
