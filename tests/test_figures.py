"""Every picture in figures/ is what its command draws now."""

import numpy as np
import pytest
from PIL import Image

import figures

CLOSE = 6.0  # of 255; another rounding of a CPU moves a token or two, another model or code moves far more


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_shows_what_is_drawn_now(name, tmp_path):
    assert figures.difference(figures.draw(name, tmp_path), figures.FOLDER / name) < CLOSE, (
        f"figures/{name} is stale, run python -m tests.figures"
    )


def test_every_picture_is_known_and_small():
    assert {path.name for path in figures.FOLDER.iterdir()} == set(figures.FIGURES)
    for name in figures.FIGURES:
        assert (figures.FOLDER / name).stat().st_size < (1_000_000 if name.endswith(".gif") else 300_000)


def test_the_readme_draws_and_shows_the_first_figure():
    text = (figures.ROOT / "README.md").read_text(encoding="utf-8")
    assert f'vqlearn generate "{figures.CAPTION}"\n' in text and 'src="figures/first.png"' in text


def test_the_readme_has_a_still_for_readers_who_prefer_reduced_motion():
    text = (figures.ROOT / "README.md").read_text(encoding="utf-8")
    assert '<source media="(prefers-reduced-motion: reduce)" srcset="figures/reverse.png">' in text
    assert '<img src="figures/reverse.gif"' in text


def test_another_picture_is_noticed(tmp_path):
    scene = np.asarray(Image.open(figures.FOLDER / "first.png").convert("RGB"))
    Image.fromarray(scene[::-1]).save(tmp_path / "flipped.png")
    Image.fromarray(scene[1:]).save(tmp_path / "smaller.png")
    assert figures.difference(tmp_path / "flipped.png", figures.FOLDER / "first.png") > CLOSE
    assert figures.difference(tmp_path / "smaller.png", figures.FOLDER / "first.png") == np.inf
    assert figures.difference(figures.FOLDER / "first.png", figures.FOLDER / "first.png") == 0
