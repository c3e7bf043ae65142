"""The pages: their links lead somewhere, their Python runs, their commands are commands."""

import re
import shlex

import pytest

import vqlearn.__main__
from tests.pages import DOCS

ROOT = DOCS.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
PYTHON = [ROOT / "README.md", DOCS / "emoji.md", DOCS / "samplers.md"]  # whose code needs no other model and no time


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)|src=\"(?!https?:)([^\"]+)\"", text):
        target = next(filter(None, link))
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_python_on_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert blocks
    for block in blocks:
        exec(block, {})


def commands(page) -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.rpartition("&& ")[2] for line in lines if re.search(r"(^|&& )vqlearn ", line)]


def test_commands_on_the_pages_are_commands():
    """They are parsed, not run."""
    parser = vqlearn.__main__._parser()
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 15
    for command in found:
        assert parser.parse_args(shlex.split(command)[1:]).run, command


def test_every_page_is_in_the_list_of_pages():
    listed = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in listed, page.name


def test_the_architecture_names_every_file_of_the_method_and_every_folder():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "vqlearn").iterdir():
        if path.suffix == ".py" and not path.name.startswith("__"):
            assert f"`{path.name}`" in text, path.name
        if (path / "__init__.py").is_file():
            assert f"`{path.name}/`" in text, path.name
