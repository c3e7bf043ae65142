"""`python -m tests.gpu`: rehearsed whole on a CPU, and its parts by themselves. No time is asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests import pages
from tests.gpu import __main__ as command
from tests.gpu import full, report, training
from tests.gpu.record import Record, bar
from vqlearn.course import results
from vqlearn.training import SceneRecipe
from vqlearn.training.updates import learning_rate

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
ABSENT = """
import importlib.machinery

finder = importlib.machinery.PathFinder
find = finder.find_spec
finder.find_spec = classmethod(lambda cls, name, *more: None if name in {names} else find(name, *more))
"""  # what is not installed on a GPU machine


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The folder of a rehearsal, on a machine without notebooks."""
    out, path = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("path")
    notebooks = {"jupyterlab", "jupyter_client", "ipywidgets", "nbval", "nbformat", "nbclient", "IPython", "ipykernel"}
    names = {*notebooks, "matplotlib"}
    (path / "sitecustomize.py").write_text(ABSENT.format(names=names))
    environment = {**os.environ, "PYTHONPATH": str(path)}
    subprocess.run(
        [sys.executable, "-m", "tests.gpu", "--rehearse", "--out", str(out)], cwd=ROOT, env=environment, check=True
    )
    return out


def read(folder, part):
    return json.loads((folder / f"{part}.json").read_text())


def test_the_rehearsal_is_whole(rehearsed):
    for part in {*command.PARTS} - {"speed"}:
        assert read(rehearsed, part)["complete"] and read(rehearsed, part)["machine"]["card"] is None
    assert sorted(path.name for path in rehearsed.iterdir()) == [
        "correctness.json", "full.json", "speed.csv", "training.json", "weights.safetensors",
    ]  # fmt: skip
    assert len(results.read(rehearsed / "speed.csv")) == 3
    assert sum(path.stat().st_size for path in rehearsed.iterdir()) < 16 * 2**20


def test_every_test_is_rehearsed_and_passes(rehearsed):
    rows = read(rehearsed, "correctness")["rows"]
    assert len(rows) >= 70 and {row["outcome"] for row in rows} == {"passed"}
    states = {name for row in rows for name in row.get("states", {})}
    assert {"total_variation", "peak_of_the_weights", "waits_per_step", "equal_tokens"} <= states


def test_the_full_model_is_rehearsed(rehearsed):
    rows = read(rehearsed, "full")["rows"]
    assert not [row for row in rows if "error" in row or "theirs_error" in row]
    steps = [row for row in rows if row["what"] == "step"]
    assert {row["mode"] for row in steps} == {"eager", "compiled"} and "ratio" in steps[0]
    assert {row["dtype"] for row in steps} == {"float16", "bfloat16"} and {row["what"] for row in rows} >= {"pictures"}
    assert len(read(rehearsed, "full")["bars"]) == 5


def test_training_is_rehearsed_and_can_be_gone_on_with(rehearsed):
    from tests.gpu import training
    from vqlearn import VQDiffusionPipeline

    rows = read(rehearsed, "training")["rows"]
    assert [row["number"] for row in rows if row["what"] == "updates"] == [1, 2]
    assert [row["num_inference_steps"] for row in rows if row["what"] == "read back"] == [3, 4]
    assert (rehearsed / training.WEIGHTS).stat().st_size <= 8e6
    data = next(row for row in rows if row["what"] == "data")
    assert data["scenes_per_second"] > 0 and data["ideal_predictions_per_second"] > 0
    pipe, stage = training.staged(VQDiffusionPipeline.from_pretrained(), training.ON_CPU, CPU)
    assert stage.model.transformer is pipe.transformer
    training.read_weights(stage, rehearsed / training.WEIGHTS)
    learned, means = (dict(model.named_parameters()) for model in (stage.model, stage.average.module))
    for name, value in load_file(rehearsed / training.WEIGHTS).items():
        assert torch.equal(means[name], value.float()) and torch.equal(learned[name], value.float())


def test_a_rehearsal_is_no_result(rehearsed):
    assert report.report(rehearsed) == report.NONE


def test_the_page_tells_what_is_committed():
    assert pages.read(report.PAGE, report.SECTION) == report.report(report.RESULTS)
    stored, expected = results.load("gpu"), report.guided_steps(report.RESULTS)
    assert [row["setting"] for row in stored] == [row["setting"] for row in expected]
    assert [row["seconds"] for row in stored] == pytest.approx([row["seconds"] for row in expected], rel=1e-5)


# ------------------------------------------------------------------------------------------ parts


def test_a_part_that_takes_too_long_is_cut_off(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(command, "GRACE", 0.5)
    chosen = command.parse(["--rehearse", "--out", str(tmp_path)])
    assert command.run("full", 0.0, chosen) == 1
    assert "full: cut off after" in capfd.readouterr().out


def test_each_part_has_its_share_of_the_time(tmp_path):
    chosen = command.parse(["--minutes", "9", "--out", str(tmp_path)])
    found = dict(command.limits(chosen))
    assert (found["correctness"], found["full"]) == (90, 180) and 520 < found["training"] <= 530  # nothing has run
    short = dict(command.limits(command.parse(["--minutes", "1", "--out", str(tmp_path)])))
    assert all(0 < seconds <= 50 for seconds in short.values())


def test_the_learning_rate_falls_to_zero_when_the_time_is_over(monkeypatch):
    """The first updates take seconds, and the later ones are not of one length: none may come after the last."""
    monkeypatch.setattr(training, "keep", lambda *_: None)
    clock = SimpleNamespace(now=3.0, passed=lambda: clock.now)
    rates = []

    def step(number):
        rates.append(learning_rate(number, stage.recipe.steps, stage.recipe.decay))
        clock.now += 8 if number == 0 else 0.1 if number < 200 else 0.05
        return {}

    stage = SimpleNamespace(recipe=SceneRecipe(steps=12000), step=step)
    training.learn(stage, clock, Path(), until=60.0, most=10**9)
    assert 700 < len(rates) < 850 and max(rates) > 0.9 and rates[-1] < 0.05
    assert sum(rate == 0 for rate in rates) < 30


def test_without_a_gpu_a_run_says_what_to_do(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="there is no CUDA device here; --rehearse runs on the CPU"):
        command.main(["--part", "full", "--until", "0", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        command.main([])


def test_a_record_is_whole_after_every_row(tmp_path):
    record = Record(tmp_path, "full", CPU)
    for number in range(3):
        record.add(number=number)
        assert [row["number"] for row in read(tmp_path, "full")["rows"]] == list(range(number + 1))
    assert not read(tmp_path, "full")["complete"] and [path.name for path in tmp_path.iterdir()] == ["full.json"]


def test_wheels_of_a_folder_can_be_imported(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_along.py", "value = 7")
    with command.carried(tmp_path):
        import carried_along

        assert carried_along.value == 7
    with command.carried(tmp_path / "none"):
        pass


def test_without_diffusers_its_columns_are_left_out(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert not full.diffusers_at_hand()
    assert "diffusers cannot be imported, and its figures are left out: " in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ the full model


def test_the_operations_of_a_guided_step_are_counted():
    """By hand, of a network small enough: products only, the first self-attention once, all else for two branches."""
    width, length, layers, words = 16, 64, 2, full.TINY.shape["text"]["max_position_embeddings"]
    network = {**full.TINY.shape["network"], "num_layers": layers}
    assert network["num_attention_heads"] * network["attention_head_dim"] == width
    time = 2 * 2 * width * width  # scale and shift of a layer norm, from the time
    self_attention = length * (4 * 2 * width * width) + 2 * 2 * length * length * width
    query = length * 2 * width * width
    read = 2 * 2 * length * words * width + query
    feed_forward = 2 * length * 2 * width * 4 * width
    first = self_attention + query + 2 * (read + feed_forward)
    second = 2 * (self_attention + query + read + feed_forward)
    head = 2 * length * 2 * width * (network["num_vector_embeds"] - 1)
    assert full.guided_operations({**full.TINY.shape, "network": network}) == first + second + head + layers * 2 * time


def test_the_most_important_rows_come_first():
    rows = list(full.plan(full.PUBLISHED))
    assert rows[0] == ("step", full.Case(torch.float16, 1, "eager")) and rows[1][0] == "waits"
    cases = {what for kind, what in rows if kind == "step"}
    assert len(cases) == 12 == sum(kind == "step" for kind, _ in rows)  # two dtypes, three batches, two modes
    assert [what[1:] for kind, what in rows if kind == "pictures"] == [(b, s) for b in (1, 16) for s in (10, 25, 100)]


STEP = {"what": "step", "dtype": "float16", "batch": 1, "mode": "eager", "peak_MB": 812, "ours_s": 0.012,
        "theirs_s": 0.024, "network_s": 0.0119, "outside": 0.008, "of_rate": 0.3, "ratio": 2.0}  # fmt: skip
WAITS = {"what": "waits", "dtype": "float16", "batch": 1, "mode": "eager", "per_step": {}}


def test_bars_are_met_or_not():
    rows = [
        STEP,
        WAITS,
        {**STEP, "batch": 16, "of_rate": 0.55, "outside": 0.02},
        {"what": "step", "error": "RuntimeError"},
        {"what": "step", "peak_MB": 1},
    ]
    assert [(row["value"], row["met"]) for row in full.judged(rows)] == [
        (2.0, True),
        (0.55, True),
        (0.02, False),
        (0, True),
    ]
    slow = [{**STEP, "ratio": 1.49}, {**WAITS, "per_step": {"cudaStreamSynchronize": 1.0}}]
    assert [row["met"] for row in full.judged(slow)] == [False, True, False]
    assert full.judged([]) == []


def test_a_row_is_begun_only_while_there_is_time(tmp_path, monkeypatch):
    """With time for none but those that take no time nothing is measured, and the record says that it is not whole."""
    monkeypatch.setattr(full, "measure", lambda *_: pytest.fail("a row was begun"))
    monkeypatch.setattr(full, "expected", lambda *_: 10.0)
    full.run(tmp_path, CPU, 9.0)
    assert read(tmp_path, "full")["rows"] == [] and not read(tmp_path, "full")["complete"]


def test_a_row_that_fails_says_why_and_the_bare_graph_is_tried(tmp_path, monkeypatch):
    def fails(bench, case, record):
        if case.mode == "compiled":
            raise RuntimeError("no compiler\nand more")
        record.add(what="step", **case.named())

    monkeypatch.setattr(full, "step", fails)
    record = Record(tmp_path, "full", CPU)
    full.measure(None, record, "step", full.Case(torch.float16, 1, "compiled"))
    assert [(row["mode"], row.get("error")) for row in record.content["rows"]] == [
        ("compiled", "RuntimeError: no compiler"), ("captured", None),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------ the report


def test_the_report_by_example(tmp_path):
    machine = {"card": "CARD", "date": "2026-01-02", "torch": "2.11.0", "diffusers": None}
    tests = [{"test": "test_a", "outcome": "passed"}, {"test": "test_b[x]", "outcome": "failed"}]
    rows = [STEP, WAITS, {**STEP, "what": "pictures", "steps": 25, "per_second": 3.21},
            {"what": "step", "mode": "compiled", "error": "RuntimeError: none"}]  # fmt: skip
    updates = [{"what": "updates", "number": 9, "pictures": 4608, "seconds": 310.0},
               {"what": "read back", "num_inference_steps": 25, "guidance_scale": 1.0, "truncation_rate": 0.6,
                "all": 0.95, "margin": 0.019, "pictures": 500},
               {"what": "data", "scenes_per_second": 1200000, "ideal_predictions_per_second": 900}]  # fmt: skip
    bars = [bar("half of it", 0.55, True)]
    for name, found, complete in (("correctness", tests, True), ("full", rows, False), ("training", updates, True)):
        part = {"machine": machine, "rows": found, "bars": bars, "complete": complete}
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    text = report.report(tmp_path)
    for line in (
        "Measured on one CARD on 2026-01-02 (torch 2.11.0) by `python -m tests.gpu`.",
        "Of 2 tests that a GPU does what a CPU does, 1 passed. Not: `test_b[x]`.",
        "| float16, batch 1, eager | 12.0 | 24.0 | 2.00 | 0.8% | 30% | 812 |",
        "Pictures per second, batch 1 (float16, eager): 3.21 at 25 steps.",
        "- half of it: 0.55, met",
        "Rows that failed: step (compiled): RuntimeError: none.",
        "This part was cut off, or had no time for all of its rows.",
        "The shipped model's denoiser was trained for 9 updates, 4608 pictures and 310 s.",
        "At 25 steps, guidance 1 and truncation rate 0.6, 95.0% ± 1.9% of its pictures of 500 captions of the test "
        "split are right in every part.",
        "Scenes with tokens and texts: 1,200,000 a second; ideal predictions: 900 a second.",
    ):
        assert line in text.splitlines(), line
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- gpu -->\nold\n<!-- end of gpu -->\nafter\n")
    report.write(page, tmp_path, tmp_path / "gpu.csv")
    assert page.read_text() == f"before\n<!-- gpu -->\n\n{text}\n\n<!-- end of gpu -->\nafter\n"
    assert (tmp_path / "gpu.csv").read_text().startswith("setting,device,batch,seconds,of_rate\n")
