"""Nothing in the sampling loop asks for what a device holds: on a GPU every such question waits until all is done."""

import itertools

import pytest
import torch
from shallow import first_layers
from test_float32 import NoFloat64

from tests.gpu.probe import HostReads, peak_bytes, waits, waits_per_step
from vqlearn import VQDiffusionPipeline
from vqlearn.samplers import SAMPLERS

COUNTED = (
    "high_quality",
    "purity",
    "confident",
    "halton",
)  # how many tokens to uncover is counted on the CPU, and sent


@pytest.fixture(scope="module")
def empty():
    """The shipped pipeline, with two layers, on torch's device "meta", on which tensors hold no values."""
    pipe = VQDiffusionPipeline.from_pretrained()
    pipe.transformer = first_layers(pipe.transformer)
    for part in pipe.components.values():  # `pipe.to` refuses a device without values
        if isinstance(part, torch.nn.Module):
            part.to("meta")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def per_step(pipe, **call):
    """Reads of each step but the first, and copies to the device."""
    seen = []
    with HostReads() as counter:
        pipe("a star", 5, output_type="latent", callback=lambda *_: seen.append((counter.reads, counter.sent)), **call)
    return {(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(seen)}


@pytest.mark.parametrize("name", [*(name for name in SAMPLERS if name != "first_hitting")])
def test_no_sampler_reads_in_its_loop_but_the_one_that_must(empty, name):
    """Guided and truncated. `first_hitting` reads once, before its loop, and needs another schedule."""
    for _ in range(2):  # the second time nothing is made that is then kept
        found = per_step(empty, guidance_scale=2.0, truncation_rate=0.8, sampler=name)
    if name == "entropy_bounded":  # how many tokens a call may uncover is a matter of the prediction
        assert found <= {(2, 0), (1, 0)}
    else:
        assert found == ({(0, 1), (0, 0)} if name in COUNTED else {(0, 0)})


@pytest.mark.parametrize("call", [{"top_k": 3}, {"guidance_scale": 1.0}, {"guidance_scale": 0.0}])
def test_nor_does_what_surrounds_the_network(empty, call):
    assert per_step(empty, **call) == {(0, 0)}


def test_nothing_is_in_float64_where_there_is_none(empty, monkeypatch):
    """Text, guidance, truncation and codec of the shipped pipeline, as `test_float32` has it for the method."""
    for module in ("draws", "schedule"):
        monkeypatch.setattr(f"vqlearn.{module}.WITHOUT_FLOAT64", {"meta"})
    with HostReads(), NoFloat64():
        empty("a star", 1, guidance_scale=2.0, truncation_rate=0.8, top_k=9, output_type="pt")


def test_numbers_from_a_generator_on_the_cpu_are_sent(empty):
    """Three draws a step: of x_0, of the way, and of a code; each by way of pinned memory, for which nobody waits."""
    assert per_step(empty, generator=torch.Generator()) == {(0, 3)}


def test_reads_are_counted():
    with HostReads() as counter:
        x = torch.ones(3, device="meta")
        assert (float(x.sum()), bool(x.any()), x.cpu().tolist()) == (0.0, False, [1.0] * 3)
        torch.ones(3).to("meta")
    assert (counter.reads, counter.sent) == (3, 1)


def test_the_profiler_counts_reads_per_step():
    cpu, x = torch.device("cpu"), torch.ones(3)
    assert waits(lambda: [x.sum().item() for _ in range(3)], cpu)["aten::item"] == 3
    found = waits_per_step(lambda steps: [x[0].item()] + [x.sum().item() + x.max().item() for _ in range(steps)], cpu)
    assert found == {"aten::item": 2, "aten::_local_scalar_dense": 2}


def test_the_peak_of_memory_is_that_of_what_lives_together():
    def work():
        kept = torch.empty(1000)
        for _ in range(5):
            torch.empty(500)
        return kept

    assert 6000 <= peak_bytes(work, torch.device("cpu")) < 6500
