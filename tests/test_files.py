"""A file or a folder of files is replaced whole or not at all, wherever it is and whatever else is there."""

import os
import stat
import subprocess
import sys
import threading

import pytest

from vqlearn.data import files
from vqlearn.data.files import SAVED, SAVING, is_left_over, latest, replaced, replaced_files, replaced_folder

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


def tree(folder):
    """Every file below a folder with its text."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------ a file


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replaced(path) as part:
        part.write_text("new")
        assert path.read_text() == "old" and part.parent.parent == tmp_path
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@posix
def test_a_planted_link_is_not_followed_and_a_users_link_stays(tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    for name in ("x.png.part", ".x.png.part"):
        (tmp_path / name).symlink_to(tmp_path / "thesis")
    (tmp_path / "x.png").symlink_to(tmp_path / "pictures.png")  # dangling
    with replaced(tmp_path / "x.png") as part:
        part.write_text("new")
    assert (tmp_path / "thesis").read_text() == "years of work"
    assert (tmp_path / "x.png").is_symlink() and (tmp_path / "pictures.png").read_text() == "new"


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with replaced(tmp_path / "a") as first, replaced(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert (tmp_path / "a").read_text() == "first"  # the last to end


def test_the_longest_name_is_written_and_a_longer_one_refused_before_anything_is(tmp_path):
    longest = tmp_path / ("x" * 251 + ".png")
    with replaced(longest) as part:
        part.write_text("new")
    assert longest.read_text() == "new"
    with pytest.raises(OSError, match="too long"), replaced(tmp_path / ("x" * 252 + ".png")):
        pytest.fail("the block was entered")
    with pytest.raises(FileNotFoundError, match="there is no folder"), replaced(tmp_path / "no" / "x.png"):
        pytest.fail("the block was entered")


@posix
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "folder", "loop", "/dev/null"):
        with pytest.raises(OSError), replaced(tmp_path / name):
            pytest.fail("the block was entered")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)


@posix
def test_permissions_are_those_of_the_file_before_or_the_usual_ones(tmp_path):
    before = os.umask(0o027)
    try:
        (tmp_path / "private").write_text("x")
        (tmp_path / "private").chmod(0o600)
        for name in ("private", "file"):
            with replaced(tmp_path / name) as part:
                part.write_text("x")
                part.chmod(0o644)
        with replaced_folder(tmp_path / "folder") as new:
            (new / "part").mkdir()
            (new / "part" / "a").write_text("x")
            (new / "part" / "a").chmod(0o600)  # as safetensors does
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("private", "file", "folder/part/a")}
    assert modes == {"private": 0o600, "file": 0o640, "folder/part/a": 0o640}
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_several_files_take_their_places_together(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    paths = [tmp_path / "one" / "a", tmp_path / "two" / "a", tmp_path / "one" / "b"]
    with pytest.raises(RuntimeError), replaced_files(paths) as parts:
        parts[0].write_text("half")
        raise RuntimeError
    assert tree(tmp_path) == {}
    with replaced_files(paths) as parts:
        for text, part in zip("xyz", parts, strict=True):
            part.write_text(text)
    assert tree(tmp_path) == {"one/a": "x", "two/a": "y", "one/b": "z"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"a", "b"}  # and nothing else


HALF = """
import os, sys, time
from vqlearn.data.files import replaced
with replaced(sys.argv[1]) as part:
    part.write_text("half")
    print(part.parent, flush=True)
    sys.stdin.read() or os._exit(9)
"""


@posix
def test_what_a_killed_writer_of_one_file_has_left_goes_with_the_next_and_a_living_ones_stays(tmp_path):
    command = [sys.executable, "-c", HALF, str(tmp_path / "a")]
    dead = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    lives = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    left, held = dead.stdout.strip(), lives.stdout.readline().strip()
    mine = [tmp_path / f"{SAVING}{name}" for name in ("notes", "0" * 15, "0" * 17)]  # of the user, who likes such names
    for folder in mine:
        folder.mkdir()
    planted = tmp_path / f"{SAVING}{'0' * 16}"
    planted.symlink_to(mine[0])
    assert dead.returncode == 9 and is_left_over(tmp_path / left)
    with replaced(tmp_path / "b") as part:
        part.write_text("whole")
    assert not os.path.exists(left) and os.path.exists(held) and planted.is_symlink()
    lives.communicate("go on")
    assert tree(tmp_path) == {"a": "half", "b": "whole"}
    assert set(tmp_path.iterdir()) == {tmp_path / "a", tmp_path / "b", planted, *mine}


@posix
def test_without_locks_nothing_is_taken_for_dead(tmp_path, monkeypatch):
    left = tmp_path / f"{SAVING}{'0' * 16}"
    left.mkdir()
    monkeypatch.setattr(files, "fcntl", None)
    with replaced(tmp_path / "a") as part:
        part.write_text("whole")
    with replaced_folder(tmp_path) as new:
        (new / "b").write_text("whole")
    assert left.is_dir() and tree(tmp_path) == {"a": "whole", "b": "whole"}


def test_a_writer_whose_folder_is_taken_for_left_over_takes_another(tmp_path, monkeypatch):
    """Between making it and holding it another one may clear up."""
    real, taken = files.secrets.token_hex, []

    def name(count):
        taken.append(real(count))
        return taken[-1]

    def claimed(folder, real=files._claimed):
        if len(taken) == 1 and folder.name.endswith(taken[0]):
            folder.rmdir()
        return real(folder)

    monkeypatch.setattr(files.secrets, "token_hex", name)
    monkeypatch.setattr(files, "_claimed", claimed)
    with replaced(tmp_path / "a") as part:
        part.write_text("whole")
    assert len(taken) == 2 and tree(tmp_path) == {"a": "whole"}


# ------------------------------------------------------------------------------------------ a folder


def _write(new, **texts):
    for name, text in texts.items():
        path = new / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_files_take_their_places_and_those_of_the_user_stay(tmp_path):
    folder = tmp_path / "model"
    with replaced_folder(folder) as new:
        _write(new, index="first", part__a="first", part__b="first", gone__c="first")
    _write(folder, notes="mine", part__notes="mine")
    with replaced_folder(folder, ["part/b", "gone/c", "never/was"]) as new:
        _write(new, index="second", part__a="second")
        assert tree(folder)["index"] == "first"
    assert tree(folder) == {"index": "second", "part/a": "second", "notes": "mine", "part/notes": "mine"}
    assert sorted(path.name for path in folder.iterdir()) == ["index", "notes", "part"]
    assert list(tmp_path.iterdir()) == [folder]


@posix
def test_the_folder_itself_is_not_replaced(tmp_path, monkeypatch):
    """It may be the current one, a mount point, or named by a link, of its own or of a part, that may lead nowhere."""
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "model")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here" / "part").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "here")
    inode = (tmp_path / "here").stat().st_ino
    for text in ("first", "second"):
        for name in (".", tmp_path / "link"):
            with replaced_folder(name) as new:
                _write(new, index=text, part__a=text)
    assert os.path.samefile(os.getcwd(), tmp_path / "here") and (tmp_path / "here").stat().st_ino == inode
    assert (tmp_path / "link").is_symlink() and (tmp_path / "here" / "part").is_symlink()
    assert tree(tmp_path / "real" / "model") == {"index": "second", "part/a": "second"}
    assert tree(tmp_path / "elsewhere") == {"a": "second"} and (tmp_path / "here" / "index").read_text() == "second"


@posix
def test_names_that_lead_out_of_the_folder_are_not_removed(tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    with replaced_folder(tmp_path / "model") as new:
        _write(new, index="first")
    (tmp_path / "model" / "part").symlink_to(tmp_path)
    with replaced_folder(tmp_path / "model", ["../thesis", "part/thesis", str(tmp_path / "thesis"), ".", ""]) as new:
        _write(new, index="second")
    assert (tmp_path / "thesis").read_text() == "years of work"


@pytest.mark.parametrize("moves", range(4))
def test_an_error_while_moving_is_undone(tmp_path, moves, monkeypatch):
    folder = tmp_path / "model"
    with replaced_folder(folder) as new:
        _write(new, index="first", part__a="first", part__b="first")
    before, real = tree(folder), files._put

    def put(source, place, done=[]):  # noqa: B006
        done.append(place)
        if len(done) > moves:
            raise OSError("the disk is full")
        real(source, place)

    monkeypatch.setattr(files, "_put", put)
    with pytest.raises(OSError, match="the disk is full"), replaced_folder(folder, ["part/b"]) as new:
        _write(new, added__d="second", index="second", part__a="second", zzz="second")
    assert tree(folder) == before and sorted(path.name for path in folder.iterdir()) == ["index", "part"]


def test_an_error_while_writing_changes_nothing(tmp_path):
    folder = tmp_path / "deep" / "model"
    with pytest.raises(RuntimeError), replaced_folder(folder):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with replaced_folder(folder) as new:
        _write(new, index="first")
    with pytest.raises(RuntimeError), replaced_folder(folder) as new:
        _write(new, index="second")
        raise RuntimeError
    assert tree(folder) == {"index": "first"}


@pytest.mark.parametrize(("had", "comes"), [("part__a", "part"), ("part", "part__a")])
def test_a_users_folder_or_file_in_the_way_is_named_before_anything_is_moved(tmp_path, had, comes):
    (tmp_path / "model").mkdir()
    _write(tmp_path / "model", **{had: "mine", "index": "first"})
    before = tree(tmp_path / "model")
    with pytest.raises(OSError, match="move it away"), replaced_folder(tmp_path / "model") as new:
        _write(new, **{comes: "second", "index": "second"})
    assert tree(tmp_path / "model") == before


KILLED = """
import os, sys
from vqlearn.data import files
real, left = files._put, [int(sys.argv[2])]
def put(source, place):
    if not left[0]: os._exit(9)
    left[0] -= 1
    real(source, place)
files._put = put
with files.replaced_folder(sys.argv[1], ["old"]) as new:
    for name in ("a", "b", "c"):
        (new / name).write_text("second")
    if len(sys.argv) > 3: os._exit(9)
"""


@posix
@pytest.mark.parametrize("arguments", [["9", "while writing"], ["0"], ["2"]], ids=" ".join)
def test_after_a_kill_the_old_files_or_the_new_ones_are_whole_and_the_next_call_clears_up(tmp_path, arguments):
    folder = tmp_path / "model"
    with replaced_folder(folder) as new:
        _write(new, a="first", b="first", c="first", old="first")
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), *arguments])
    assert done.returncode == 9 and any(is_left_over(path) for path in folder.iterdir())
    found = {name: (latest(folder) / name).read_text() for name in ("a", "b", "c")}
    assert found == dict.fromkeys("abc", "first" if len(arguments) == 2 else "second")
    with replaced_folder(folder) as new:
        _write(new, d="third")
    expected = found | {"d": "third"}
    assert {name: text for name, text in tree(folder).items() if name != "old"} == expected
    assert not any(is_left_over(path) for path in folder.iterdir()) and latest(folder) == folder


def test_of_several_writers_at_once_the_last_to_end_is_there_whole(tmp_path):
    folder, begun = tmp_path / "model", threading.Barrier(4)

    def write(text):
        with replaced_folder(folder) as new:
            begun.wait()
            _write(new, **dict.fromkeys(map(chr, range(97, 117)), text))

    writers = [threading.Thread(target=write, args=(str(number),)) for number in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert len(tree(folder)) == 20 and len(set(tree(folder).values())) == 1


@posix
def test_a_writer_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0)
    with replaced_folder(tmp_path / "model") as new:
        _write(new, a="first")
    (tmp_path / "model" / SAVED).mkdir()
    _write(tmp_path / "model" / SAVED, a="of another process")
    with files._claimed(tmp_path / "model" / SAVED):
        late = replaced_folder(tmp_path / "model")
        with pytest.raises(OSError, match="another process is writing to"), late as new:
            _write(new, a="second")
        assert (tmp_path / "model" / "a").read_text() == "first"
    with replaced_folder(tmp_path / "model") as new:  # it was killed
        _write(new, b="third")
    assert tree(tmp_path / "model") == {"a": "of another process", "b": "third"}


@posix
def test_what_another_living_process_writes_is_left_alone(tmp_path):
    with replaced_folder(tmp_path / "model") as first:
        with replaced_folder(tmp_path / "model") as second:
            _write(second, a="second")
        _write(first, a="first")
    assert tree(tmp_path / "model") == {"a": "first"}


def test_what_begins_like_something_left_over_is_not_read_as_a_model(tmp_path):
    (tmp_path / f"{SAVING}x").mkdir()
    assert latest(tmp_path) == tmp_path and latest(tmp_path / "none") == tmp_path / "none"
    (tmp_path / SAVED).mkdir()
    assert latest(tmp_path) == tmp_path / SAVED
