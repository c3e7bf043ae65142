import errno
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from vqlearn.__main__ import main
from vqlearn.cli import course, generate

PROMPT = "a large red circle left of a small blue square"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """The folder that `vqlearn generate` wrote to, and what it said: on stderr each import, too."""
    folder = tmp_path_factory.mktemp("generated")
    command = [sys.executable, "-X", "importtime", "-m", "vqlearn", "generate", PROMPT, "--steps", "10"]
    return folder, subprocess.run([*command, "--out", "picture.png"], capture_output=True, text=True, cwd=folder)


def test_generate_writes_a_picture_and_says_what_it_shows(generated):
    folder, done = generated
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote picture.png: ") and "asked" in done.stdout
    assert "denoising" in done.stderr
    with Image.open(folder / "picture.png") as image:
        assert image.size == (256, 256)
    assert [path.name for path in folder.iterdir()] == ["picture.png"]


def test_a_picture_needs_no_compiler(generated):
    """torch._dynamo, which transformers' models and torch's initialisation on "meta" import, takes over a second."""
    imported = set(re.findall(r"^import time: .*\| +(\S+)$", generated[1].stderr, re.M))
    assert "torch" in imported and not {"torch._dynamo", "sympy", "transformers.modeling_utils"} & imported


def test_the_same_seed_gives_the_same_picture_and_count_numbers_them(tmp_path, capsys):
    for name in ("a.png", "b.png"):
        assert (
            main(["generate", PROMPT, "--steps", "3", "--seed", "4", "--count", "2", "--out", str(tmp_path / name)])
            == 0
        )
    assert {path.name for path in tmp_path.iterdir()} == {"a-1.png", "a-2.png", "b-1.png", "b-2.png"}
    assert (tmp_path / "a-1.png").read_bytes() == (tmp_path / "b-1.png").read_bytes()
    assert (tmp_path / "a-1.png").read_bytes() != (tmp_path / "a-2.png").read_bytes()
    assert capsys.readouterr().out.count("wrote") == 4


WRONG = {
    "say what to draw, for example: vqlearn generate a small red circle": ["generate"],
    "prompt must not be empty": ["generate", " \u200b\u3000"],
    "prompt holds U+DCFF, which is half a character and no text": ["generate", "a red\udcff circle"],
    "num_inference_steps must be a whole number from 1 to 100, got 1000": ["evaluate", "--steps", "1", "1000"],
    "num_inference_steps must be a whole number from 1 to 100, got 101": ["generate", PROMPT, "--steps", "101"],
    "argument --steps: must be a whole number from 1 to 1000000000, got 0": ["generate", PROMPT, "--steps", "0"],
    "argument --steps: must be a whole number from 1 to 1000000000, got 'ten'": ["generate", PROMPT, "--steps", "ten"],
    "argument --count: must be a whole number from 1 to 10000, got -2": ["generate", PROMPT, "--count=-2"],
    "argument --count: must be a whole number from 1 to 10000, got 1000": [
        "generate",
        PROMPT,
        "--count",
        "1" + "0" * 18,
    ],
    "argument --count: must be a whole number from 1 to 1000000, got": ["evaluate", "--count", str(10**18)],
    "argument --count: must be a whole number from 1 to 1000000, got '99999": ["evaluate", "--count", "9" * 5000],
    "argument --seed: must be a whole number from 0 to 18446744073709551615, got '1.5'": ["evaluate", "--seed", "1.5"],
    "argument --timeout: must be a whole number from 1 to 1000000, got 0": ["course", "check", ".", "--timeout", "0"],
    "guidance_scale must be a number in [0, 1000], got -3.0": ["generate", PROMPT, "--guidance=-3"],
    "argument --guidance: must be a finite number, got 'much'": ["generate", PROMPT, "--guidance", "much"],
    "argument --guidance: must be a finite number, got nan": ["evaluate", "--guidance", "1", "nan"],
    "argument --truncation: must be a finite number, got inf": ["generate", PROMPT, "--truncation", "1e999"],
    "truncation_rate must be a number in [0, 1], got 2.0": ["generate", PROMPT, "--truncation", "2"],
    "--out must be a name that ends in .png, got 'picture.jpg'": ["generate", PROMPT, "--out", "picture.jpg"],
    "--out must be a name that ends in .png, got '.png'": ["generate", PROMPT, "--out", ".png"],
    "cannot be written (File name too long)": ["generate", PROMPT, "--out", "x" * 252 + ".png"],
    "x-1.png' cannot be written (File name too long)": [
        "generate",
        PROMPT,
        "--count",
        "2",
        "--out",
        "x" * 250 + ".png",
    ],
    "cannot be written (embedded null byte)": ["generate", PROMPT, "--out", "x\0.png"],
    "--out: there is no folder 'nowhere'": ["generate", PROMPT, "--out", "nowhere/picture.png"],
    "there is no model folder 'nothing'": ["generate", PROMPT, "--model", "nothing"],
    "'file.txt' is a file; a model is a folder": ["generate", PROMPT, "--model", "file.txt"],
    "model_index.json is missing": ["generate", PROMPT, "--model", "."],
    "torch cannot use it on this machine": ["train", "--out", "run", "--device", "nowhere"],
    "--out must be a folder, 'file.txt' is a file": ["train", "--out", "file.txt"],
    "invalid choice: 'best' (choose from": ["generate", PROMPT, "--sampler", "best"],
    "argument --dtype: invalid choice: 'int8'": ["evaluate", "--dtype", "int8"],
    "there is no model folder 'nowhere'": ["info", "nowhere"],
    "there is no model folder 'nothing here'": ["doctor", "--model", "nothing here"],
    "is missing": ["convert", "nothing.pth", "--config", "nothing.yaml", "--out", "made"],
    "unrecognized arguments: --colour": ["generate", PROMPT, "--colour", "red"],
    "arguments are required: COMMAND": [],
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_input_is_one_sentence_and_status_2(sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    try:
        status = main(WRONG[sentence])
    except SystemExit as stop:  # argparse
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and sentence in error and "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, capsys):
    target = tmp_path / "picture.png"
    target.mkdir()
    assert main(["generate", PROMPT, "--out", str(target)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert list(target.iterdir()) == []


def test_a_sentence_needs_no_quotes(tmp_path, capsys):
    for prompt in (["a", "small", "star"], ["a small star"]):
        assert main(["generate", *prompt, "--steps", "2", "--out", str(tmp_path / f"{len(prompt)}.png")]) == 0
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "3.png").read_bytes()


def test_unknown_words_are_a_note(tmp_path, capsys):
    assert main(["generate", "a red zebra", "--steps", "1", "--out", str(tmp_path / "x.png")]) == 0
    shown = capsys.readouterr()
    assert "note: this model has never seen 'zebra'; it knows: a, above" in shown.err
    assert "was not checked" in shown.out
    generate.note("a" * 100_000)
    assert len(capsys.readouterr().err) < 1100


def test_prompts_in_other_spaces_are_read(tmp_path, capsys):
    """No-break and ideographic spaces, joiners and line ends: the sentence is the same, and so is the picture."""
    for name, prompt in (("a.png", "a small star"), ("b.png", "a\u00a0small\u3000\u200bstar\u200d\n")):
        assert main(["generate", prompt, "--steps", "2", "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "note" not in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ files


@pytest.fixture
def quick(monkeypatch):
    """Commands draw at once: a list of the calls of `generate.draw`."""
    calls = []
    monkeypatch.setattr(generate, "load", lambda _: None)
    monkeypatch.setattr(
        generate, "draw", lambda *call: calls.append(call) or [Image.new("RGB", (64, 64))] * call[2].count
    )
    return calls


def test_what_is_beside_the_picture_stays(quick, tmp_path):
    """A file of the user's own, and a link that somebody has planted, under the names that parts might have."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "x.png.part").symlink_to("mine")
    (tmp_path / ".x.png.part").write_text("mine, too")
    assert main(["generate", "x", "--out", str(tmp_path / "x.png")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "x.png.part", ".x.png.part", "x.png"}
    assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / ".x.png.part").read_text() == "mine, too"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file names")
def test_long_names_and_links_are_written(quick, tmp_path):
    """255 bytes are a name; a link stays one, and the file that it names is the picture."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "there" / "x.png")
    for name in ("x" * 251 + ".png", "图" * 83 + "ab.png", "link.png", "link.png"):
        assert main(["generate", "x", "--out", str(tmp_path / name)]) == 0
        with Image.open(tmp_path / name) as image:
            assert image.size == (256, 256)
    assert (tmp_path / "link.png").is_symlink() and len(list(tmp_path.iterdir())) == 4
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["x.png"]


def _nowhere_left(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "case", ["full", "little room", "protected", "pipe", "folder", "loop", "dangling", "no such name"]
)
def test_what_cannot_be_written_is_found_before_the_picture_is_drawn(quick, tmp_path, monkeypatch, capsys, case):
    target, count = tmp_path / "x.png", 1
    if case == "full":
        monkeypatch.setattr("pathlib.Path.write_bytes", _nowhere_left)
    elif case == "little room":
        count = 7
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    elif case == "protected":
        target.touch()
        monkeypatch.setattr("os.access", lambda path, _: path != target)
    elif case == "pipe":
        os.mkfifo(target)
    elif case == "folder":
        target.mkdir()
    elif case in ("loop", "dangling"):
        target.symlink_to(target if case == "loop" else tmp_path / "nowhere" / "x.png")
    else:
        monkeypatch.setattr("os.lstat", lambda _: "图".encode("ascii"))
    before = sorted(tmp_path.iterdir())
    assert main(["generate", "x", "--out", str(target), "--count", str(count)]) == 2
    assert not quick and sorted(tmp_path.iterdir()) == before
    assert capsys.readouterr().err.rstrip().removeprefix("vqlearn: --out: ").removeprefix(repr(str(target))) == {
        "full": " cannot be written (No space left on device); choose another file",
        "little room": "7 pictures may take 1.8 MB, and 1.0 MB are free",
        "protected": " cannot be written (it is write-protected); choose another file",
        "pipe": " cannot be written (it is no ordinary file); choose another file",
        "folder": " cannot be written (it is a folder); choose another file",
        "loop": " cannot be written (Too many levels of symbolic links); choose another file",
        "dangling": f" cannot be written (there is no folder {str(tmp_path / 'nowhere')!r}; make it first or choose "
                    "another); choose another file",
        "no such name": " cannot be written ('ascii' codec can't encode character '\\u56fe' in position 0: "
                        "ordinal not in range(128)); choose another file",
    }[case]  # fmt: skip


# ------------------------------------------------------------------------------------------ what is printed


def test_signs_that_the_encoding_lacks_cost_no_status(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    assert main(["generate", "x", "--out", "图.png"]) == 0
    assert (tmp_path / "图.png").exists()
    assert sys.stdout.buffer.getvalue().decode("cp1252") == "wrote \\u56fe.png\n"
    assert sys.stdout.errors == "strict"


@pytest.fixture
def left():
    """A pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as out:
        yield out


def test_a_reader_that_has_left_costs_no_picture(quick, tmp_path, monkeypatch, left):
    monkeypatch.setattr(sys, "stdout", left)
    assert main(["generate", "x", "--out", str(tmp_path / "x.png")]) == 0 and (tmp_path / "x.png").exists()


def test_what_nobody_reads_is_not_worked_for(monkeypatch, left, capsys):
    monkeypatch.setattr(sys, "stdout", left)
    monkeypatch.setattr(generate, "run", lambda _: print("y" * 100_000) or pytest.fail("it went on"))
    assert main(["generate", "x"]) == 0 and capsys.readouterr().err == ""


def test_streams_that_are_deaf_or_closed_cost_no_picture(quick, tmp_path, monkeypatch):
    class Deaf(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "nobody is there")

    monkeypatch.setattr(generate, "draw", lambda *_: generate.note("?") or [Image.new("RGB", (64, 64))])
    for out, err in ((io.StringIO(), Deaf()), (None, None)):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert main(["generate", "x", "--out", str(tmp_path / "x.png")]) == 0 and (tmp_path / "x.png").exists()
        assert main(["generate", " "]) == 2 and sys.stderr is err
        (tmp_path / "x.png").unlink()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_could_not_be_printed_is_a_status_of_its_own(quick, tmp_path, monkeypatch, capsys, size):
    monkeypatch.setattr("vqlearn.evaluation.verdict.verdict", lambda *_: "y" * size)
    with open("/dev/full", "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["generate", "x", "--count", "2", "--out", str(tmp_path / "x.png")]) == 1
        assert main(["generate", "x", "--out", "nowhere/x.png"]) == 2
    lost, wrong = capsys.readouterr().err.splitlines()
    assert lost == "vqlearn: not all could be printed: [Errno 28] No space left on device"
    assert "no folder 'nowhere'" in wrong and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (MemoryError(), 2, "the memory does not suffice"),
        (MemoryError("for 7 pictures"), 2, "for 7 pictures"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory:\nyou tried"), 2, "DefaultCPUAllocator: can't"),
        (RuntimeError("CUDA out of memory."), 2, "CUDA out of memory."),
        (OSError(errno.EIO, "Input/output error"), 2, "[Errno 5] Input/output error"),
        (KeyboardInterrupt(), 130, "interrupted, nothing was written"),
    ],
)
def test_what_ends_a_command_is_one_line(quick, monkeypatch, capsys, tmp_path, error, status, line):
    def draw(*_):
        raise error

    monkeypatch.setattr(generate, "draw", draw)
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "x"]) == status
    shown = capsys.readouterr().err
    assert shown.startswith(f"vqlearn: {line}") and shown.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_an_error_of_ours_is_no_wrong_input(quick, monkeypatch):
    monkeypatch.setattr(generate, "draw", lambda *_: [].pop())
    with pytest.raises(IndexError):
        main(["generate", "x"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_says_so_and_writes_nothing(tmp_path):
    command = [sys.executable, "-m", "vqlearn", "generate", PROMPT, "--steps", "100", "--count", "64", "--out", "x.png"]
    # a shell that starts its jobs in the background has them ignore Ctrl-C, and children inherit that
    listen = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, bufsize=1, **listen) as running:
        try:
            shown = ""
            while not re.search(r"\b[1-9]\d*/100\b", shown):  # the bar has begun to move
                read = os.read(running.stderr.fileno(), 4096).decode()
                assert read, shown
                shown += read
            running.send_signal(signal.SIGINT)
            rest = running.communicate(timeout=600)[1]
        finally:
            running.kill()
    assert running.returncode == 130
    assert "interrupted, nothing was written" in rest and "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["mine"], "vqlearn course copy mine"),
        (["my folder", "--exercises-only"], "vqlearn course copy 'my folder' --exercises-only"),
        (["--check", "mine", "--json"], "vqlearn course check mine --json"),
        (["mine", "--timeout", "7", "--check"], "vqlearn course check mine --timeout 7"),
        (["mine", "--site"], "vqlearn course site mine"),
    ],
)
def test_the_old_forms_of_course_work_and_say_the_new_one(old, new, capsys):
    assert shlex.join(["vqlearn", *course.modern(["course", *old])]) == new
    assert capsys.readouterr().err == f"vqlearn: note: this is written `{new}` now\n"


def test_an_old_form_is_run(tmp_path, capsys):
    assert main(["course", str(tmp_path / "mine"), "--without-outputs"]) == 0
    shown = capsys.readouterr()
    assert "new        05_posterior.ipynb\n" in shown.out and (tmp_path / "mine" / "05_posterior.ipynb").is_file()
    assert shown.err.count("\n") == 1 and "vqlearn course copy" in shown.err


@pytest.mark.parametrize("argv", [["course"], ["course", "--help"], ["course", "site", "x"], ["generate", "--check"]])
def test_what_is_no_old_form_stays(argv, capsys):
    assert course.modern(argv) == argv and capsys.readouterr().err == ""


def test_the_samplers_to_choose_from_are_those_of_the_package(capsys):
    from vqlearn import SAMPLERS

    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name in SAMPLERS:
        assert f"{name}," in shown or f", {name} (default" in shown


def test_help_of_the_whole_program_loads_nothing_heavy():
    code = "import sys; from vqlearn.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'numpy', 'transformers', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in ("generate", "train", "evaluate", "convert", "info", "course", "doctor"):
        assert f"    {name} " in done.stdout


def test_doctor_tells_what_a_bug_report_needs(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("vqlearn", "python", "torch", "transformers", "device", "model", "whole", "parameters"):
        assert word in shown


def test_evaluate_prints_a_row_for_each_pair(capsys):
    assert main(["evaluate", "--count", "6", "--steps", "2", "3", "--guidance", "1", "2"]) == 0
    shown = capsys.readouterr().out
    assert "codec alone: 100.0% of 6 scenes read the same" in shown
    rows = [line.split(" | ")[:2] for line in shown.splitlines() if line.startswith("| ")]
    assert rows == [["| steps", "guidance"], ["| 2", "1"], ["| 2", "2"], ["| 3", "1"], ["| 3", "2"]]


def test_train_writes_a_model_that_generate_reads(tmp_path, capsys, monkeypatch):
    from vqlearn.evaluation import agreement as evaluate

    real = evaluate.evaluate
    monkeypatch.setattr(
        evaluate, "evaluate", lambda pipe, **call: real(pipe, **{**call, "count": 2, "num_inference_steps": 2})
    )
    out = tmp_path / "run"
    assert main(["train", "--out", str(out), "--codec-steps", "2", "--steps", "2"]) == 0
    assert {path.name for path in (out / "denoiser").iterdir()} == {"checkpoint.pt", "log.csv", "loss.png"}
    picture = tmp_path / "x.png"
    assert main(["generate", PROMPT, "--steps", "2", "--model", str(out / "model"), "--out", str(picture)]) == 0
    assert picture.exists() and "wrote" in capsys.readouterr().out


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, vqlearn; print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_public_name_is_there():
    import vqlearn

    for name in vqlearn.__all__:
        assert getattr(vqlearn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vqlearn.nothing


def test_train_offers_every_objective_of_the_scenes():
    from vqlearn.cli import train
    from vqlearn.training import scenes

    assert set(train.OBJECTIVES) == set(scenes.OBJECTIVES)


@pytest.mark.parametrize(
    "command", [["train", "--out", ""], ["convert", "x.pth", "--config", "x.yaml", "--out", ""], ["course", "copy", ""],
                ["course", "check", ""], ["course", "site", ""], ["generate", "a star", "--out", ""],
                ["generate", "a star", "--model", ""], ["info", ""], ["doctor", "--model", ""],
                ["evaluate", "--model", ""]]
)  # fmt: skip
def test_a_variable_of_the_shell_that_was_never_set_is_not_the_current_folder(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(command)
    except SystemExit as error:  # argparse's own
        status = error.code
    assert status == 2 or command[0] == "doctor"
    said = "".join(capsys.readouterr())
    assert "''" in said and "Traceback" not in said and list(tmp_path.iterdir()) == []
