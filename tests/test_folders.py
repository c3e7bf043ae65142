"""Folders of pictures in every usual layout, and hostile ones: what is used, and what is said of the rest."""

import concurrent.futures
import io
import json
import multiprocessing
import os
import struct
import sys
import time
import warnings
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqlearn.data import inspection, preparing
from vqlearn.data.folder import PictureFolder, is_held_out
from vqlearn.data.listing import listed
from vqlearn.training.process import locked


def png(number, size=(8, 8), **how):
    """The content of a picture of one colour, another for each number."""
    file = io.BytesIO()
    Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number)).save(file, "PNG", **how)
    return file.getvalue()


def write(folder, files):
    """Files by their names: contents, texts, or the numbers of pictures."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = png(content) if isinstance(content, int) else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def said(folder, captions=None):
    """What each picture is conditioned on, by its name."""
    data = PictureFolder(folder, 8, captions=captions)
    return {entry.name: data.conditions(index) for index, entry in enumerate(data.entries)}


# ------------------------------------------------------------------------------------------ layouts

COCO = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}, {"id": 9, "file_name": "gone.png"}],
    "annotations": [
        {"image_id": 7, "caption": "a pear"}, {"image_id": 7, "caption": "fruit"}, {"image_id": 8, "caption": "a cat"},
        {"image_id": 9, "caption": "a dog"}, {"image_id": 10, "caption": "a cow"},
    ],
}  # fmt: skip
PEAR_AND_CAT = {"a.png": ("a pear", "fruit"), "b.png": ("a cat",)}
LAYOUTS = {
    "beside": (
        {"a.png": 1, "a.txt": "a pear\nfruit\n", "b.png": 2, "b.txt": " a\tcat "}, PEAR_AND_CAT
    ),
    "imagefolder, lines of JSON": (
        {"train/a.png": 1, "train/b.png": 2, "train/metadata.jsonl":
         '{"file_name": "a.png", "text": ["a pear", "fruit"]}\n\n{"file_name": "b.png", "text": "a cat"}\n'},
        {f"train/{name}": captions for name, captions in PEAR_AND_CAT.items()},
    ),
    "imagefolder, CSV": (
        {"a.png": 1, "b.png": 2, "metadata.csv": "file_name,caption\na.png,a pear\na.png,fruit\nb.png,a cat\n"},
        PEAR_AND_CAT,
    ),
    "our own table": (
        {"a.png": 1, "b.png": 2, "captions.csv": 'file,caption\r\nA.PNG,"a\r\npear"\r\na.png,fruit\r\nb.png,a cat'},
        PEAR_AND_CAT,
    ),
    "COCO": (
        {"val2014/val2014/a.png": 1, "val2014/val2014/b.png": 2,
         "annotations/captions_val2014.json": json.dumps(COCO), "annotations/instances_val2014.json": "{}"},
        {f"val2014/val2014/{name}": captions for name, captions in PEAR_AND_CAT.items()},
    ),
    "CUB-200": (
        {"images/001.Pear/Pear_1.png": 1, "images/002.Cat/Cat_1.png": 2, "text/text/001.Pear/Pear_1.txt":
         "a pear\nfruit\n", "text/text/002.Cat/Cat_1.txt": "a cat", "classes.txt": "1 001.Pear", "README": "x"},
        {"images/001.Pear/Pear_1.png": ("a pear", "fruit"), "images/002.Cat/Cat_1.png": ("a cat",)},
    ),
    "Oxford-102": (
        {"jpg/image_00001.png": 1, "jpg/image_00002.png": 2, "text_c10/class_00077/image_00001.txt":
         "a pear\nfruit\n", "text_c10/class_00078/image_00002.txt": "a cat"},
        {"jpg/image_00001.png": ("a pear", "fruit"), "jpg/image_00002.png": ("a cat",)},
    ),
    "classes": (
        {"train/pear/1.png": 1, "train/cat/1.png": 2, "test/cat/2.png": 3},
        {"test/cat/2.png": (0,), "train/cat/1.png": (0,), "train/pear/1.png": (1,)},
    ),
    "classes in a table": (
        {"a.png": 1, "b.png": 2, "metadata.csv": "file_name,label\na.png,pear\nb.png,cat\n"},
        {"a.png": (1,), "b.png": (0,)},
    ),
    "nothing": ({"train/a.png": 1, "test/b.png": 2}, {"test/b.png": (), "train/a.png": ()}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout, tmp_path):
    files, expected = LAYOUTS[layout]
    assert said(write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    "name, content",
    [
        ("said.csv", "path,prompt\na.png,a pear\na.png,fruit\nb.png,a cat\n"),
        ("said.jsonl", '{"image": "./a.png", "captions": ["a pear", "fruit"]}\n{"image": "b.png", "caption": "a cat"}'),
        ("said.json", json.dumps(COCO)),
        ("said.json", json.dumps([{"file": "a.png", "text": ["a pear", "fruit"]}, {"file": "b.png", "text": "a cat"}])),
    ],
)
def test_captions_may_be_in_a_file_elsewhere(name, content, tmp_path):
    folder = write(tmp_path / "pictures", {"a.png": 1, "b.png": 2, "a.txt": "another"})
    write(tmp_path, {name: content})
    assert said(folder, tmp_path / name) == PEAR_AND_CAT


def test_names_come_from_any_system(tmp_path):
    """A byte order mark by Excel, an accent that a Mac writes as two signs, a backslash of Windows, another case."""
    files = {"e\u0301.png": 1, "in/B.PNG": 2, "metadata.csv": "file_name,text\n\u00e9.png,one\nin\\b.png,two\n"}
    files["metadata.csv"] = files["metadata.csv"].encode("utf-8-sig")
    assert said(write(tmp_path, files)) == {"e\u0301.png": ("one",), "in/B.PNG": ("two",)}


def test_a_table_that_has_no_use_is_one_sentence(tmp_path):
    write(tmp_path, {"a.png": 1})
    for name, content, sentence in (
        ("x.csv", "name,what\na.png,b\n", r"the first line of .*x\.csv must name the columns file_name and caption"),
        ("x.csv", "file_name,caption\n", r"x\.csv has no row that can be used; each must name a picture"),
        ("x.csv", "", r"must name the columns file_name and caption \(or label\), got \[\]"),
        ("x.csv", "file,caption\na.png," + "b" * 200_000, r"not as x\.csv, line 2 \(field larger than field limit"),
        ("x.csv", 'file,caption\na.png,"b\nb.png,c\n', r"not as x\.csv, line 2 \(unexpected end of data\)"),
        ("x.csv", "b" * 200_000, r"x\.csv is no table: field larger than field limit"),
        ("x.jsonl", "no json\n[1]\n{}\n", r"x\.jsonl has no row that can be used"),
        ("x.json", "[" * 100_000, r"x\.json is no JSON: "),
        ("x.json", '{"images": [], "annotations": [{"image_id": 1, "bbox": []}]}', r"not as x\.json, annotation 1$"),
        ("x.json", '{"a.png": "a pear"}', "must be a list of objects, or have images with id"),
        ("x.json", "[5]", r"x\.json has no row that can be used; .*, not as x\.json, entry 1$"),
        ("x.parquet", "x", r"captions must be in a file that ends in \.csv, \.jsonl, \.json, got '.*x\.parquet'"),
    ):
        write(tmp_path, {name: content})
        with pytest.raises(ValueError, match=sentence):
            listed(tmp_path, tmp_path / name)
    with pytest.raises(ValueError, match=r"gone\.csv cannot be read \(No such file"):
        listed(tmp_path, tmp_path / "gone.csv")
    (tmp_path / "metadata.csv").mkdir()  # as a pipe, which would be waited for
    with pytest.raises(ValueError, match=r"metadata\.csv cannot be read \(no ordinary file\)"):
        listed(tmp_path, tmp_path / "metadata.csv")


def test_a_table_says_the_same_however_it_was_written(tmp_path):
    """UTF-16 as of Excel and PowerShell, spaces and capitals in the head, numbers, and columns that are too short."""
    folder = write(tmp_path / "pictures", {"a.png": 1, "b.png": 2})
    table = 'File_Name, Caption , label\r\n\r\n a.png, "a ""red"" pear, big",\r\nb.png,7\r\n,,\r\n'
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be"):
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        write(folder, {"metadata.csv": (mark + table).encode(encoding)})
        data = PictureFolder(folder, 8)
        assert said(folder) == {"a.png": ('a "red" pear, big',), "b.png": ("7",)} and not data.report.others
    write(
        folder, {"metadata.csv": "", "metadata.jsonl": b"", "a.txt": "a pear".encode("utf-16"), "b.txt": "a\0cat\x1b"}
    )
    for name in ("metadata.csv", "metadata.jsonl"):
        (folder / name).unlink()
    assert said(folder) == {"a.png": ("a pear",), "b.png": ("a cat",)}


@pytest.mark.parametrize(
    "rows, captions, damaged",
    [
        ("a.png,a cat, sitting\nb.png,ok\n", {"b.png": ("ok",)}, r"line 2 (more cells than columns: put captions"),
        ('a.png,"a cat" sits\nb.png,5" wide\n', {"b.png": ('5" wide',)}, "line 2 (',' expected after '\"')"),
        ('b.png,ok\na.png,"a cat\nc.png,x\n', {"b.png": ("ok",)}, "line 3 (unexpected end of data)"),
        (",a cat\nb.png,ok\n", {"b.png": ("ok",)}, "line 2 (without the name of a picture)"),
    ],
)
def test_a_damaged_row_of_a_table_is_no_caption(rows, captions, damaged, tmp_path):
    write(tmp_path, {"a.png": 1, "b.png": 2, "metadata.csv": f"file_name,caption\n{rows}"})
    data = PictureFolder(tmp_path, 8)
    assert {entry.name: entry.captions for entry in data.entries} == captions
    (found,) = data.report.others["row that is damaged, or without a picture or caption"]
    assert found.startswith(f"metadata.csv, {damaged}")


def test_what_is_missing_in_json_is_no_caption(tmp_path):
    """Not the words "None" and "nan"; identifiers of COCO are the same as numbers and as texts."""
    rows = [{"file_name": "a.png", "text": [None, "a pear", 3]}, {"file_name": "b.png", "text": float("nan")},
            {"file_name": "b.png", "text": {"en": "a cat"}}, {"file_name": None, "text": "a dog"}]  # fmt: skip
    write(tmp_path, {"a.png": 1, "b.png": 2, "metadata.jsonl": "\n".join(map(json.dumps, rows))})
    assert said(tmp_path) == {"a.png": ("a pear", "3")}
    damaged = PictureFolder(tmp_path, 8).report.others["row that is damaged, or without a picture or caption"]
    assert damaged == ["metadata.jsonl, line 3", "metadata.jsonl, line 4"]
    images = [{"id": "1", "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, {"id": 3}]
    coco = [{"image_id": 1, "caption": "a pear"}, {"image_id": "2", "caption": "a cat"}, {"image_id": 2},
            {"image_id": 2, "caption": None}, {"image_id": 3, "caption": "a dog"}]  # fmt: skip
    write(tmp_path, {"coco.json": json.dumps({"images": images, "annotations": coco})})
    assert said(tmp_path, tmp_path / "coco.json") == {"a.png": ("a pear",), "b.png": ("a cat",)}
    labels = [{"file_name": "a.png", "label": 0}, {"file_name": "b.png", "label": None}]
    write(tmp_path, {"labels.json": json.dumps(labels)})
    assert said(tmp_path, tmp_path / "labels.json") == {"a.png": (0,)}


def test_names_are_seen_from_the_table_from_the_folder_or_from_the_root(tmp_path):
    folder = write(tmp_path / "set" / "pictures", {"a.png": 1, "in/b.png": 2})
    (tmp_path / "link").symlink_to(tmp_path / "set")
    linked = tmp_path / "link" / "pictures"
    for names in (
        ("pictures/a.png", "../set/pictures/in/b.png"), ("a.png", "in/b.png"), (folder / "a.png", linked / "in/b.png"),
    ):  # fmt: skip
        write(tmp_path / "set", {"said.csv": f"file,caption\n{names[0]},a pear\n{names[1]},a cat\n../x.png,x\n"})
        found = listed(linked, tmp_path / "set" / "said.csv")
        assert [entry.captions for entry in found.entries] == [("a pear",), ("a cat",)], names
        assert found.remarks == {"caption of a picture that is not there": ["../x.png"]}


def test_single_lines_without_use_are_named(tmp_path):
    lines = ['{"file_name": "a.png", "text": "a pear"}', "{broken", '{"file_name": "a.png"}', "[" * 100_000,
             '{"file_name": "../a.png", "text": "out"}', '{"file_name": "b.png", "text": "  "}',
             '{"file_name": "c.png", "text": "\\ud800"}']  # fmt: skip
    write(tmp_path, {"a.png": 1, "b.png": 2, "c.png": 3, "metadata.jsonl": "\n".join(lines)})
    data = PictureFolder(tmp_path, 8)
    assert [row[1] for row in data] == ["a pear"]
    assert data.report.skipped == {"without a caption": ["b.png", "c.png"]}
    assert data.report.others == {
        "row that is damaged, or without a picture or caption":
            [f"metadata.jsonl, line {number}" for number in (2, 3, 4)],
        "caption of a picture that is not there": ["../a.png"],
        "empty caption": ["metadata.jsonl: b.png"],
        "caption that is no text in UTF-8": ["metadata.jsonl: c.png"],
    }  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="it has no pipes in folders")
def test_texts_without_use_are_named(tmp_path):
    write(tmp_path, {"a.png": 1, "a.txt": b"a p\xe9ar\n", "b.png": 2, "b.txt": "a cat", "c.png": 3,
                     "d.txt": "nobody's", "e.png": 4, "e.txt": "x" * (2**20 + 1), "f.png": 5})  # fmt: skip
    os.mkfifo(tmp_path / "f.txt")
    data = PictureFolder(tmp_path, 8)
    assert [row[1] for row in data] == ["a cat"]
    assert data.report.others == {
        "caption that is no text in UTF-8": ["a.txt"],
        "text that belongs to no picture": ["d.txt"],
        "unreadable text": ["e.txt (larger than 1048576 bytes)", "f.txt (no ordinary file)"],
    }


# ------------------------------------------------------------------------------------------ hostile files


def saved(image, name, **how):
    file = io.BytesIO()
    image.save(file, name, **how)
    return file.getvalue()


def odd():
    """Pictures of every odd kind, what is said of each, and the colour that is seen in the middle."""
    grey, exif = Image.fromarray(np.full((8, 8), 65535, np.uint16)), Image.Exif()
    exif[0x0112] = 3
    red, frames = Image.new("RGB", (8, 8), "red"), [Image.new("RGB", (8, 8), color) for color in ("lime", "black")]
    return {
        "16.png": (saved(grey, "PNG"), "more than 8 bits", (255, 255, 255)),
        "alpha.webp": (saved(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "WEBP", lossless=True),
                       "transparent, put on the background", (255, 255, 255)),
        "cmyk.tif": (saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), "CMYK", (255, 0, 0)),
        "frames.gif": (saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
                       "several frames or pages, the first taken", (0, 255, 0)),
        "palette.bmp": (saved(red.convert("P"), "BMP"), "palette", (255, 0, 0)),
        "small.png": (png(1, (4, 4)), "smaller than 8 pixels, enlarged", (37, 91, 1)),
        "turned.jpg": (saved(Image.new("RGB", (8, 8), "black"), "JPEG", exif=exif),
                       "turned as the EXIF orientation says", (0, 0, 0)),
        "wide.PNG": (png(2, (8, 20)), "not square, the middle taken", (74, 182, 2)),
    }  # fmt: skip


def test_odd_pictures_are_mended_and_named(tmp_path):
    kinds = odd()
    data = PictureFolder(write(tmp_path, {name: content for name, (content, _, _) in kinds.items()}), 8)
    assert [entry.name for entry in data.entries] == sorted(kinds) and not data.report.skipped
    for (image, _), name in zip(data, sorted(kinds), strict=True):
        _, remark, color = kinds[name]
        assert name in data.report.mended[remark]
        torch.testing.assert_close(image[:, 4, 4], torch.tensor(color) / 127.5 - 1, atol=2 / 255, rtol=0)
    assert sum(map(len, data.report.mended.values())) == len(kinds) + 1  # a GIF has a palette, too


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text, and pipes")
def test_hostile_files_are_skipped_and_named(tmp_path, monkeypatch):
    whole, bomb = png(1), png(3, (9, 8))
    monkeypatch.setattr(inspection, "MOST_PIXELS", 64)
    monkeypatch.setattr(inspection, "MOST_BYTES", 4000)
    write(tmp_path, {
        "a.png": whole, "copy of a.JPG": whole, "cut.png": saved(Image.effect_noise((8, 8), 90), "PNG")[:-40],
        "bomb.png": bomb, "empty.png": b"", "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        "large.png": b"x" * 4001, "phone.HEIC": b"x", "sub/b.png": 5, "Thumbs.db": b"x", ".hidden.png": 6,
        "__MACOSX/a.png": b"x", ".git/c.png": 7, "no\udcff\n.png": b"x",
    })  # fmt: skip
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "sub" / "round").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "sub")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    data = PictureFolder(tmp_path, 8)
    assert [entry.name for entry in data.entries] == ["a.png", "sub/b.png"]
    assert data.report.skipped == {
        "copy of another file, captions joined": ["copy of a.JPG (of a.png)"],
        "of more than 64 pixels, save it smaller": ["bomb.png (9 x 8)"],
        "damaged, or no picture": [
            "cut.png (image file is truncated)", "eps.png (not PNG, JPEG, WebP, TIFF, BMP or GIF)",
            "no\udcff\n.png (not PNG, JPEG, WebP, TIFF, BMP or GIF)"],
        "empty": ["empty.png"],
        "unreadable": ["itself.png (Too many levels of symbolic links)",
                                "large.png (larger than 4000 bytes)", "pipe.png (no ordinary file)"],
    }  # fmt: skip
    assert data.report.others == {
        "folder that a link leads to once more": ["sub/round", "other"],
        "file of a kind that is not read, save it as PNG or JPEG": ["phone.HEIC"],
    }
    text = data.report.text(None)
    assert r"no\udcff\n.png" in text and text.encode() and all(line.isprintable() for line in text.splitlines())
    assert "2 used in 8 x 8 pixels" in text and "3 damaged, or no picture: cut.png" in str(data.report)


@pytest.mark.parametrize("side, size", [(10_000, "10000 x 10000"), (20_000, "400000000 pixels")])
def test_a_bomb_of_a_hundred_million_pixels_is_not_decoded(side, size, tmp_path):
    """Its head says how large it is; the pixels are not there at all. Beyond its own limit Pillow does not open it."""
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rest = b"IDAT" + zlib.compress(b"")
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, rest)]
    write(tmp_path, {"bomb.png": b"\x89PNG\r\n\x1a\n" + b"".join(parts)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts, pixels = inspection.look(tmp_path / "bomb.png", 8)
    assert pixels is None
    assert (facts.problem, facts.reason) == ("of more than 67108864 pixels, save it smaller", size)


@pytest.mark.parametrize(
    "files, sentence",
    [
        ({}, r"there are no pictures in '.*'; it must hold files that end in \.png"),
        (
            {"a.png": b"", "b.png": b"x"},
            r"no picture in '.*' can be used: 1 damaged, or no picture: b\.png \(not PNG, .*\); 1 empty: a\.png$",
        ),
        (
            {"a.png": 1, "metadata.csv": "file_name,text\nb.png,x\n"},
            r"can be used: 1 without a caption: a\.png; 1 caption of a picture that is not there: b\.png$",
        ),
        ({"1.HEIC": b"x"}, r"no pictures in '.*'; it must .*; 1 file of a kind that is not read, .*: 1\.HEIC$"),
    ],
)
def test_a_folder_without_use_is_one_sentence(files, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        PictureFolder(write(tmp_path, files), 8)
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*nowhere'; make it and put pictures into it"):
        PictureFolder(tmp_path / "nowhere", 8)
    write(tmp_path, {"set.zip": b"PK"})
    with pytest.raises(NotADirectoryError, match=r"'.*set\.zip' is a file; give a folder of pictures"):
        PictureFolder(tmp_path / "set.zip", 8)


# ------------------------------------------------------------------------------------------ copies, split, cache


def test_pictures_outside_the_folders_of_classes_are_named(tmp_path):
    write(tmp_path, {"cat/1.png": 1, "dog/1.png": 2, "3.png": 3, "images/4.png": 4})
    data = PictureFolder(tmp_path, 8)
    assert data.classes == ["cat", "dog"] and data.report.skipped == {"without a class": ["3.png", "images/4.png"]}


def test_copies_are_one_picture_with_the_captions_of_all(tmp_path):
    write(tmp_path, {"a.png": 1, "a.txt": "one", "b.png": 1, "b.txt": "two\none", "c.png": 2, "c.txt": "three"})
    assert said(tmp_path) == {"a.png": ("one", "two"), "c.png": ("three",)}
    write(tmp_path / "x", {"cat/1.png": 1, "dog/1.png": 1, "dog/2.png": 2})
    data = PictureFolder(tmp_path / "x", 8)
    assert [data.classes[label] for _, label in data] == ["cat", "dog"]
    assert data.report.others == {"picture in several classes, the first taken": ["cat/1.png, dog/1.png"]}


def test_the_split_is_that_of_the_contents(tmp_path):
    """Names and order do not matter; a twentieth of many contents is held out."""
    import hashlib

    write(tmp_path / "a", {f"{n}.png": n for n in range(60)})
    write(tmp_path / "b", {f"{99 - n}.png": n for n in range(60)})
    first, other = (PictureFolder(tmp_path / name, 8) for name in "ab")
    held = {first.digests[i] for i in first.indices("held out")}
    assert held == {other.digests[i] for i in other.indices("held out")} and len(held) > 0
    assert held == {hashlib.sha256(png(n)).hexdigest() for n in range(60)
                    if hashlib.sha256(png(n)).digest()[0] < 13}  # fmt: skip
    assert len(first.part("train")) + len(held) == 60
    share = sum(is_held_out(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest()) for n in range(20000)) / 20000
    assert abs(share - 13 / 256) < 4 * (0.05 * 0.95 / 20000) ** 0.5
    with pytest.raises(ValueError, match="part must be 'train' or 'held out', got 'test'"):
        first.part("test")


def test_files_are_read_once_and_again_when_they_change(tmp_path, monkeypatch):
    looked = []
    real = preparing.look
    monkeypatch.setattr(preparing, "look", lambda path, **how: looked.append(path.name) or real(path, **how))
    folder, cache = write(tmp_path / "p", {f"{n}.png": n for n in range(4)} | {"x.png": b"x"}), tmp_path / "cache"
    first = PictureFolder(folder, 8, cache=cache)
    assert len(looked) == 5
    again = PictureFolder(folder, 8, cache=cache)
    assert len(looked) == 5 and str(again.report) == str(first.report) and again.fingerprint == first.fingerprint
    assert all(torch.equal(one[0], other[0]) for one, other in zip(first, again, strict=True))
    write(folder, {"2.png": 9, "5.png": 5})
    changed = PictureFolder(folder, 8, cache=cache)
    assert looked[5:] == ["2.png", "5.png"] and changed.fingerprint != first.fingerprint
    expected = torch.tensor([9 * 37 % 256, 9 * 91 % 256, 9]) / 127.5 - 1
    torch.testing.assert_close(changed[2][0][:, 3, 3], expected)
    PictureFolder(folder, 8, cache=cache, background="black")  # other pixels: all anew
    assert len(looked) == 7 + 6


def test_a_process_that_was_killed_leaves_what_it_had_read(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "AT_ONCE", 2)
    real, looked = preparing.look, []

    def dies(path, **how):
        looked.append(path.name)
        if len(looked) == 6:
            raise KeyboardInterrupt
        return real(path, **how)

    monkeypatch.setattr(preparing, "look", dies)
    folder, cache = write(tmp_path / "p", {f"{n}.png": n for n in range(8)}), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        PictureFolder(folder, 8, cache=cache)
    with (cache / "files.jsonl").open("a") as file:
        file.write('["half a line')
    data = PictureFolder(folder, 8, cache=cache)
    assert looked[6:] == [f"{n}.png" for n in range(4, 8)] and len(data) == 8
    assert len(PictureFolder(folder, 8, cache=cache)) == 8 and len(looked) == 10


def test_a_file_that_could_not_be_read_is_tried_again(tmp_path, monkeypatch):
    write(tmp_path / "p", {"a.png": 1, "b.png": 2})
    real = inspection._content

    def refused(path):
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(inspection, "_content", refused)
        first = PictureFolder(tmp_path / "p", 8, cache=tmp_path / "cache")
        assert first.report.skipped == {"unreadable": ["b.png (Permission denied)"]}
    assert len(PictureFolder(tmp_path / "p", 8, cache=tmp_path / "cache")) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="processes begin with what is patched here")
def test_a_process_that_dies_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_content", lambda path: os._exit(9))
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", partial(ProcessPoolExecutor, mp_context=fork))
    with pytest.raises(ChildProcessError, match="a process that reads pictures has died, killed or for want of memory"):
        PictureFolder(write(tmp_path, {"a.png": 1}), 8, workers=1)


def _reading(folder, cache, pipe):
    """Lock the cache, as a training does, begin to read with two processes, tell their numbers, and wait."""
    with locked(cache), preparing._mapping(2) as apply:
        apply(partial(inspection.look, side=8), [folder / "a.png"] * 64)
        pipe.send([one.pid for one in multiprocessing.active_children()])
        time.sleep(600)


def _lives(number):
    try:
        return (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_process_leaves_neither_readers_nor_a_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    end, other = context.Pipe()
    one = context.Process(target=_reading, args=(write(tmp_path / "p", {"a.png": 1}), tmp_path / "cache", other))
    one.start()
    readers = end.recv()
    assert len(readers) == 2 and all(map(_lives, readers))
    one.kill()
    one.join()
    with locked(tmp_path / "cache"):
        pass
    for _ in range(6000):
        if not any(map(_lives, readers)):
            break
        time.sleep(0.01)
    assert not any(map(_lives, readers))


def test_processes_read_the_same(tmp_path):
    write(tmp_path, {f"{n}.png": n for n in range(5)} | {"x.png": b"x", "y.png": b""})
    alone, together = PictureFolder(tmp_path, 8), PictureFolder(tmp_path, 8, workers=2)
    assert alone.fingerprint == together.fingerprint and str(alone.report) == str(together.report)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(alone, together, strict=True))
