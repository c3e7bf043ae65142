"""The plan for the largest size counts what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import plan
from vqlearn.networks import cost
from vqlearn.training.sizes import SIZES

UNIT = 1024 * 1408 * 2  # bytes of a vector of L in bfloat16 for each position


def test_operations_of_an_update_are_three_times_those_of_the_forward_pass():
    """Two layers: the 1 % beside are keys and values of the text, and norms."""
    network = plan.network(2)
    tokens = torch.zeros(1, 1024, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counted:
        network(
            tokens, torch.zeros(1, 77, 512, device="meta"), torch.zeros(1, dtype=torch.int64, device="meta")
        ).sum().backward()
    assert counted.get_total_flops() == pytest.approx(3 * cost.work(network), rel=0.02)
    assert plan.operations(True) / plan.operations() == 4 / 3
    assert plan.forward() == pytest.approx(4.59e12 / 2, rel=0.02)  # half of a guided step, as measured elsewhere


def test_a_layer_keeps_what_a_count_by_hand_finds():
    """In vectors of the network's width for each position, of which the feed-forward has four inside.

    Self-attention: input, norm's result, what is projected, q, k, v, result. Cross-attention the same without k and v,
    which are of the text. Feed-forward: input, norm's result, and the inside three times.
    """
    by_hand = 7 + 5 + (2 + 3 * 4)
    assert (plan.kept(3) - plan.kept(2)) / UNIT == pytest.approx(by_hand, rel=0.01)
    assert plan.activations() == pytest.approx(36 * by_hand * UNIT + 12 * 1024 * 4096, rel=0.01)


def test_memory_and_days_by_hand():
    weights = 1_359_274_624
    for gpus in (8, 64):
        fixed = {name: value for name, value in plan.state(gpus).items() if name != "put together"}
        assert sum(fixed.values()) == pytest.approx(20 * weights / gpus)  # float32: weight, gradient, two moments, mean
    one = plan.run(plan.GPUS["A100"], 8)
    assert one.at_once * one.parts == 768 / 8 and one.at_once <= plan.most(8, False)
    seconds = 4e8 * 3 * plan.forward() / (8 * 0.4 * 312e12) + 4e8 / 768 * one.sent
    assert one.days == pytest.approx(seconds / 86400) and one.dollars == pytest.approx(seconds / 3600 * 8 * 2)
    assert SIZES["L"].layers == 36 and plan.parameters() == weights
