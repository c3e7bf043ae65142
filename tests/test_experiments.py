"""The experiments on the papers' claims: their statistics, their world, and a miniature of each."""

import math
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from experiments import __main__ as command
from experiments import models, orders, shipped, speed
from experiments.claims import CLAIMS
from experiments.models import MINIATURE, Arm, Lab, build
from vqlearn import scenes
from vqlearn.course.contrasts import T_975, Contrast, Interval, differences, interval, verdict
from vqlearn.course.results import load, read
from vqlearn.evaluation.agreement import report as report_of


def test_an_interval_covers_the_mean_nineteen_times_in_twenty():
    """Of 4000 samples of three normal values, 95 % ± 1.4 % (four standard errors) have the mean inside."""
    samples = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist()
    inside = sum(one.low < 0 < one.high for one in map(interval, samples))
    assert abs(inside / 4000 - 0.95) < 0.014
    assert interval([1.0, 3.0]) == Interval(2.0, pytest.approx(T_975[1] * math.sqrt(2) / math.sqrt(2)))
    for values in ([1.0], [0.0] * 11):
        with pytest.raises(ValueError, match="an interval takes 2 to 10 values"):
            interval(values)


def test_a_verdict_needs_every_difference_and_refutes_by_one():
    better, worse, open_ = Interval(0.2, 0.1), Interval(-0.2, 0.1), Interval(0.05, 0.1)
    assert verdict([better, better]) == "held" and verdict([better, open_]) == "cannot tell at this size"
    assert verdict([better, open_, worse]) == "not held"


def test_a_contrast_is_a_difference_or_a_ratio_beyond_what_is_claimed():
    assert Contrast("a", "b", least=-0.05).excess(0.5, 0.52) == pytest.approx(0.03)
    assert Contrast("a", "b", ratio=True, least=15).excess(30.0, 1.0) == pytest.approx(math.log(2))


class Hurried(Lab):
    """Two steps wherever more are asked for, and one model for all seeds."""

    def model(self, arm, seed):
        return super().model(arm, 0)

    def bits(self, arm, seed):
        return super().bits(arm, 0)

    def _images(self, arm, seed, captions, call):
        if arm.kind == "diffusion":
            call = {**call, "num_inference_steps": min(2, call.get("num_inference_steps", 2))}
        return super()._images(arm, seed, captions, call)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Hurried(replace(MINIATURE, updates=1, captions=2), tmp_path_factory.mktemp("models"), progress=False)


def test_the_pictures_of_the_world_are_read_back_and_fit_their_captions(lab):
    world = lab.world
    found = report_of(world.captions, [scenes.read(image) for image in world.codec.decode(world.test)])
    assert found.all == 1 and set(found.by_count) == {1, 2, 3} and found.pictures == 2
    assert world.train.tokens.shape == (64, 64) and int(world.train.tokens.max()) < world.codec.num_tokens
    assert all(scenes.parse(caption).background in (None, "white") for caption in world.captions)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_miniature_of_each(name, lab, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models, "ROUNDS", 1)  # what several are for, the next test says
    claim = CLAIMS[name]
    rows = command.run(claim, lab, tmp_path)
    settings = {row["setting"] for row in rows}
    assert len(rows) == 2 * len(settings) and {row["seed"] for row in rows} == {0.0, 1.0}
    assert {label for one in claim.contrasts for label in (one.better, one.worse)} <= settings
    assert all(0 <= row["right"] <= 1 and row.get("speed", 1) > 0 for row in rows)
    assert read(tmp_path / f"{name}.csv") == rows == command.run(claim, lab, tmp_path)  # nothing is left to do
    command.publish(claim, rows, tmp_path)
    assert "verdict: " in capsys.readouterr().out and (tmp_path / f"{name}.png").stat().st_size > 1000


def test_speeds_are_medians_of_rounds_in_which_all_settings_take_turns(lab, monkeypatch):
    clock, turns = [0.0], []

    def images(arm, seed, captions, call):
        turns.append(call["steps"])
        clock[0] += call["steps"] * len(captions) * (100 if len(turns) < 3 else 1)  # the first round is disturbed
        yield from captions

    monkeypatch.setattr(lab, "_images", images)
    monkeypatch.setattr("time.process_time", lambda: clock[0])
    found = lab.speeds({"slow": (Arm(), {"steps": 4}), "fast": (Arm(), {"steps": 1})}, 0)
    assert found == {"slow": 0.25, "fast": 1.0} and turns[:4] == [4, 1, 4, 1]


def test_arms_differ_in_what_they_say_and_start_alike(lab):
    paper, masks, empty = (build(arm, lab.world, 0) for arm in (Arm(), Arm(masked=1.0), Arm(null="empty")))
    assert_close(paper.schedule.gamma_bar[-1].item(), 0.9)
    assert_close(masks.schedule.gamma_bar[-1].item(), 0.99999)
    assert not empty.learned_classifier_free_sampling_embeddings.learnable
    for other in (masks, empty):
        for a, b in zip(paper.transformer.parameters(), other.transformer.parameters(), strict=True):
            assert torch.equal(a, b)


TINY = speed.Shape(layers=2, width=16, heads=2, positions=16, codes=8, text=(3, 8))


class Counting(speed.Bench):
    """Counts floating-point operations in place of seconds."""

    def seconds(self, work):
        with FlopCounterMode(display=False) as counter:
            work()
        return float(counter.get_total_flops())


def test_the_time_of_a_growing_prefix_is_the_sum_over_its_lengths_and_that_of_a_cache_one_pass():
    bench = Counting(torch.device("cpu"), torch.float32)
    step, cached, uncached = (speed.measure(kind, TINY, 2, bench) for kind in speed.KINDS)
    network = TINY.network(speed.KINDS[2], bench.device, bench.dtype)
    text, tokens = torch.randn(2, *TINY.text), torch.zeros(2, TINY.positions, dtype=torch.int64)
    predict = network.predictor(text, 2, cache=False)
    each = [bench.seconds(lambda n=n: predict(tokens, n)) for n in range(TINY.positions)]
    assert uncached == pytest.approx(sum(each), rel=0.02)
    assert cached < 1.2 * step and uncached / cached == pytest.approx((TINY.positions + 1) / 2, rel=0.2)


def test_rows_of_speed_are_kept_one_by_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(speed.SHAPES, "toy", TINY)
    wanted = ["--shapes", "toy", "--batches", "1", "--sides", "--out", str(tmp_path / "speed.csv")]
    speed.main(wanted)
    rows = read(tmp_path / "speed.csv")
    assert [row["setting"] for row in rows] == [*speed.KINDS] and all(row["seconds"] > 0 for row in rows)
    assert rows[0]["device"] == "CPU, one thread" and rows[0]["positions"] == 16
    capsys.readouterr()
    speed.main(wanted)  # nothing is left to do
    assert capsys.readouterr().out == "" and read(tmp_path / "speed.csv") == rows


def test_the_perfect_code_length_of_any_order_is_that_of_a_uniform_choice():
    pictures = orders.rectangles()
    assert len(pictures.unique(dim=0)) == len(pictures) == 882
    for order in orders.ORDERS.values():
        found = orders.ideal(pictures, order(0))
        assert float(found.sum()) == pytest.approx(math.log(882)) and bool((found >= 0).all())
    assert float(orders.ideal(pictures, orders.RASTER)[0]) == pytest.approx(
        -(72 / 882 * math.log(36 / 882) + 810 / 882 * math.log(810 / 882))
    )  # 36 rectangles of each ink hold the first cell


def test_the_rows_of_orders_say_where_a_network_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(orders, "SEEDS", 2)
    wanted = ["--updates", "1", "--draws", "2", "--out", str(tmp_path / "orders.csv")]
    orders.main(wanted)
    rows = read(tmp_path / "orders.csv")
    assert {row["setting"] for row in rows} == {*orders.ORDERS, orders.ANY} and len(rows) == 8
    for row in rows:
        assert sum(row[f"excess {place}"] for place in range(36)) == pytest.approx(
            row["bits"] - math.log2(882), abs=1e-2
        )
    orders.main(wanted)
    assert read(tmp_path / "orders.csv") == rows


def test_stored_results_are_found_by_name():
    assert {row["setting"] for row in load("orders")} == {*orders.ORDERS, orders.ANY}
    with pytest.raises(FileNotFoundError, match="no results of an experiment 'alchemy' are stored; there are: "):
        load("alchemy")


def test_the_rows_of_the_shipped_model_are_kept_one_by_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "SEEDS", 1)
    monkeypatch.setattr(shipped, "STEPS", 1)
    few = {prompt: dict([*part.items()][-1:]) for prompt, part in shipped.PARTS.items()}
    monkeypatch.setattr(shipped, "PARTS", few)
    shipped.main(wanted := ["--pictures", "2", "--out", str(tmp_path / "shipped.csv")])
    rows = read(tmp_path / "shipped.csv")
    assert [row["setting"] for row in rows] == [name for part in shipped.PARTS.values() for name in part]
    for row in rows:
        assert sum(row[f"objects: {name}"] for name in ("none", "one", "more")) == 1
        assert all(0 <= row[name] <= 1 for name in ("right", "count", "white"))
    capsys.readouterr()
    shipped.main(wanted)  # nothing is left to do
    assert capsys.readouterr().out == "" and read(tmp_path / "shipped.csv") == rows


def test_what_is_stored_of_the_shipped_model_is_whole():
    stored = load("shipped")
    assert {(row["setting"], row["seed"]) for row in stored} == {
        (name, seed) for part in shipped.PARTS.values() for name in part for seed in range(shipped.SEEDS)
    }


def test_the_page_and_notebook_15_say_the_verdicts_on_all_claims():
    book = nbformat.read(Path(__file__).parents[1] / "notebooks/15_claims.ipynb", 4)
    printed = {
        name: said
        for cell in book.cells
        for output in cell.get("outputs", [])
        for name, said in re.findall(r"^verdict on (\S+): (.+)$", output.get("text", ""), re.M)
    }
    expected = {name: verdict([*differences(one.contrasts, load(name)).values()]) for name, one in CLAIMS.items()}
    assert printed == expected and len(expected) == 9
    page = (Path(__file__).parents[1] / "experiments/README.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `(.+?)` \| .+ \| (.+) \|$", page, re.M)) == expected
