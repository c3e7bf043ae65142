"""Numbers, times and generators of the method that are none: one sentence that names the argument, everywhere."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vqlearn import (
    Keeping,
    MaskReplaceSchedule,
    ancestral,
    evidence_bound,
    guide,
    p_sample_step,
    q_log_probs,
    q_posterior,
    q_sample,
    strided_times,
    top_k,
    training_loss,
    transition_matrix,
    truncate,
)
from vqlearn.choices import halton_order
from vqlearn.draws import draw
from vqlearn.exactness import grids, markov_chain, oracle
from vqlearn.guidance import scale_at, within
from vqlearn.objective import TimeSampler, continuous_sample
from vqlearn.sampling import Corrector, official_times
from vqlearn.unmasking import EntropyBounded, Halton, HighQuality, Purity

S = MaskReplaceSchedule.paper(4, 10)
X_0, X_T, T = torch.zeros(2, 6, dtype=torch.int64), torch.full((2, 6), 4), torch.tensor([2, 3])
LOG_P = torch.zeros(2, 6, 4).log_softmax(-1)


def flat(x_t, t):
    return torch.zeros(*x_t.shape, 4).log_softmax(-1)


WHOLE = {
    "num_codes": lambda v: MaskReplaceSchedule.paper(v),
    "num_steps": lambda v: MaskReplaceSchedule.paper(4, v),
    "num_codes ": lambda v: MaskReplaceSchedule([1, 0.5], [0, 0.2], num_codes=v),
    "num_inference_steps": lambda v: strided_times(10, v),
    "t": lambda v: q_sample(X_0, v, S),
    "t ": lambda v: q_posterior(LOG_P, X_T, v, S),
    "t  ": lambda v: transition_matrix(S, v),
    "t   ": lambda v: q_log_probs(X_0, v, S),
    "t    ": lambda v: S.between(0, v),
    "top_k": lambda v: top_k(LOG_P, v),
    "most": lambda v: HighQuality(most=v),
    "each number of quota": lambda v: HighQuality(quota=(v,)),
    "samples": lambda v: evidence_bound(flat, X_0, S, samples=v),
    "each of times": lambda v: evidence_bound(flat, X_0, S, times=[v]),
    "each of times ": lambda v: ancestral(flat, X_T, S, [v, 0]),
    "count": lambda v: TimeSampler(4).sample(v),
    "batch": lambda v: ancestral.start(S, v, 6),
    "length": lambda v: Halton().start(S, 2, v),
    "skip": lambda v: official_times(10, v),
    "base": lambda v: grids(v, 2),
    "length ": lambda v: markov_chain(2, v, 0.9),
    "low": lambda v: within(2.0, v, 5),
}
REAL = {
    "truncation_rate": lambda v: truncate(LOG_P, v),
    "guidance_scale": lambda v: scale_at(v, 3),
    "guidance_scale at t = 3": lambda v: scale_at(lambda t: v, 3),
    "renew": lambda v: Corrector(v),
    "weight": lambda v: Purity(v),
    "bound": lambda v: EntropyBounded(v),
    "auxiliary_weight": lambda v: training_loss(LOG_P, X_0, X_T, T, S, auxiliary_weight=v),
    "stay": lambda v: markov_chain(2, 2, v),
    "alpha_end": lambda v: MaskReplaceSchedule.from_ends(num_codes=4, alpha_end=v, gamma_end=0.5),
    "scale": lambda v: within(v, 1, 5),
    "power": lambda v: strided_times(10, 5, v),
}


@pytest.mark.parametrize("value", ["4", 4.5, 4.0, True, -1, math.nan, [4], np.float32(4), {}], ids=repr)
@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_whole_number_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name.strip()} must be"):
        WHOLE[name](value)


@pytest.mark.parametrize(
    "value", ["4", True, -1, math.nan, math.inf, None, [0.5], 10**400, 1 + 2j], ids=lambda v: str(v)[:9]
)
@pytest.mark.parametrize("name", REAL)
def test_what_is_no_number_in_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        REAL[name](value)


def test_numbers_of_numpy_are_numbers():
    assert MaskReplaceSchedule.paper(np.int64(4), np.int32(10)) == S
    assert strided_times(np.int64(10), np.uint8(4)) == strided_times(10, 4)
    assert torch.equal(q_posterior(LOG_P, X_T, np.int64(5), S), q_posterior(LOG_P, X_T, 5, S))
    assert torch.equal(truncate(LOG_P, np.float32(0.5)), truncate(LOG_P, 0.5))
    assert torch.equal(guide(LOG_P, LOG_P, np.float32(3)), guide(LOG_P, LOG_P, 3.0))
    assert scale_at(np.float16(2), 1) == 2.0 and top_k(LOG_P, np.int8(2)).shape == LOG_P.shape


@pytest.mark.parametrize(
    "times",
    [(10, 5, 0), [np.int64(10), 5, 0], torch.tensor([10, 5, 0], dtype=torch.uint8), np.array([10, 5, 0])],
    ids=str,
)
def test_times_in_any_whole_numbers_are_the_same(times):
    found = ancestral(flat, X_T, S, times, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found, ancestral(flat, X_T, S, [10, 5, 0], generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    "times", [[10.0, 0.0], torch.tensor([10.0, 0.0]), [11, 0], 5, None, "10", [[10], [0]], [True, 0]]
)
def test_times_of_another_kind_are_refused(times):
    with pytest.raises(ValueError, match="times must be"):
        ancestral(flat, X_T, S, times)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_times_per_row_in_any_whole_numbers_are_the_same(dtype):
    """t - 1 of an unsigned 0 would be 255."""
    assert_close(q_posterior(LOG_P, X_T, T.to(dtype), S), q_posterior(LOG_P, X_T, T, S), rtol=0, atol=0)
    assert_close(training_loss(LOG_P, X_0, X_T, T.to(dtype), S)[0], training_loss(LOG_P, X_0, X_T, T, S)[0])
    with pytest.raises(ValueError, match="need 0 <= s < t"):
        q_posterior(LOG_P, X_T, torch.zeros(2, dtype=dtype), S)


@pytest.mark.parametrize("time", [T.float(), T.bool(), T.to(torch.complex64)], ids=str)
def test_times_per_row_of_another_kind_are_refused(time):
    with pytest.raises(ValueError, match="t must be an int or an integer tensor"):
        q_posterior(LOG_P, X_T, time, S)


@pytest.mark.parametrize("generator", [5, "cpu", 0, [5, 6], [None, None], torch.Generator], ids=str)
def test_what_is_no_generator_is_named(generator):
    for call in (
        lambda: q_sample(X_0, 3, S, generator=generator),
        lambda: p_sample_step(LOG_P, X_T, 3, S, generator=generator),
        lambda: Halton()(flat, X_T, S, [10, 0], generator=generator),
        lambda: draw(LOG_P, generator),
    ):
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, a list of them or None, got"):
            call()
    with pytest.raises(ValueError, match=r"a list of 2 \(one per picture\), got 3"):
        ancestral(flat, X_T, S, [10, 0], generator=[torch.Generator()] * 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: ancestral(v, X_T, S, [10, 0]), "denoise must be a function"),
        (lambda v: ancestral(flat, v, S, [10, 0]), "x_t must be a tensor of tokens"),
        (lambda v: q_sample(v, 3, S), "x_0 must be a tensor of tokens"),
        (lambda v: p_sample_step(v, X_T, 3, S), "log_p_x0 must be a tensor"),
        (lambda v: draw(v), "log_p must be a tensor"),
        (lambda v: continuous_sample(X_0, v, S), "time must be a tensor"),
        (lambda v: Keeping("halton", X_0, v), "known must be a tensor"),
    ],
)
def test_what_is_no_tensor_is_named(call, message):
    for value in (None, 4, "4", [[0]]):
        with pytest.raises(TypeError, match=message):
            call(value)


@pytest.mark.parametrize("log_p", [torch.tensor(1.0), torch.zeros(3, 0), torch.zeros(0)])
def test_a_tensor_without_classes_is_named(log_p):
    with pytest.raises(
        TypeError, match=rf"log_p must be a tensor \[..., K\] .*, got \[{', '.join(map(str, log_p.shape))}\]"
    ):
        draw(log_p)


@pytest.mark.parametrize("curve", [None, 4, "ab", [None, 1], [1, 1j], np.array([1, 0j]), [[1], [0]], {}], ids=repr)
def test_what_is_no_curve_is_named(curve):
    with pytest.raises(ValueError, match=r"^alpha_bar must be a sequence of T \+ 1"):
        MaskReplaceSchedule(curve, [0, 1], num_codes=3)


def test_codes_outside_are_refused_before_anything_is_made_of_them():
    for call in (
        lambda x_0: training_loss(LOG_P, x_0, X_T, T, S),
        lambda x_0: evidence_bound(flat, x_0, S),
        lambda x_0: q_sample(x_0, 3, S),
    ):
        for x_0 in (X_0 + 4, X_0 - 1):
            with pytest.raises(ValueError, match=r"x_0 must lie in 0 ... 3 \(codes, no mask\)"):
                call(x_0)


def test_a_joint_is_asked_for_its_own_length():
    with pytest.raises(ValueError, match="a joint over 2 tokens, got 3"):
        oracle(markov_chain(4, 2, 0.9), S)(torch.zeros(1, 3, dtype=torch.int64), 3)


@pytest.mark.parametrize(
    "length", [[4], {4}, (4,), torch.tensor([4]), None, "4", 4.0, 0, -4, True, 2**21, np.array([4])]
)
def test_what_is_no_length_of_a_grid_is_named(length):
    with pytest.raises(ValueError, match=r"^length must be a whole number from 1 to"):
        halton_order(length)


def test_an_order_that_a_caller_changes_stays_as_it_is():
    halton_order(np.int64(9))[:] = 0
    assert halton_order(9).sort()[0].tolist() == list(range(9))
