"""A file or a folder is replaced whole or not at all."""

import os
import stat

import pytest

from vqlearn.data.files import previous, replaced, replaced_folder


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replaced(path) as part:
        part.write_text("new")
        assert path.read_text() == "old" and part.parent == tmp_path
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_what_is_written_has_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    with replaced(tmp_path / "file.txt") as part:
        part.write_text("x")
    with replaced_folder(tmp_path / "folder") as new:
        (new / "a.txt").write_text("x")
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "model"
    with replaced_folder(folder) as new:
        (new / "a.txt").write_text("first")
    with replaced_folder(folder) as new:
        (new / "b.txt").write_text("second")
        assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert [path.name for path in folder.iterdir()] == ["b.txt"] and list(tmp_path.iterdir()) == [folder]
    with pytest.raises(RuntimeError), replaced_folder(folder) as new:
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["b.txt"] and list(tmp_path.iterdir()) == [folder]


def test_the_folder_of_a_killed_replacement_is_found_again(tmp_path):
    folder = tmp_path / "model"
    previous(folder).mkdir()
    (previous(folder) / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), replaced_folder(folder):
        assert (folder / "a.txt").read_text() == "old"
        raise RuntimeError
    assert (folder / "a.txt").read_text() == "old" and not previous(folder).exists()
