"""No figure in figures/ is stale: none was drawn with other code or another model than what is here now."""

import json
from pathlib import Path

import pytest
from PIL import Image

import figures


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_shows_what_is_here_now(name):
    assert not figures.stale(name), f"figures/{name} is stale: {figures.stale(name)}; run python -m tests.figures"


def test_every_picture_is_known_small_and_whole():
    assert {path.name for path in figures.FOLDER.glob("*.png")} == set(figures.FIGURES)
    assert set(json.loads(figures.NOTES.read_text(encoding="utf-8"))) == set(figures.FIGURES)
    for name in figures.FIGURES:
        assert (figures.FOLDER / name).stat().st_size < 300_000
        Image.open(figures.FOLDER / name).verify()


def test_the_readme_draws_and_shows_the_first_figure():
    text = (figures.ROOT / "README.md").read_text(encoding="utf-8")
    assert f'vqlearn generate "{figures.CAPTION}"\n' in text and 'src="figures/first.png"' in text


def test_comments_make_nothing_stale_and_code_does():
    source = 'def f(x):\n    """Twice."""\n    return 2 * x  # of x\n'
    assert figures.essence(source) == "def f(x):\n    return 2 * x"
    assert figures.essence(source) == figures.essence("# new\n" + source.replace("Twice.", "Two\n    times."))
    assert figures.essence(source) != figures.essence(source.replace("2 *", "3 *"))


def test_another_model_or_another_file_is_noticed(tmp_path, monkeypatch):
    for folder in ("vqlearn", "figures"):
        for path in (figures.ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = tmp_path / path.relative_to(figures.ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "figures")
    monkeypatch.setattr(figures, "NOTES", tmp_path / "figures" / "figures.json")
    before = {name: figures.stale(name) for name in figures.FIGURES}
    weights = next((tmp_path / "vqlearn" / figures.MODEL).rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    after = {name: figures.stale(name) for name in figures.FIGURES}
    assert after["samplers.png"] == after["first.png"] == "what it is made of has changed"
    assert after["exactness.png"] == before["exactness.png"] and after["schedules.png"] == before["schedules.png"]
    Path(tmp_path, "figures", "schedules.png").write_bytes(b"other")
    assert figures.stale("schedules.png") == "the file is not the one that was drawn"
