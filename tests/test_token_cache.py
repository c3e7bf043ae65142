"""Rows on disk and the tokens of a folder: made once, trusted only while whole, of this codec and of these pictures."""

import hashlib

import numpy as np
import pytest
import torch
from shallow import small_codec

from tests.test_folders import write
from vqlearn import VQModel
from vqlearn.data.folder import PictureFolder
from vqlearn.data.store import RowStore
from vqlearn.training import tokens as making
from vqlearn.training.tokens import TokenRows, Tokens, codec_digest, tokens_of

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(9)]
ROWS = np.arange(27, dtype=np.uint16).reshape(9, 3)


def store(folder, **made):
    return RowStore(folder, "x", (3,), np.uint16, made)


def filled(folder, count=6, **made):
    found = store(folder, **made)
    found.add(KEYS[:count], ROWS[:count])
    return found


def held(found):
    """The rows of a store by the numbers of their keys."""
    rows = found.mapped()
    return {number: rows[found.at([key])[0]].tolist() for number, key in enumerate(KEYS) if key in found}


def test_rows_are_found_by_their_keys_and_mapped_from_the_disk(tmp_path):
    found = filled(tmp_path)
    found.add(KEYS[6:], ROWS[6:])
    for one in (found, store(tmp_path)):
        assert held(one) == {number: ROWS[number].tolist() for number in range(9)}
        assert isinstance(one.mapped(), np.memmap)
        assert one.mapped()[one.at([KEYS[7], KEYS[2], KEYS[7]])].tolist() == ROWS[[7, 2, 7]].tolist()
    assert (tmp_path / "x.rows").stat().st_size == 9 * 6 and len(store(tmp_path / "empty").mapped()) == 0
    with pytest.raises(KeyError):
        filled(tmp_path / "few", 2).at([KEYS[3]])


def test_rows_that_were_made_in_another_way_are_dropped(tmp_path):
    filled(tmp_path, codec="one")
    assert len(held(store(tmp_path, codec="one"))) == 6 and held(store(tmp_path, codec="two")) == {}
    assert held(store(tmp_path, codec="one")) == {}
    filled(tmp_path / "again")
    assert held(RowStore(tmp_path / "again", "x", (3,), np.int32, {})) == {}


@pytest.mark.parametrize("file, size", [("x.rows", 6), ("x.keys", 32)])
def test_what_a_killed_process_has_half_written_is_made_again(file, size, tmp_path):
    """Wherever the end of either file is cut off: the whole rows before it stay, and more can be added."""
    for cut in range(1, 2 * size + 1, 5):
        filled(tmp_path)
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-cut])
        found = store(tmp_path)
        kept = 6 - -(-cut // size)
        assert held(found) == {number: ROWS[number].tolist() for number in range(kept)}
        found.add(KEYS[kept:], ROWS[kept:])
        assert held(store(tmp_path)) == held(found) == {number: ROWS[number].tolist() for number in range(9)}
        (tmp_path / "x.json").unlink()


@pytest.mark.parametrize("file, size", [("x.rows", 6), ("x.keys", 32)])
def test_a_flipped_bit_costs_its_row_alone(file, size, tmp_path):
    for place in range(0, 6 * size, 7):
        filled(tmp_path)
        content = bytearray((tmp_path / file).read_bytes())
        content[place] ^= 4
        (tmp_path / file).write_bytes(content)
        found = store(tmp_path)
        assert held(found) == {number: ROWS[number].tolist() for number in range(6) if number != place // size}
        found.add([KEYS[place // size]], ROWS[[place // size]])
        assert held(store(tmp_path)) == {number: ROWS[number].tolist() for number in range(6)}
        (tmp_path / "x.json").unlink()


def test_room_is_looked_for_before_the_work(tmp_path):
    with pytest.raises(OSError, match=r"x\.rows needs 38000000000\.0 MB more, and .* MB are free"):
        store(tmp_path).check_space(10**15)


# ------------------------------------------------------------------------------------------ tokens


@pytest.fixture
def codec():
    return small_codec()


@pytest.fixture
def pictures(tmp_path):
    files = {f"{n}.png": n for n in range(6)} | {f"{n}.txt": f"one {n}\ntwo {n}" for n in range(6)}
    return PictureFolder(write(tmp_path / "pictures", files), 8)


def rows_of(tokens):
    return tokens.rows[tokens.places].tolist()


def counted(monkeypatch):
    """How many pictures each call of a codec's encode is given."""
    encoded, real = [], VQModel.encode
    monkeypatch.setattr(VQModel, "encode", lambda self, images: encoded.append(len(images)) or real(self, images))
    return encoded


def test_tokens_are_those_of_the_codec_and_made_once(codec, pictures, tmp_path, monkeypatch):
    expected = codec.encode(torch.stack([row[0] for row in pictures])).tolist()
    encoded = counted(monkeypatch)
    assert rows_of(tokens_of(codec, pictures, tmp_path / "t")) == expected and encoded == [6]
    found = tokens_of(codec, pictures, tmp_path / "t")
    assert rows_of(found) == expected and encoded == [6] and found.rows.dtype == np.uint16


def test_tokens_are_made_again_for_another_codec_or_picture(codec, pictures, tmp_path, monkeypatch):
    encoded = counted(monkeypatch)
    tokens_of(codec, pictures, tmp_path / "t")
    write(tmp_path / "pictures", {"2.png": 50})
    changed = PictureFolder(tmp_path / "pictures", 8)
    found = tokens_of(codec, changed, tmp_path / "t")
    assert encoded == [6, 1]
    assert rows_of(found) == codec.encode(torch.stack([row[0] for row in changed])).tolist()
    before = codec_digest(codec)
    with torch.no_grad():
        codec.encoder.conv_in.bias[0] += 1e-6
    assert codec_digest(codec) != before
    tokens_of(codec, changed, tmp_path / "t")
    assert encoded == [6, 1, 6, 6]  # the third is this test's own


def test_tokens_go_on_where_a_process_was_killed(codec, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "AT_ONCE", 2)
    real, calls = VQModel.encode, []

    def dies(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(VQModel, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        tokens_of(codec, pictures, tmp_path / "t")
    found = tokens_of(codec, pictures, tmp_path / "t")
    assert calls == [2, 2, 2, 2]
    assert rows_of(found) == real(codec, torch.stack([row[0] for row in pictures])).tolist()


def test_every_picture_comes_once_in_an_epoch_with_each_of_its_captions_in_turn():
    tokens = Tokens(np.arange(40, dtype=np.uint16).reshape(20, 2), np.arange(19, -1, -1))
    said = [(f"{n} one", f"{n} two") if n % 2 else (f"{n} alone",) for n in range(20)]
    indices, names = list(range(3, 15)), [f"{n}.png" for n in range(20)]
    source = TokenRows(tokens, indices, said, names, lambda texts: texts, batch=4, seed=1)
    heard = {}
    for epoch in range(12):
        seen = []
        for number in range(3 * epoch, 3 * epoch + 3):
            x, texts, _ = source.rows(number, 4, torch.Generator().manual_seed(number))
            again = source.rows(number, 4, torch.Generator().manual_seed(number))
            assert torch.equal(x, again.x) and texts == again.condition and x.dtype == torch.int64
            for row, text in zip(x.tolist(), texts, strict=True):
                index = int(text.split()[0])
                assert row == [2 * (19 - index), 2 * (19 - index) + 1]
                seen.append(index)
                heard.setdefault(index, set()).add(text)
        assert sorted(seen) == indices
    assert {index: tuple(sorted(texts)) for index, texts in heard.items()} == {n: said[n] for n in indices}
    first = int(source.rows(5, 1, torch.Generator()).condition[0].split()[0])
    assert source.name(5, 0) == f"{first}.png"
