"""The reference: a page for each public module, made from its docstrings, and an index of all names.

pdoc reads the modules: their members, signatures and docstrings. The pages are those of the site.
"""

from __future__ import annotations

import html
import importlib
import inspect
import pkgutil
import posixpath
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pdoc.doc

import vqlearn
from vqlearn import assets
from vqlearn.course.markup import Section, Text, anchor, highlighted

if TYPE_CHECKING:
    from vqlearn.course.site import Site

ROOT = assets.FOLDER.parent.parent
CARRIED = "course_figures", "course_guides", "course_notebooks", "course_results"  # by a wheel
PRIVATE = "__main__", "assets", "cli", "course", *CARRIED  # the course's three come after
COURSE = "vqlearn.course.plots", "vqlearn.course.checks", "vqlearn.course.widgets"
PREFIX = re.compile(r"(?<![\w.'\"])[a-z_]\w*\.(?:\w+\.)*(?=[A-Za-z_])")  # the modules before the name of a type
SENTENCE = re.compile(r"(?<=[^.]\.)(?<!Eq\.)(?<!al\.)\s+")  # where a sentence ends
DOCTEST = re.compile(r"(?:^>>> .*\n?(?:^(?!>>> |\n).+\n?)*)+", re.M)


class Entry(NamedTuple):
    """A name with a description: `qualname` is "Class.method" for a method, `page` that of its module."""

    module: str
    qualname: str
    doc: pdoc.doc.Doc[Any]
    page: str

    @property
    def target(self) -> str:
        return f"{self.page}#{self.qualname}"

    @property
    def summary(self) -> str:
        """The first sentence, or as much of it as its first paragraph holds."""
        paragraph = " ".join(_docstring(self.doc).partition("\n\n")[0].split())
        return SENTENCE.split(paragraph, maxsplit=1)[0]


def write(site: Site) -> list[str]:
    """Write the pages of the reference, and return their names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Error parsing type annotation", UserWarning)  # of named tuples' fields
        return _write(site)


def _write(site: Site) -> list[str]:
    modules = {name: pdoc.doc.Module(module) for name, module in public_modules().items()}
    entries = {name: list(_entries(name, module)) for name, module in modules.items()}
    site.modules[:] = [("reference/index.html", "Overview"), ("reference/names.html", "All names")]
    site.modules += [(_page(name), name) for name in modules if entries[name]]
    targets = _targets([entry for found in entries.values() for entry in found])
    written = [_module_page(site, name, modules[name], found, targets) for name, found in entries.items() if found]
    return [_overview(site, modules, entries), _names(site, entries), *written]


# ---------------------------------------------------------------------------------------------- what is documented


def public_modules() -> dict[str, ModuleType]:
    """All modules that are documented, by the name under which they are imported."""
    found = [importlib.import_module(name) for name in (*_walk(vqlearn.__name__, vqlearn.__path__), *COURSE)]
    return {_public_name(module): module for module in found}


def _public_name(module: ModuleType) -> str:
    last = module.__name__.rpartition(".")[2]
    return f"vqlearn.{last}" if getattr(vqlearn, last, None) is module else module.__name__


def _walk(package: str, path: list[str]) -> Iterator[str]:
    """Modules before packages, and a package's modules after it; none whose name begins with an underscore."""
    found = [info for info in pkgutil.iter_modules(path) if info.name not in PRIVATE and info.name[0] != "_"]
    for info in sorted(found, key=lambda info: info.ispkg):
        name = f"{package}.{info.name}"
        yield name
        if info.ispkg:
            yield from _walk(name, list(importlib.import_module(name).__path__))


def _entries(name: str, module: pdoc.doc.Module) -> Iterator[Entry]:
    """The public members of a module, classes with their methods, but not what its package lists already."""
    listed = _listed(module.modulename.rpartition(".")[0])
    members = module.members.values() if hasattr(module.obj, "__all__") else module.own_members
    for member in members:
        if isinstance(member, pdoc.doc.Module) or member.name[0] == "_" or any(member.obj is known for known in listed):
            continue
        if isinstance(member, pdoc.doc.Variable) and not _docstring(member) and member.name not in vqlearn.__all__:
            continue
        yield Entry(name, member.qualname, member, _page(name))
        if isinstance(member, pdoc.doc.Class):
            yield from (Entry(name, method.qualname, method, _page(name)) for method in _methods(member.own_members))


def _listed(package: str) -> list[Any]:
    """What a package below `vqlearn` names in its `__all__`."""
    module = importlib.import_module(package)
    return [] if module is vqlearn else [getattr(module, name) for name in getattr(module, "__all__", ())]


def _methods(members: list[pdoc.doc.Doc[Any]]) -> list[pdoc.doc.Doc[Any]]:
    return [m for m in members if (m.name[0] != "_" or m.name == "__call__") and _docstring(m)]


def _docstring(doc: pdoc.doc.Doc[Any]) -> str:
    """The docstring; for a value of one of our classes that has none its own or its class's."""
    text = str(doc.docstring)
    if isinstance(doc, pdoc.doc.Variable) and not text and type(doc.default_value).__module__.startswith("vqlearn."):
        text = inspect.getdoc(doc.default_value) or ""
    return "" if text.startswith(("Alias for field number", "Call self as a function")) else text


def _page(module: str) -> str:
    return f"reference/{module.removeprefix('vqlearn.')}.html"


def _targets(entries: list[Entry]) -> dict[str, str]:
    """Where each name leads: the names of `vqlearn`, and all others with one module or all before them."""
    targets: dict[str, str] = {}
    for entry in entries:
        if entry.qualname.split(".")[0] in vqlearn.__all__ and _is_public(entry):
            for name in (entry.qualname, f"vqlearn.{entry.qualname}"):
                targets[name] = entry.target
        path = f"{entry.module}.{entry.qualname}"
        for name in (path, path.removeprefix("vqlearn."), ".".join(path.split(".")[-2 - entry.qualname.count(".") :])):
            targets.setdefault(name, entry.target)
    return targets


def _is_public(entry: Entry) -> bool:
    top = entry.qualname.split(".")[0]
    return getattr(vqlearn, top, None) is getattr(importlib.import_module(entry.doc.modulename), top, None)


# ------------------------------------------------------------------------------------------------------------- pages


def _module_page(site: Site, name: str, module: pdoc.doc.Module, entries: list[Entry], targets: dict[str, str]) -> str:
    page, own = _page(name), {entry.qualname: f"#{entry.qualname}" for entry in entries}

    def entry_of(code: str) -> str | None:
        code = code.removesuffix("()")
        there = targets.get(code)
        return own.get(code) or (posixpath.relpath(there, "reference") if there else None)

    text = Text(lambda url: site.link(f"{name.replace('.', '/')}.py", page, url), code=entry_of, escape=True)
    parts = [f"<h1><code>{html.escape(name)}</code></h1>", text.render(_markdown(str(module.docstring)))]
    sections: list[Section] = []
    for entry in entries:
        parts.append(_described(site, entry, text))
        if isinstance(entry.doc, pdoc.doc.Class) and (inherited := _inherited(entry.doc, targets)):
            parts.append(inherited)
        sections.append((2 + entry.qualname.count("."), entry.qualname, f"<code>{html.escape(entry.qualname)}</code>"))
    return site.save(page, name, body="\n".join(parts), sections=sections, wide=True)


def _described(site: Site, entry: Entry, text: Text) -> str:
    """A name with its signature, its docstring and a link to its source."""
    level = 2 + entry.qualname.count(".")
    title = f"<code>{html.escape(entry.qualname)}</code> {anchor(entry.qualname)}"
    if there := _source(site, entry):
        title += f' <a class="source" href="{html.escape(there)}">source</a>'
    parts = [f'<h{level} id="{entry.qualname}">{title}</h{level}>']
    if signature := _signature(entry.doc):
        parts.append(highlighted(signature, "python"))
    parts.append(text.render(_markdown(_docstring(entry.doc))))
    return "\n".join(parts)


def _inherited(doc: pdoc.doc.Class, targets: dict[str, str]) -> str:
    """The methods that a class has from other classes of this package, with links."""
    links = [
        f'<a href="{html.escape(posixpath.relpath(there, "reference"))}"><code>{method.name}</code></a>'
        for (module, name), members in doc.inherited_members.items()
        for method in _methods(members)
        if (there := targets.get(f"{module}.{name}.{method.name}"))
    ]
    return f"<p>Inherited: {', '.join(links)}.</p>" if links else ""


def _source(site: Site, entry: Entry) -> str | None:
    doc = entry.doc
    if not doc.source_file or not doc.source_lines:
        return None
    file = Path(doc.source_file)
    if not file.is_relative_to(ROOT):
        return None
    return site.link("README.md", entry.page, f"{file.relative_to(ROOT).as_posix()}#L-{doc.source_lines[0]}")


def _signature(doc: pdoc.doc.Doc[Any]) -> str:
    """As it is called, types by their own names."""
    if isinstance(doc, pdoc.doc.Class):
        call = doc.members.get("__init__")
        found = f"class {doc.name}{call.signature if isinstance(call, pdoc.doc.Function) else ''}"
        found = found.replace("(self, ", "(").replace("(self)", "()").replace("\n    _cls,", "").replace("(_cls, ", "(")
        found = found.replace("\n    self,", "")
    elif isinstance(doc, pdoc.doc.Function):
        kind = "@classmethod\n" if doc.is_classmethod else "@staticmethod\n" if doc.is_staticmethod else ""
        found = f"{kind}def {doc.name}{doc.signature}"
    elif isinstance(doc, pdoc.doc.Variable) and doc.annotation_str:
        found = f"{doc.name}{doc.annotation_str}"
    else:
        return ""
    return PREFIX.sub("", re.sub(r"ForwardRef\('([^']*)'\)", r"\1", found))


def _markdown(docstring: str) -> str:
    """A docstring as Markdown: `::` begins a block of code, and doctests are one."""
    text = re.sub(r"::(?=\n|$)", ":", docstring)
    return DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)


def _overview(site: Site, modules: dict[str, pdoc.doc.Module], entries: dict[str, list[Entry]]) -> str:
    """The names of `vqlearn` with what they are, then all modules."""
    found = {entry.qualname: entry for each in entries.values() for entry in each if entry.qualname in vqlearn.__all__}
    public = {name: entry for name, entry in found.items() if _is_public(entry)}
    rows = [_row(f"vqlearn.{name}", public[name]) for name in vqlearn.__all__ if name in public]
    rows.append(
        f'<li id="__version__"><code>vqlearn.__version__</code> <span>the version, {vqlearn.__version__}</span></li>'
    )
    text = Text(lambda url: None, escape=True)
    lines = []
    for name, module in modules.items():
        summary = text.inline(" ".join(str(module.docstring).partition("\n\n")[0].split()))
        link = posixpath.relpath(_page(name), "reference")
        title = f'<a href="{link}"><code>{name}</code></a>' if entries[name] else f"<code>{name}</code>"
        lines.append(f"<li>{title} <span>{summary}</span></li>")
    body = "<h1>Reference</h1>\n<p>Made from the docstrings. The names that <code>import vqlearn</code> gives:</p>\n"
    body += f'<ul class="entries">{"".join(rows)}</ul>\n<h2 id="modules">All modules {anchor("modules")}</h2>\n'
    body += f'<ul class="entries">{"".join(lines)}</ul>'
    return site.save("reference/index.html", "Reference", body=body)


def _names(site: Site, entries: dict[str, list[Entry]]) -> str:
    """All names in the order of the alphabet."""
    found = sorted((entry for each in entries.values() for entry in each), key=lambda e: (e.qualname.lower(), e.module))
    rows = "".join(_row(entry.qualname, entry, entry.module) for entry in found)
    body = f'<h1>All names of the reference</h1>\n<ul class="entries">{rows}</ul>'
    return site.save("reference/names.html", "All names of the reference", body=body)


def _row(name: str, entry: Entry, module: str = "") -> str:
    text = Text(lambda url: None, escape=True)
    where = f" <small>{html.escape(module)}</small>" if module else ""
    link = html.escape(posixpath.relpath(entry.target, "reference"))
    summary = text.inline(entry.summary) if entry.summary else ""
    return f'<li><a href="{link}"><code>{html.escape(name)}</code></a>{where} <span>{summary}</span></li>'
