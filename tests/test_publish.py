"""One address, everywhere the same: pyproject.toml, the README's badges, and what a notebook installs on Colab."""

import shutil
import subprocess
import sys
import tomllib

import nbformat
import publish
import pytest

PLACES = ("pyproject.toml", "README.md", "notebooks/05_posterior.ipynb", "notebooks/00_start_here.ipynb")


def first_cell(path) -> str:
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def test_badges_and_notebooks_agree_with_the_address_of_the_project():
    assert publish.badges(publish.stated()) in (publish.ROOT / "README.md").read_text(encoding="utf-8")
    for path in (publish.ROOT / "notebooks").glob("*.ipynb"):
        address = publish.stated() if publish.needs_us(nbformat.read(path, as_version=4)) else ""
        assert first_cell(path) == publish.guarded(first_cell(path), address), path.name


@pytest.fixture
def root(tmp_path, monkeypatch):
    for folder in ("notebooks", "vqlearn"):
        (tmp_path / folder).mkdir()
    for module in (publish.ROOT / "vqlearn").glob("*.py"):  # by their names ruff knows what is ours
        (tmp_path / "vqlearn" / module.name).touch()
    for place in PLACES:
        shutil.copyfile(publish.ROOT / place, tmp_path / place)
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    return tmp_path


def test_an_address_is_written_changed_and_taken_out_again(root):
    publish.publish("")
    before = {place: (root / place).read_bytes() for place in PLACES}
    publish.publish("https://github.com/one/vqlearn")
    publish.publish("https://github.com/two/vqlearn")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["urls"] == {"Source": "https://github.com/two/vqlearn"} and project["scripts"]
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert "/v2/gh/two/vqlearn/HEAD?labpath=notebooks" in readme and "/github/two/vqlearn)" in readme
    for place in PLACES[2:]:
        source = first_cell(root / place)
        assert source.count("find_spec") == 1 and source.startswith("import importlib.util\n")
        assert "git+https://github.com/two/vqlearn" in source and len(source.splitlines()) <= 25
        nbformat.validate(nbformat.read(root / place, as_version=4))
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--config", "pyproject.toml", "notebooks"],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    publish.publish("")
    assert {place: (root / place).read_bytes() for place in PLACES} == before


@pytest.mark.parametrize("address", ["github.com/one/vqlearn", "https://github.com/one", "https://example.org/a/b"])
def test_anything_else_is_refused(root, address):
    with pytest.raises(SystemExit, match=r"must read https://github\.com/NAME/REPOSITORY"):
        publish.publish(address)


def test_where_the_package_is_nothing_is_installed():
    guard = publish.guarded("", "https://github.com/one/vqlearn")
    exec(guard, {"get_ipython": lambda: pytest.fail("it was about to install")})
