"""Nothing is in float64 on a device that has none, as Apple's GPUs: tried on torch's device "meta" in their place."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.gpu.probe import HostReads
from vqlearn import (
    SAMPLERS,
    Keeping,
    MaskReplaceSchedule,
    Transformer2DModel,
    VQDiffusionPipeline,
    VQDiffusionScheduler,
    draws,
    p_sample_step,
    q_log_probs,
    q_posterior,
    q_sample,
    training_loss,
)
from vqlearn.objective import continuous_sample, continuous_terms


class NoFloat64(TorchDispatchMode):
    """Raises where a float64 tensor comes to be on the device "meta"."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        found = func(*args, **kwargs or {})
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and leaf.is_meta and leaf.dtype == torch.float64:
                raise TypeError(f"{func} made a float64 tensor on a device that has none")
        return found


@pytest.fixture(autouse=True)
def apple(monkeypatch):
    """The device "meta" stands for one without float64 numbers."""
    monkeypatch.setattr(draws, "WITHOUT_FLOAT64", {"meta"})
    monkeypatch.setattr("vqlearn.schedule.WITHOUT_FLOAT64", {"meta"})


@pytest.fixture(scope="module")
def sequences():
    """A pipeline of four tokens of three codes, conditioned on nothing, under masks alone (for `first_hitting`)."""
    transformer = Transformer2DModel(
        2, 4, 1, None, 4, sample_size=4, num_embeds_ada_norm=5, feed_forward_mult=2, positions="sequence"
    )
    pipe = VQDiffusionPipeline(None, None, None, transformer.eval().to("meta"), VQDiffusionScheduler(4, 5))
    part = torch.linspace(0, 1, 6).double()
    pipe.schedule = MaskReplaceSchedule(1 - part, part, num_codes=3)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "first_hitting"])  # which sorts by values
def test_no_sampler_makes_one(sequences, name):
    x_0, known = torch.zeros(4, dtype=torch.int64), torch.tensor([1.0, 0.0, 0.5, 0.0])
    for sampler, generator in ((name, None), (name, torch.Generator()), (Keeping(name, x_0, known), None)):
        with HostReads(), NoFloat64():
            sequences(None, 3, sampler=sampler, generator=generator, output_type="latent")


def test_nor_does_the_method():
    schedule, tokens = MaskReplaceSchedule.paper(3, 5), torch.zeros(2, 4, dtype=torch.int64, device="meta")
    moved = schedule.to("meta")
    assert moved.alpha_bar.device.type == "cpu"
    log_p = torch.zeros(2, 4, 3, device="meta").log_softmax(-1)
    with HostReads(), NoFloat64():
        for t in (3, torch.tensor([3, 4])):
            x_t = q_sample(tokens, t, moved)
            q_posterior(log_p, x_t, t, moved)
            p_sample_step(log_p, x_t, t, moved, s=0)
            q_log_probs(tokens, t, moved)
            training_loss(log_p, tokens, x_t, torch.tensor([3, 4]), moved)
        time = torch.tensor([0.3, 0.7], device="meta")
        continuous_terms(log_p, tokens, continuous_sample(tokens, time, moved), time, moved)


def test_one_would_be_noticed():
    with NoFloat64(), pytest.raises(TypeError, match="made a float64 tensor on a device that has none"):
        torch.ones(3, device="meta").double()
