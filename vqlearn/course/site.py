"""The course as a static site: pages that need no server, no network and no notebook program.

Mathematics becomes MathML while the site is built, so that a browser sets it without a script. Pictures become files,
links between notebooks lead to pages, and links into the package to its source, highlighted. No page loads anything
that is not in the folder: HTML in the notebooks is cleaned, and each page carries a policy that browsers enforce.
"""

from __future__ import annotations

import ast
import html
import json
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from vqlearn import assets
from vqlearn.course import copying
from vqlearn.course.markup import Section, Text, code_colours, highlighted, plain
from vqlearn.course.site_cells import Cells
from vqlearn.course.site_search import Index
from vqlearn.data.files import is_left_over, replaced_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = assets.FOLDER.parent.parent  # of a clone
GUIDES, FIGURES = (
    next(filter(Path.is_dir, [copying.PACKAGE / f"course_{carried}"]), ROOT / folder)  # in a wheel, in a clone
    for carried, folder in (("guides", "docs"), ("figures", "figures"))
)
MARK = ".vqlearn-site.json"  # the names of all files of a site: what a later build may replace
SHEET = "-statements.html"  # how the name of a page ends that leaves out the solutions
SCRIPTS = "site.js", "site-search.js", "site-mathematics.js", "site-widgets.js"
TABLE = re.compile(r"^\|.*\|\n\|[-| :]+\|\n\|.*\|\n?", re.M)
FOR_TEACHERS = re.compile(r"^\*\*(?:For instructors\.\*\* .*?\n\n|Solution\.\*\*.*?(?=^## |\Z))", re.M | re.S)
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
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
    cells: list[NotebookNode]
    page: str


def build(folder: str | Path, notebooks: list[Path], *, address: str | None = None) -> list[str]:
    """Write the site to `folder`: these notebooks, the guides in docs/ and the reference. Returns its pages' names.

    The folder is replaced as a whole, and only if it is new, empty or an earlier site. `address` is the project's, for
    links to files that are no part of the package. Raises ValueError for a folder that holds anything else.
    """
    folder = Path(os.path.abspath(folder))
    with replaced_folder(folder, _check_target(folder)) as new:
        pages = Site(new, [_book(path) for path in notebooks], address).write()
        names = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file())
        (new / MARK).write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")
    return pages


def _check_target(folder: Path) -> set[str]:
    """The names of the files of an earlier site; raises ValueError where a site cannot be."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"DIR must be a folder, {str(folder)!r} is a file or a link")
    if not folder.parent.is_dir():
        raise ValueError(f"DIR: there is no folder {str(folder.parent)!r}; make it first or choose another")
    if not os.access(folder.parent, os.W_OK):
        raise ValueError(f"DIR: {str(folder.parent)!r} cannot be written; choose another folder")
    if not folder.exists():
        return set()
    try:
        ours = {MARK, *json.loads((folder / MARK).read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):
        ours = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            name not in ours
            and not is_left_over(folder / name.split("/")[0])
            and (path.is_symlink() or not path.is_dir())
        ):
            raise ValueError(f"DIR: {str(folder)!r} holds {name!r}, which is no part of a site; choose another folder")
    return ours


def _book(path: Path) -> Book:
    cells = copying.read(path).cells
    first = cells[0].source
    number, title = re.search(r"^# (\d+[a-z]?) · (.+)$", first, re.M).groups()  # type: ignore[union-attr]
    promise = re.search(r"^> (.+)$", first, re.M)[1]  # type: ignore[index]
    table = TABLE.search(first)
    names, _, values = ([field.strip() for field in line.strip("| ").split("|")] for line in table[0].splitlines())  # type: ignore[index]
    return Book(
        number, title, promise, dict(zip(names, values, strict=True)),
        first[table.end() :].strip(), cells[1:], f"{path.stem}.html",  # type: ignore[union-attr]
    )  # fmt: skip


class Site:
    """One build: the pages of notebooks, guides and reference, and those of the package's source that they link to."""

    def __init__(self, folder: Path, books: list[Book], address: str | None) -> None:
        self.folder, self.books, self.address = folder, books, address
        self.guides = [guide for path in guides() for guide in _pages_of(path)]
        self.shelves: dict[str, list[tuple[str, str]]] = {}
        for path, page, title in self.guides:
            shelf = "Guides" if path.parent == GUIDES else path.parent.name.capitalize()
            self.shelves.setdefault(shelf, []).append((page, title))
        self.pages = {f"notebooks/{book.page.removesuffix('.html')}.ipynb": book.page for book in books}
        self.pages |= {f"docs/{_below(path)}.md": page for path, page, _ in reversed(self.guides)}
        self.index = Index()
        self.linked: list[str] = []  # files of the package
        self.modules: list[tuple[str, str]] = []  # pages and titles of the reference
        self.template = Environment(loader=FileSystemLoader(assets.FOLDER), autoescape=True).get_template("site.html")

    def write(self) -> list[str]:
        for name in ("images", "source", "docs/teaching", "reference"):
            (self.folder / name).mkdir(parents=True)
        written = self._reference()
        written += [self._home(), *(self._page(number, book) for number, book in enumerate(self.books))]
        written += [self._guide(*guide) for guide in self.guides]
        done = 0
        while done < len(self.linked):  # a text of the package may link to more of it
            written.append(self._source(self.linked[done]))
            done += 1
        self._shared()
        return written

    def _shared(self) -> None:
        """What all pages load, and what they may search in."""
        for name in (*SCRIPTS, "site.css"):
            shutil.copyfile(assets.FOLDER / name, self.folder / name)
        with open(self.folder / "site.css", "a", encoding="utf-8", newline="\n") as css:
            css.write(code_colours())
        for name, text in (("icon.svg", ICON), ("search-index.js", self.index.script())):
            (self.folder / name).write_text(text, encoding="utf-8", newline="\n")
        (self.folder / ".nojekyll").touch()  # GitHub Pages: take the files as they are

    def save(self, page: str, title: str, *, sections: list[Section] | None = None, **parts: Any) -> str:
        """Write a page of the template, with these parts of it as HTML."""
        outline = [(level, name, Markup(text)) for level, name, text in sections or []]
        safe = {name: Markup(part) if isinstance(part, str) else part for name, part in parts.items()}
        shared = {"books": self.books, "shelves": self.shelves, "modules": self.modules, "plain": plain}
        self.index.add(page, plain(title), "".join(str(parts.get(name, "")) for name in ("promise", "body")))
        root = "../" * page.count("/")
        text = self.template.render(root=root, page=page, title=title, sections=outline, **shared, **safe)
        text = re.sub(r"\n{3,}", "\n\n", text)
        (self.folder / page).write_text(text + "\n", encoding="utf-8", newline="\n")
        return page

    def text(self, origin: str, page: str) -> Text:
        """The Markdown of a file of the project, as it is written on a page."""
        deep = page.count("/")
        return Text(lambda url: self.link(origin, page, url), lambda url: self._picture(origin, page, url), deep=deep)

    def _reference(self) -> list[str]:
        try:
            from vqlearn.course import reference
        except ModuleNotFoundError as error:
            if error.name != "pdoc":
                raise
            print("the site has no reference, which needs pdoc: python -m pip install pdoc", file=sys.stderr)
            return []
        return reference.write(self)

    def _home(self) -> str:
        cards = []
        for book in self.books:
            text = self.text("notebooks/x", "index.html")
            cards.append((book, *(text.inline(part) for part in (book.promise, *list(book.facts.values())[2:]))))
        return self.save("index.html", "Learn VQ-Diffusion", cards=cards)

    def _page(self, number: int, book: Book) -> str:
        text = self.text(f"notebooks/{book.page}", book.page)
        facts = {name: text.inline(value) for name, value in book.facts.items()}
        parts, cells = [text.render(book.intro)], Cells(self.folder, f"{book.number}-")
        for cell in book.cells:
            if cell.cell_type == "markdown":
                parts.append(text.render(cell.source))
            elif cell.cell_type == "code":
                parts.append(cells.code(cell))
        around = [self.books[i] if 0 <= i < len(self.books) else None for i in (number - 1, number + 1)]
        return self.save(
            book.page, f"{book.number} · {book.title}", book=book, promise=text.inline(book.promise), facts=facts,
            body="\n".join(parts), sections=text.sections, before=around[0], after=around[1],
        )  # fmt: skip

    def _guide(self, path: Path, page: str, title: str) -> str:
        text, source = self.text(f"docs/{_below(path)}.md", page), path.read_text(encoding="utf-8")
        if page.endswith(SHEET):
            source = statements(source)
        body = text.render(source)
        return self.save(page, title, body=body, sections=text.sections[1:])

    def _source(self, name: str) -> str:
        page, source = self.pages[name], (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".md"):
            text = self.text(name, page)
            body = text.render(FRONT_MATTER.sub("", source))
            title = next((plain(text) for _, _, text in text.sections[:1]), name)
            return self.save(page, title, body=body, sections=text.sections[1:])
        kinds = ast.FunctionDef, ast.ClassDef
        found = [node for node in ast.parse(source).body if isinstance(node, kinds) and node.name[0] != "_"]
        sections = [(2, f"L-{node.lineno}", f"<code>{node.name}</code>") for node in found]
        body = f"<h1><code>{html.escape(name)}</code></h1>\n{highlighted(source, 'python', anchors='L')}"
        return self.save(page, name, body=body, sections=sections, wide=True)

    def link(self, origin: str, page: str, url: str) -> str | None:
        """Where a link of a file of the project leads on one of our pages; None if nowhere."""
        if re.match(r"[a-z]+:|#", url):
            return url
        target, _, fragment = url.partition("#")
        inside = _inside(origin, target)
        if inside not in self.pages and re.fullmatch(r"vqlearn/.+\.(py|md)", inside) and (ROOT / inside).is_file():
            self.pages[inside] = f"source/{inside.removeprefix('vqlearn/').replace('/', '-')}.html"
            self.linked.append(inside)
        if inside in self.pages:
            there = posixpath.relpath(self.pages[inside], posixpath.dirname(page) or ".")
            return there + (f"#{fragment}" if fragment else "")
        return f"{self.address}/blob/HEAD/{inside}" if self.address else None

    def _picture(self, origin: str, page: str, url: str) -> str | None:
        """A picture of the project, copied beside the pages; None for one that is elsewhere."""
        inside = _inside(origin, url)
        source = FIGURES / inside.removeprefix("figures/") if inside.startswith("figures/") else ROOT / inside
        if re.match(r"[a-z]+:", url) or not source.is_file():
            return None
        file = f"images/{inside.replace('/', '-')}"
        shutil.copyfile(source, self.folder / file)
        return posixpath.relpath(file, posixpath.dirname(page) or ".")


def _inside(origin: str, url: str) -> str:
    """The path in the project that a link of one of its files means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), url))


def guides() -> list[Path]:
    """The guides in the order in which the README of their folder links to them, itself first; folders come last."""

    def order(path: Path) -> tuple[str, bool, bool, int]:
        readme = path.parent / "README.md"
        place = readme.read_text(encoding="utf-8").find(f"({path.name}") if readme.is_file() else -1
        return path.parent.as_posix(), path != readme, place < 0, place

    return sorted(sorted(GUIDES.rglob("*.md")), key=order)


def statements(source: str) -> str:
    """A page of problems as it is handed out: without its solutions and what is said to instructors."""
    return FOR_TEACHERS.sub("", source).replace("\n", ": the statements\n", 1)


def _pages_of(path: Path) -> Iterator[tuple[Path, str, str]]:
    """The pages that a guide becomes, with their titles: one, and a second for the statements of problems alone."""
    below, title = f"docs/{_below(path)}", _title(path)
    yield path, f"{below}.html", title
    if "\n**Solution.**" in path.read_text(encoding="utf-8"):
        yield path, f"{below}{SHEET}", f"{title}: the statements"


def _below(path: Path) -> str:
    """The name of a guide below the folder of all of them, without its ending."""
    return path.relative_to(GUIDES).with_suffix("").as_posix()


def _title(path: Path) -> str:
    """The first heading of a guide."""
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.M)
    return found[1].strip("# ") if found else path.stem
