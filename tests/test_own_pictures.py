"""Pictures of one's own: the page is true, its code runs, and what is wrong with a folder is said in one sentence."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from vqlearn import VQDiffusionPipeline
from vqlearn.data.folder import PictureFolder

PAGE = Path(__file__).parent.parent / "docs" / "own-pictures.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def paint(folder, count=20, side=32):
    """Discs and bars of any colour at any place, as PNG files, and their captions."""
    folder.mkdir(exist_ok=True)
    generator, captions = torch.Generator().manual_seed(0), {}
    for number in range(count):
        image = Image.new("RGB", (side, side), (230, 240, 250))
        *color, x, y = torch.randint(0, side - 8, (5,), generator=generator).tolist()
        box, kind = (x, y, x + 8, y + 6), ("disc", "bar")[number % 2]
        pen = ImageDraw.Draw(image)
        (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill=tuple(10 * c for c in color))
        image.save(folder / f"{number:02}.png")
        captions[f"{number:02}.png"] = f"A {kind}, {'left' if x < 12 else 'right'}"
    return captions


def write(folder, captions):
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "caption"), *captions.items()])


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the page was run, and the names that it has defined when it ends."""
    folder, monkeypatch, names = tmp_path_factory.mktemp("own"), pytest.MonkeyPatch(), {}
    write(folder / "my-pictures", paint(folder / "my-pictures"))
    monkeypatch.chdir(folder)
    for block in BLOCKS:
        exec(block, names)
    monkeypatch.undo()
    return folder, names


def test_twenty_pictures_take_at_most_ten_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(lines) <= 10 and max(map(len, BLOCKS[0].splitlines())) <= 120


def test_both_stages_learned_from_the_pictures_and_the_model_draws(ran):
    folder, _ = ran
    for stage in ("codec", "denoiser"):
        with (folder / "run" / stage / "log.csv").open(newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        assert len(losses) == 10 and losses[-1] < losses[0]
    with Image.open(folder / "run" / "drawn.png") as image:
        assert image.size == (32, 32)
    loaded = VQDiffusionPipeline.from_pretrained(folder / "run" / "model")
    loaded.set_progress_bar_config(disable=True)
    assert len(loaded("a bar, right", num_inference_steps=2).images) == 1


def test_every_word_of_the_captions_is_one_token(ran):
    _, names = ran
    assert names["pictures"].words == [",", "a", "bar", "disc", "left", "right"]
    assert len(names["pipe"].tokenizer("a disc, left")["input_ids"]) == 2 + 4


def test_an_objective_of_ones_own_and_the_bound(ran):
    _, names = ran
    assert names["stage"].settings()["objective"] == "masked_tokens_only"
    assert names["figures"].keys() == {"loss", "masked", "gradient"} and 0 < names["figures"]["masked"] < 1
    assert 0 < names["bits"].standard_error < names["bits"].bits_per_token and names["bits"].samples == 4


# ------------------------------------------------------------------------------------------ the folder


def test_a_row_is_the_picture_and_its_caption(tmp_path):
    captions = paint(tmp_path, 3)
    for name, caption in captions.items():
        (tmp_path / name).with_suffix(".txt").write_text(f" {caption}\n", encoding="utf-8")
    data = PictureFolder(tmp_path)
    assert len(data) == 3 and [caption for _, caption in data] == list(captions.values())
    image, _ = data[2]
    with Image.open(tmp_path / "02.png") as picture:
        for row, column in ((0, 0), (20, 11), (31, 31)):
            expected = torch.tensor(picture.getpixel((column, row))) / 127.5 - 1
            torch.testing.assert_close(image[:, row, column], expected)


def test_names_and_captions_come_from_any_system(tmp_path):
    """A table by Excel, with a byte order mark, and an accent that a Mac writes as two signs."""
    for name in ("e\u0301.png", "b.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    rows = 'file,caption\r\n\u00e9.png,"a disc,\r\nred"\r\nb.png,a bar\r\n'
    (tmp_path / "captions.csv").write_bytes(rows.encode("utf-8-sig"))
    assert [caption for _, caption in PictureFolder(tmp_path)] == ["a bar", "a disc, red"]


def test_without_any_caption_there_is_none(tmp_path):
    paint(tmp_path, 2)
    data = PictureFolder(tmp_path)
    assert [caption for _, caption in data] == [None, None] and data.words == []


def test_what_is_wrong_is_said_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*nowhere'; make it and put pictures into it"):
        PictureFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"there are no pictures in '.*'; it must hold files that end in \.png"):
        PictureFolder(tmp_path)
    captions = paint(tmp_path, 3)
    write(tmp_path, captions)
    with pytest.raises(
        ValueError, match=r"00\.png is 32 x 32 pixels, it must be 64 x 64; say resize=True, or resize it"
    ):
        PictureFolder(tmp_path, side=64)
    Image.new("RGB", (40, 30)).save(tmp_path / "01.png")
    with pytest.raises(ValueError, match=r"01\.png is 40 x 30 pixels, it must be 32 x 32; say resize=True, or"):
        PictureFolder(tmp_path)
    (tmp_path / "01.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"01\.png is no picture \(.*\); remove it or save it as PNG"):
        PictureFolder(tmp_path)
    (tmp_path / "01.png").unlink()
    (tmp_path / "01.png").symlink_to("nothing")
    with pytest.raises(ValueError, match=r"01\.png is no picture \(no ordinary file"):
        PictureFolder(tmp_path)
    (tmp_path / "01.png").unlink()
    (tmp_path / "00.png").write_bytes((tmp_path / "00.png").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"00\.png: image cannot be decoded: "):
        _ = PictureFolder(tmp_path)[0]
    for wrong in (0, 32.0, "32"):
        with pytest.raises(ValueError, match="side must be a whole number of at least 1, got"):
            PictureFolder(tmp_path, side=wrong)


def test_pictures_of_any_kind_and_size(tmp_path):
    """A grey TIFF of 16 bits, a palette, a transparent one and a photo taken with the camera turned, each resized."""
    Image.fromarray(np.full((64, 64), 65535, np.uint16)).save(tmp_path / "a.tif")
    Image.new("P", (10, 10)).save(tmp_path / "b.gif")
    Image.new("RGBA", (32, 40), (0, 0, 0, 0)).save(tmp_path / "c.webp", lossless=True)
    turned, exif = Image.new("RGB", (48, 32), "black"), Image.Exif()
    turned.paste("white", (24, 0, 48, 32))  # stored on the right, seen below
    exif[0x0112] = 6
    turned.save(tmp_path / "d.PNG", exif=exif)
    (tmp_path / "._d.PNG").write_bytes(b"what a Mac leaves on other disks")
    (tmp_path / "more.png").mkdir()
    data = PictureFolder(tmp_path, resize=True)
    a, b, c, d = (image for image, _ in data)
    assert (a == 1).all() and (b == -1).all() and (c == 1).all()
    assert d.shape == (3, 32, 32) and (d[:, :16] == -1).all() and (d[:, 16:] == 1).all()
    assert (PictureFolder(tmp_path, resize=True, background="black")[2][0] == -1).all()


def test_what_is_wrong_with_a_caption_is_said_in_one_sentence(tmp_path):
    captions = paint(tmp_path, 3)
    write(tmp_path, {**captions, "01.png": "  "})
    with pytest.raises(ValueError, match=r"the caption of 01\.png in .*captions\.csv is empty; say what the picture"):
        PictureFolder(tmp_path)
    del captions["02.png"]
    write(tmp_path, captions)
    with pytest.raises(ValueError, match=r"02\.png has no caption; write one into .*captions\.csv"):
        PictureFolder(tmp_path)
    (tmp_path / "captions.csv").write_text("name,text\n")
    with pytest.raises(ValueError, match=r"must name the columns file and caption, got \['name', 'text'\]"):
        PictureFolder(tmp_path)
    for data, sentence in (
        (b"file,caption\n00.png,a \xe9\n", r"captions\.csv cannot be read: .* it must be a text file in UTF-8"),
        (b"file,caption\n00.png," + b"a" * 200_000, r"captions\.csv is no table: field larger than"),
        (b"", r"must name the columns file and caption, got None"),
    ):
        (tmp_path / "captions.csv").write_bytes(data)
        with pytest.raises(ValueError, match=sentence):
            PictureFolder(tmp_path)
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "00.txt").write_text("a disc")
    with pytest.raises(ValueError, match=r"01\.png has no caption; write one into .*01\.txt"):
        PictureFolder(tmp_path)
