"""Files of strangers: what is read of them, what is refused, and that neither takes long nor much."""

import collections
import io
import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import torch

from vqlearn import CheckpointError
from vqlearn.checkpoints import reading
from vqlearn.checkpoints.reading import read_json, read_pickle, read_tensors
from vqlearn.checkpoints.sections import Section

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])


def saved(folder, value, zipped=True):
    torch.save(value, folder / "a.bin", _use_new_zipfile_serialization=zipped)
    return folder / "a.bin"


@FORMATS
def test_what_training_leaves_beside_the_tensors_is_skipped(tmp_path, zipped):
    left = {
        "lr": np.float64(0.1), "step": np.int64(3), "history": np.arange(3), "flags": [np.bool_(True)],
        "metrics": collections.defaultdict(list, {"loss": [1.0, np.float32(2)]}),
        "nested": collections.defaultdict(dict, {"a": collections.defaultdict(int, {"b": 1})}),
        "order": collections.OrderedDict(x=1),
    }  # fmt: skip
    content = read_pickle(saved(tmp_path, {"model": {"w": torch.arange(3.0)}, **left}, zipped))
    assert content["model"]["w"].tolist() == [0, 1, 2]
    assert content["metrics"]["loss"][0] == 1.0 and content["nested"]["a"]["b"] == 1 and content["order"]["x"] == 1
    assert not any(isinstance(content[name], np.generic | np.ndarray) for name in ("lr", "step", "history"))


def test_nothing_is_left_in_torch_that_another_reader_would_meet(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    read_pickle(saved(tmp_path, {"lr": np.float64(0.1)}))
    assert set(torch.serialization.get_safe_globals()) == before  # in no order
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.bin", weights_only=True)


class Called:
    """A pickle that calls something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@FORMATS
@pytest.mark.parametrize(
    ("function", "argument"),
    [(os.mkdir, "ran"), (eval, "1"), (bytearray, 10**10), (getattr, "x"), (np.fromfile, "/etc/hostname"),
     (np.load, "/etc/hostname"), (collections.deque, "x")],
)  # fmt: skip
def test_a_pickle_that_calls_something_is_named_and_not_run(tmp_path, monkeypatch, zipped, function, argument):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, {"w": torch.zeros(2), "x": Called(function, argument)}, zipped)
    with pytest.raises(CheckpointError, match="holds more than tensors and plain values"):
        read_pickle(path)
    assert not (tmp_path / "ran").exists()


@FORMATS
@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (torch.zeros(1).expand(10**10), "claims 10000000000 numbers"),
        (torch.zeros(7).as_strided((10**6, 7), (0, 1)), "claims 7000000 numbers"),
        (torch.zeros(3, device="meta"), "no plain tensor"),
        (torch.eye(3).to_sparse(), "no plain tensor"),
    ],
    ids=["expanded", "strided", "meta", "sparse"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_is_not_in_the_file_is_refused(tmp_path, zipped, tensor, sentence):
    for content in ({"w": tensor}, {"model": [{"w": tensor}]}):
        with pytest.raises(CheckpointError, match=sentence):
            read_pickle(saved(tmp_path, content, zipped))


def test_views_of_the_same_numbers_are_counted_and_tied_or_transposed_weights_pass(tmp_path):
    numbers = torch.randn(1000)
    many = saved(tmp_path, {str(view): numbers[:] for view in range(100)})
    with pytest.raises(CheckpointError, match="its tensors claim 400000 bytes"):
        read_tensors([many])
    tied = read_tensors([saved(tmp_path, {"a": numbers, "b": numbers, "c": torch.randn(30, 40).T})])
    assert torch.equal(tied["a"], numbers) and tied["a"].data_ptr() == tied["b"].data_ptr()


def test_compressed_entries_are_refused(tmp_path):
    content = io.BytesIO()
    with (
        zipfile.ZipFile(saved(tmp_path, {"w": torch.zeros(10**5)})) as plain,
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    (tmp_path / "a.bin").write_bytes(content.getvalue())
    with pytest.raises(CheckpointError, match="has compressed entries"):
        read_pickle(tmp_path / "a.bin")


def test_a_long_program_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_READS", 1000)
    monkeypatch.setattr(reading, "MOST_PICKLE", 1000)
    (tmp_path / "a.bin").write_bytes(b"\x80\x02" + b"}" * 10_000 + b".")
    with pytest.raises(CheckpointError, match=r"a\.bin"):
        read_pickle(tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match="describes its tensors in"):
        read_pickle(saved(tmp_path, {str(number): 1 for number in range(1000)}))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK", b"PK\x03\x04" + bytes(100), b"\x80\x02", b"\x80", bytes(99)])
def test_what_is_no_torch_file_is_named(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.bin is not a readable torch file|holds more than"):
        read_pickle(tmp_path / "a.bin")


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
@pytest.mark.parametrize("read", [read_json, read_pickle, Section.read, lambda path: read_tensors([path])])
def test_what_never_ends_is_not_opened(tmp_path, read):
    for name in ("a.bin", "a.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(CheckpointError, match="is no regular file"):
            read(tmp_path / name)
    with pytest.raises(CheckpointError, match="is no regular file"):
        read(tmp_path)
    for name, why in (("x" * 5000, "too long"), ("a\0b", "null"), ("none", "is missing")):
        with pytest.raises(CheckpointError, match=why):
            read(tmp_path / name)


def test_texts_and_headers_have_a_largest_size(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="no such file needs more than"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="its header would have 1099511627776 bytes"):
        read_tensors([tmp_path / "a.safetensors"])


# ------------------------------------------------------------------------------------------ YAML


def section(folder, text):
    (folder / "c.yaml").write_text(text)
    return Section.read(folder / "c.yaml")


def test_plain_values_of_yaml(tmp_path):
    text = (
        "a: -3\nb: 1.0e-06\nc: [1, .5]\nd: !!python/tuple [32, 32]\ne: true\nf: none\ng: null\nh:\ni: 'q'\n"
        "j: &x [1, 2]\nk: *x\nl: 2020-01-01\nm: 0x10\nn: 1:2:3\no: 1_0\np: yes\n<<: {a: 1}\n"
    )
    assert section(tmp_path, text).values == {
        "a": -3, "b": 1e-6, "c": [1, 0.5], "d": [32, 32], "e": True, "f": "none", "g": None, "h": None, "i": "q",
        "j": [1, 2], "k": [1, 2], "l": "2020-01-01", "m": "0x10", "n": "1:2:3", "o": "1_0", "p": "yes", "<<": {"a": 1},
    }  # fmt: skip


DOUBLING = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
MERGING = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (DOUBLING, "an alias of nested values"), (MERGING, "an alias of nested values"),
        ('a: !!int ""', "'' is no int"), ("a: !!int x", "'x' is no int"), ("a: !!float 1:2", "is no float"),
        ("a: !!bool 3", "is no bool"),
        ("a: !!binary x", "binary"), ("a: !!timestamp x", "timestamp"), ("a: !!set {x}", "set"),
        ("a: !!python/object/apply:os.mkdir ['ran']", "os.mkdir"), ("a: !!python/name:os.system", "os.system"),
        ("a: &a [*a]", "recursive"), ("[" * 30_000, "opens more than"), ("x" * 100_000, "no such file needs"),
        ("a: *z", "undefined alias"), ("? [1]\n: 2", "not plain YAML"), ("- 1", "must be a section"), ("", "got None"),
        ("a: 1\n---\nb: 2", "single document"), ("a: [", "not plain YAML"),
    ],
)  # fmt: skip
def test_other_yaml_is_one_sentence(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        section(tmp_path, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["-1", "true", "1.5", "many", "[1]", "null", "9" * 5000, "1:1:1"])
def test_what_is_no_whole_number_is_named(tmp_path, value):
    with pytest.raises(CheckpointError, match=r"c\.yaml\.n must be a whole number of at least 0, got "):
        section(tmp_path, f"n: {value}").number("n")


def test_an_archive_of_millions_of_entries_is_not_listed(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    whole, count = content.getvalue(), 500_000
    begin, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entries = whole[begin:end] * count
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count % 2**16, count % 2**16, len(entries), begin, 0)
    (tmp_path / "a.bin").write_bytes(whole[:begin] + entries + tail)
    start = time.process_time()
    with pytest.raises(CheckpointError, match="not a readable torch file"):
        read_pickle(tmp_path / "a.bin")
    assert time.process_time() - start < 1
