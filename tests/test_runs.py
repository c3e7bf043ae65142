"""A run survives its machine: full disks, deleted folders, signals, damaged checkpoints, a second run beside it."""

import copy
import csv
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from vqlearn.__main__ import main
from vqlearn.training import checkpoint, fit
from vqlearn.training.process import STOPS, on_stop

posix = pytest.mark.skipif(os.name == "nt", reason="a system with POSIX signals, limits and locks")


@pytest.fixture(autouse=True)
def listening():
    """The signals as a terminal sets them: a process begun in the background or with nohup ignores some."""
    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Toy:
    """A stage whose state is a function of its steps; `events` are called before the steps of their numbers."""

    def __init__(self, steps=6, size=3, events=None, **settings):
        self.recipe, self.events, self.own = SimpleNamespace(steps=steps), events or {}, {"steps": steps, **settings}
        self.weights = torch.zeros(size)

    def step(self, number):
        self.events.get(number, lambda: None)()
        self.weights = 0.9 * self.weights + torch.rand(
            len(self.weights), generator=torch.Generator().manual_seed(number)
        )
        return {"loss": float(self.weights.sum()), "number": number}

    def settings(self):
        return self.own

    def state_dict(self):
        return {"weights": self.weights, "seen": [self.weights.sum()]}

    def load_state_dict(self, state):
        checkpoint.check_form(state, self.state_dict())
        self.weights = state["weights"].clone()


def raising(error):
    def raises():
        raise error

    return raises


def run(folder, *, save_every=2, **toy):
    stage = Toy(**toy)
    fit(stage, folder, save_every=save_every, progress=False)
    return stage


def log(folder):
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.reader(file))


def step_of(folder):
    return torch.load(folder / "checkpoint.pt")["step"]


def rest_is_exact(folder, tmp_path, **toy):
    """Whether going on in a folder ends as a run that nothing happened to."""
    ours, whole = run(folder, **toy), run(tmp_path / "whole", **toy)
    return torch.equal(ours.weights, whole.weights) and log(folder) == log(tmp_path / "whole")


# ------------------------------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_to_stop_ends_the_step_and_saves(tmp_path, number):
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match="stopped: the checkpoint of step 4 is kept in"):
            run(tmp_path / "a", save_every=100, events={3: lambda: signal.raise_signal(number)})
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert step_of(tmp_path / "a") == 4 and len(log(tmp_path / "a")) == 5
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"checkpoint.pt", "log.csv"}
    assert rest_is_exact(tmp_path / "a", tmp_path)


def test_a_signal_before_the_first_step_and_in_the_last_is_heeded(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "first", events={0: lambda: signal.raise_signal(signal.SIGINT)})
    assert step_of(tmp_path / "first") == 1
    with pytest.raises(KeyboardInterrupt, match="checkpoint of step 6"):
        run(tmp_path / "last", events={5: lambda: signal.raise_signal(signal.SIGINT)})
    assert step_of(tmp_path / "last") == 6


def test_a_signal_while_saving_waits_for_the_next_step(tmp_path, monkeypatch):
    save = checkpoint.save

    def disturbed(stage, folder, number):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        save(stage, folder, number)

    monkeypatch.setattr(checkpoint, "save", disturbed)
    with pytest.raises(KeyboardInterrupt, match="step 3"):
        run(tmp_path)
    assert step_of(tmp_path) == 3


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", events={3: twice})
    assert step_of(tmp_path / "a") == 2
    assert rest_is_exact(tmp_path / "a", tmp_path)


@posix
def test_a_closed_terminal_signals_twice_and_the_step_is_saved(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, events={2: twice})
    assert step_of(tmp_path) == 3


@posix
def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(tmp_path, events={2: lambda: signal.raise_signal(signal.SIGHUP)})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert step_of(tmp_path) == 6


def test_other_threads_have_no_signals_and_train_all_the_same(tmp_path):
    thread = threading.Thread(target=run, args=[tmp_path])
    thread.start()
    thread.join()
    assert step_of(tmp_path) == 6


# ------------------------------------------------------------------------------------------ the folder


def refused_beside(folder):
    """What a second run says while the first takes its step number 1."""
    said = []

    def second():
        with pytest.raises(OSError, match="another training or evaluation uses the folder") as caught:
            run(folder)
        said.append(str(caught.value))

    run(folder, events={1: second})
    return said


@posix
def test_a_second_run_in_a_folder_is_refused_and_the_first_is_not_disturbed(tmp_path):
    (said,) = refused_beside(tmp_path / "a")
    uses = f"another training or evaluation uses the folder {tmp_path / 'a'}"
    assert said == f"{uses}; wait for its end, or choose another"
    assert rest_is_exact(tmp_path / "a", tmp_path)
    run(tmp_path / "a")  # the lock has ended with the run


@posix
def test_the_lock_of_a_killed_process_is_none(tmp_path):
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
    code += "print('locked', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(OSError, match="another training or evaluation"):
            run(tmp_path)
        other.kill()
    run(tmp_path)
    assert step_of(tmp_path) == 6


@posix
def test_a_file_system_without_locks_is_used_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *_: raising(OSError(95, "Operation not supported"))())
    run(tmp_path)
    assert step_of(tmp_path) == 6


def move(folder):
    folder.rename(folder.with_name("moved"))


def clear(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def replace(folder):
    move(folder)
    folder.mkdir()


@posix
@pytest.mark.parametrize("what", [move, clear, replace])
def test_a_folder_that_is_gone_is_named_and_nothing_is_written_in_its_place(tmp_path, what):
    folder = tmp_path / "a"
    expected = "was deleted or moved while it was in use: training stopped after step 4, there is no checkpoint in"
    with pytest.raises(OSError, match=expected) as caught:
        run(folder, events={2: lambda: what(folder)})
    assert "\n" not in str(caught.value)
    assert not folder.exists() or not list(folder.iterdir())
    if what is not clear:
        assert step_of(tmp_path / "moved") == 2
        assert rest_is_exact(tmp_path / "moved", tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"the folder .* cannot be made \(.+\)"):
            run(folder)


# ------------------------------------------------------------------------------------------ a full disk


def full(*_):
    raise OSError(28, "No space left on device")


FAILING = ["os.fsync", "os.replace", "vqlearn.training.checkpoint.replaced", "csv.writer"]


@pytest.mark.parametrize("broken", FAILING)
def test_a_full_disk_is_named_wherever_it_is_found(tmp_path, monkeypatch, broken):
    with monkeypatch.context() as patch:
        expected = (
            r"a cannot be written \(No space left on device\): training stopped after step 4, "
            "the checkpoint of step 2 is kept in"
        )
        with pytest.raises(OSError, match=expected):
            run(tmp_path / "a", events={3: lambda: patch.setattr(broken, full)})
    assert step_of(tmp_path / "a") == 2
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"checkpoint.pt", "log.csv"}
    assert rest_is_exact(tmp_path / "a", tmp_path)


@posix
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_checkpoint_that_outgrows_the_disk_is_named_and_the_old_one_is_kept(tmp_path, share):
    """A limit for the size of files stands for the size of a disk: torch raises a RuntimeError about a position."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 100_000

    def shrink():
        whole = (tmp_path / "a" / "checkpoint.pt").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * whole), limits[1]))

    try:
        with pytest.raises(OSError, match=r"cannot be written \(File too large\): .* the checkpoint of step 2 is kept"):
            run(tmp_path / "a", size=size, events={3: shrink})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"checkpoint.pt", "log.csv"}
    assert step_of(tmp_path / "a") == 2 and rest_is_exact(tmp_path / "a", tmp_path, size=size)


# ------------------------------------------------------------------------------------------ the checkpoint


def test_every_flipped_bit_is_noticed(tmp_path):
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 61), *range(len(whole) - 80, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(
            OSError, match=r"checkpoint.pt cannot be read \(its checksum is wrong\); delete it to begin"
        ):
            checkpoint.load(Toy(), tmp_path)
    path.write_bytes(whole)
    assert checkpoint.load(Toy(), tmp_path) == 6


@pytest.mark.parametrize("damage", [lambda c: c[:0], lambda c: b"text", lambda c: c[:1000], lambda c: c + b"x"])
def test_what_is_no_checkpoint_is_named(tmp_path, damage):
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = damage(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"cannot be read \(its checksum is wrong\)"):
        run(tmp_path)
    assert path.read_bytes() == content


@posix
def test_a_checkpoint_of_a_terabyte_is_not_read(tmp_path):
    run(tmp_path)
    with (tmp_path / "checkpoint.pt").open("ab") as file:
        file.truncate(2**40)  # zeros that are on no disk
    begin = time.process_time()
    with pytest.raises(OSError, match=r"it has 1099511627776 bytes, this training needs no more than \d+\); delete it"):
        run(tmp_path)
    assert time.process_time() - begin < 1


@posix
def test_a_pipe_in_the_place_of_a_checkpoint_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(OSError, match=r"cannot be read \(it is not a regular file\)"):
        run(tmp_path)


WHOLE = {"step": 2, "recipe": {"steps": 6}, "state": {"weights": torch.ones(3), "seen": [torch.tensor(3.0)]}}
LOOP: list = []
LOOP.append(LOOP)
STEP = r"malformed \(step must be a whole number from 1 to 6, got "


@pytest.mark.parametrize(
    ("part", "value", "kind", "message"),
    [
        *(("step", value, OSError, STEP) for value in (0, -1, 7, 10**30, True, 2.0, "2", None, [2], torch.tensor(2))),
        ("recipe", None, OSError, r"cannot be read \(recipe must be a dict, got None\)"),
        ("recipe", ["steps"], OSError, r"recipe must be a dict, got \['steps'\]"),
        ("recipe", {}, ValueError, "was made with steps = None, now it is 6; choose another folder"),
        ("recipe", {"steps": 7}, ValueError, "was made with steps = 7, now it is 6"),
        ("recipe", {"steps": torch.ones(3)}, ValueError, r"was made with steps = tensor\(\[1., 1., 1.\]\), now"),
        ("state", None, OSError, "holds another network than this one; choose another folder"),
        ("state", {}, OSError, "another network"),
        ("state", {**WHOLE["state"], "more": 1}, OSError, "another network"),
        ("state", {**WHOLE["state"], "weights": torch.ones(1)}, OSError, "another network"),
        ("state", {**WHOLE["state"], "weights": torch.ones(3, dtype=torch.int64)}, OSError, "another network"),
        ("state", {**WHOLE["state"], "weights": "x"}, OSError, "another network"),
        ("state", {**WHOLE["state"], "weights": torch.full((3,), torch.nan)}, OSError, "state.weights is not finite"),
        ("state", {**WHOLE["state"], "seen": [torch.tensor(torch.inf)]}, OSError, r"state.seen\[0\] is not finite"),
        ("state", LOOP, OSError, r"malformed \(RecursionError\)"),
        ("state", {**WHOLE["state"], "weights": torch.zeros(3).to_sparse()}, OSError, "checkpoint.pt"),
        ("state", {**WHOLE["state"], "weights": torch.zeros(1).expand(10**10)}, OSError, "checkpoint.pt"),
    ],
)  # fmt: skip
def test_a_malformed_part_is_named_and_kept(tmp_path, monkeypatch, part, value, kind, message):
    monkeypatch.setattr(checkpoint, "contents", lambda *_: {**WHOLE, part: value})
    checkpoint.save(Toy(), tmp_path, 2)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(kind, match=message) as caught:
        checkpoint.load(Toy(), tmp_path)
    assert "\n" not in str(caught.value) and (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("content", [[1], {"step": 1}, 5, None])
def test_a_content_of_another_kind_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(checkpoint, "contents", lambda *_: content)
    checkpoint.save(Toy(), tmp_path, 2)
    with pytest.raises(OSError, match=r"cannot be read \(it must hold step, recipe and state\)"):
        checkpoint.load(Toy(), tmp_path)


class Trace:
    """A pickle that would leave a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "contents", lambda *_: {**WHOLE, "more": Trace(tmp_path / "trace")})
    checkpoint.save(Toy(), tmp_path, 2)
    with pytest.raises(OSError, match="holds more than tensors and plain values"):
        checkpoint.load(Toy(), tmp_path)
    assert not (tmp_path / "trace").exists()


def test_what_a_checkpoint_could_not_hold_is_found_before_the_first_step(tmp_path):
    import numpy as np

    started = []
    with pytest.raises(TypeError, match=r"settings.rate must be tensors, numbers, text .*, got np.float64\(0.5\)"):
        run(tmp_path, rate=np.float64(0.5), events={0: lambda: started.append(0)})
    assert not started
    run(tmp_path, rate=(0.5, None, [True, {"a": torch.float32}]))
    run(tmp_path, rate=(0.5, None, [True, {"a": torch.float32}]))


# ------------------------------------------------------------------------------------------ not finite, and the log


@pytest.mark.parametrize(("at", "kept"), [(5, "the checkpoint of step 4 is kept in"), (0, "there is no checkpoint in")])
def test_weights_that_are_not_finite_stop_and_keep_the_checkpoint(tmp_path, at, kept):
    stage = Toy()
    stage.events[at] = lambda: stage.weights.fill_(torch.nan)
    last = 2 * (at // 2 + 1)
    expected = f"state.weights is not finite after step {last}: training stopped, {kept} {tmp_path}"
    with pytest.raises(FloatingPointError) as caught:
        fit(stage, tmp_path, save_every=2, progress=False)
    assert str(caught.value) == expected
    assert step_of(tmp_path) == 4 if at else not (tmp_path / "checkpoint.pt").exists()
    assert len(log(tmp_path)) == last + 1  # the log shows how it came to this


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    said = FloatingPointError("the loss of step 6 is nan")
    expected = f"the loss of step 6 is nan: training stopped, the checkpoint of step 4 is kept in {tmp_path / 'a'}"
    with pytest.raises(FloatingPointError) as caught:
        run(tmp_path / "a", events={5: raising(said)})
    assert str(caught.value) == expected and step_of(tmp_path / "a") == 4
    assert rest_is_exact(tmp_path / "a", tmp_path)


@pytest.mark.parametrize("number", range(6))
def test_a_killed_run_goes_on_exactly(tmp_path, number):
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "a", events={number: raising(RuntimeError("killed"))})
    assert rest_is_exact(tmp_path / "a", tmp_path)


def test_a_torn_log_is_mended(tmp_path):
    with pytest.raises(RuntimeError):
        run(tmp_path / "a", events={5: raising(RuntimeError("killed"))})
    with (tmp_path / "a" / "log.csv").open("ab") as file:
        file.write(b"6,0.1,6\n3\n\n4,\xff\nx,1,2\n")
    assert rest_is_exact(tmp_path / "a", tmp_path)


@pytest.mark.parametrize("content", [b"step,loss\n1," + b"x" * 200_000, b"step\n" + b"9" * 5000])
def test_a_log_that_is_none_is_named(tmp_path, content):
    run(tmp_path)
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(OSError, match=r"log.csv is no table of a training; delete it, or choose another folder"):
        run(tmp_path)
    assert (tmp_path / "log.csv").read_bytes() == content


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(OSError, match=r"log\.csv' is no regular file; choose another"):
        run(tmp_path)


def test_a_run_stays_in_its_folder_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    run("a", events={3: lambda: monkeypatch.chdir(tmp_path / "elsewhere")})
    assert step_of(tmp_path / "a") == 6 and not list((tmp_path / "elsewhere").iterdir())


def test_a_log_that_was_deleted_begins_where_the_run_goes_on(tmp_path):
    with pytest.raises(RuntimeError):
        run(tmp_path, events={3: raising(RuntimeError)})
    (tmp_path / "log.csv").unlink()
    with pytest.raises(RuntimeError):
        run(tmp_path, events={5: raising(RuntimeError)})
    run(tmp_path)
    assert [row[0] for row in log(tmp_path)] == ["step", "3", "4", "5", "6"]


def test_the_run_is_saved_as_often_as_asked_and_at_its_end(tmp_path, monkeypatch):
    saved, save = [], checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda stage, folder, number: saved.append(number) or save(stage, folder, number)
    )
    run(tmp_path, steps=7, save_every=3)
    assert saved == [3, 6, 7]
    run(tmp_path, steps=7, save_every=3)  # there is nothing left to do
    assert saved == [3, 6, 7] and len(log(tmp_path)) == 8


def test_what_is_no_stage_or_no_folder_is_named(tmp_path):
    for stage in (None, "codec", torch.nn.Linear(2, 2)):
        with pytest.raises(TypeError, match="a stage has recipe, step, settings, state_dict, load_state_dict, and "):
            fit(stage, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    for folder in (None, 3, b"x", "a\0b", "x" * 300):
        with pytest.raises((ValueError, OSError), match="folder"):
            fit(Toy(), folder)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, None, "2"])
def test_how_often_to_save_is_a_whole_number(tmp_path, value):
    with pytest.raises(ValueError, match="save_every must be a whole number of at least 1, got"):
        run(tmp_path / "a", save_every=value)
    assert not (tmp_path / "a").exists()


def test_handlers_are_put_back_after_an_error():
    before = {number: signal.getsignal(number) for number in STOPS}
    with pytest.raises(RuntimeError), on_stop(copy.copy(raising)):
        raise RuntimeError
    assert before == {number: signal.getsignal(number) for number in STOPS}


# ------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize("stop", [raising(KeyboardInterrupt()), *(lambda n=n: signal.raise_signal(n) for n in STOPS)])
@pytest.mark.parametrize(
    ("stages", "kept"),
    [
        ([], "there is no checkpoint in {out} yet, the same command begins anew"),
        (["codec"], "the same command goes on from {out}/codec/checkpoint.pt"),
        (["codec", "denoiser"], "the same command goes on from {out}/denoiser/checkpoint.pt"),
    ],
)
def test_an_interrupted_command_says_what_it_has_kept(tmp_path, capsys, monkeypatch, stages, kept, stop):
    out = tmp_path / "run"
    for stage in stages:
        run(out / stage)
    monkeypatch.setattr("vqlearn.training.shipped.train", lambda *_, **__: stop())
    assert main(["train", "--out", str(out)]) == 130
    assert capsys.readouterr().err == f"vqlearn: interrupted, {kept.format(out=out)}\n".replace("/", os.sep)
    assert {signal.getsignal(number) for number in STOPS} <= {signal.SIG_DFL, signal.default_int_handler}


@pytest.mark.parametrize("device", ["meta", "nowhere", ""])
def test_a_device_that_holds_nothing_is_named(tmp_path, capsys, device):
    assert main(["train", "--out", str(tmp_path / "run"), "--device", device]) == 2
    assert f"--device {device}: torch cannot use it on this machine, try cpu" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
