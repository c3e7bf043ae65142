"""The schedule against its definition: shares of single steps, of any jump, of published code, and what is refused."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import edge_schedules, ramp, well_conditioned
from torch.testing import assert_close

from vqlearn.schedule import MaskReplaceSchedule

GOLDEN = Path(__file__).parent / "data" / "diffusers_scheduler.npz"
CURVES = ("alpha", "beta", "gamma")
forty_examples = settings(deadline=None, max_examples=40, derandomize=True)
PRESETS = (MaskReplaceSchedule.paper, MaskReplaceSchedule.released)


def every_pair(num_steps):
    return [(s, t) for s in range(num_steps + 1) for t in range(s, num_steps + 1)]


@st.composite
def schedules(draw, max_codes=6, max_steps=6):
    """Schedules from one-step shares that may be 0, each step losing at most 95 % to either noise."""
    share = st.one_of(st.just(0.0), st.floats(1e-3, 0.475))
    steps = draw(st.lists(st.tuples(share, share), min_size=1, max_size=max_steps))
    replace, mask = torch.tensor(steps, dtype=torch.float64).T
    seen = torch.cat([torch.ones(1, dtype=torch.float64), (1 - mask).cumprod(0)])
    kept = torch.cat([torch.ones(1, dtype=torch.float64), (1 - mask - replace).cumprod(0)])
    return MaskReplaceSchedule(kept, 1 - seen, num_codes=draw(st.integers(1, max_codes)))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("num_codes, num_steps", [(4096, 100), (5, 10), (1, 2)])
def test_presets_have_the_published_ends(preset, num_codes, num_steps):
    schedule = preset(num_codes, num_steps)
    gamma_end = 0.9 if preset == MaskReplaceSchedule.paper else 0.99999
    assert schedule.num_codes == schedule.mask_id == num_codes and schedule.num_steps == num_steps
    for curve, start, end in ((schedule.alpha_bar, 0.99999, 9e-6), (schedule.gamma_bar, 9e-6, gamma_end)):
        assert curve.dtype == torch.float64 and curve.shape == (num_steps + 1,)
        assert_close(curve[1:], torch.from_numpy(np.linspace(start, end, num_steps)), atol=1e-15, rtol=0)
    assert_close(
        schedule.alpha_bar + num_codes * schedule.beta_bar + schedule.gamma_bar, torch.ones(num_steps + 1).double()
    )


@pytest.mark.parametrize("name", ["K5_T10", "K5_T100", "K9_T10_paper", "K17_T100_paper"])
def test_curves_equal_the_published_code(name):
    golden = np.load(GOLDEN)
    codes, steps = golden[f"{name}/log_p_x_0"].shape[1], len(golden[f"{name}/at"])
    preset = MaskReplaceSchedule.paper if name.endswith("paper") else MaskReplaceSchedule.released
    schedule = preset(codes, steps)
    for letter, curve in zip("abc", CURVES, strict=True):
        step, bar = getattr(schedule, curve), getattr(schedule, curve + "_bar")
        published, published_bar = (torch.from_numpy(golden[f"{name}/{letter}{kind}"]) for kind in ("t", "tt"))
        # beta is where the published code subtracts nearly equal numbers: 1e-9 of a probability, not of beta
        assert_close(step[1:], published, atol=2e-10, rtol=0)
        assert_close(bar, published_bar.roll(1), atol=1e-15, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_one_step_shares_are_recovered_from_the_cumulative_curves(seed):
    schedule, steps = well_conditioned(seed)
    ours = torch.stack([schedule.alpha, schedule.num_codes * schedule.beta, schedule.gamma], dim=-1)
    assert_close(ours[1:], steps, atol=1e-12, rtol=0)
    assert ours[0].tolist() == [1, 0, 0]


@forty_examples
@given(schedules())
def test_between_clean_and_t_is_the_cumulative_entry_exactly(schedule):
    for t in range(schedule.num_steps + 1):
        bars = schedule.alpha_bar[t], schedule.beta_bar[t], schedule.gamma_bar[t]
        assert tuple(schedule.between(0, t)) == tuple(schedule.bar(t)) == bars


@forty_examples
@given(schedules())
def test_shares_are_probabilities_and_jumps_compose(schedule):
    K, times = schedule.num_codes, range(schedule.num_steps + 1)
    s, t, u = torch.tensor([(s, t, u) for s, t in every_pair(schedule.num_steps) for u in times[t:]]).T
    shares, later, whole = schedule.between(s, t), schedule.between(t, u), schedule.between(s, u)
    alpha, beta, gamma = shares
    assert torch.stack(shares).min() >= 0 and ((alpha + K * beta + gamma - 1).abs() < 1e-12).all()
    assert_close(later.alpha * alpha, whole.alpha, atol=1e-12, rtol=0)
    assert_close(1 - (1 - later.gamma) * (1 - gamma), whole.gamma, atol=1e-12, rtol=0)
    assert_close(later.alpha * beta + later.beta * (alpha + K * beta), whole.beta, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name, schedule", edge_schedules().items())
def test_edge_schedules_stay_finite_and_sum_to_one(name, schedule):
    for s, t in every_pair(schedule.num_steps):
        shares = torch.stack(schedule.between(s, t))
        assert shares.isfinite().all() and (shares >= 0).all(), (s, t)
        assert abs(shares[0] + schedule.num_codes * shares[1] + shares[2] - 1) < 1e-12, (s, t)
    assert [float(getattr(schedule, curve)[0]) for curve in CURVES] == [1, 0, 0]


def test_single_noises_are_exactly_single():
    edges = edge_schedules()
    for name in ("mask only", "mask only, done early", "cosine mask", "cosine mask, done early"):
        assert (edges[name].beta == 0).all() and (edges[name].beta_bar == 0).all()
        assert edges[name].gamma_bar[-1] == 1 and edges[name].alpha_bar[-1] == 0
    for name in ("uniform only", "cosine uniform", "no noise"):
        assert (edges[name].gamma == 0).all() and (edges[name].gamma_bar == 0).all()
    resting = edges["replace first, mask later"]  # a step in which nothing happens does exactly nothing
    assert [float(x) for x in resting.between(1, 2)] == [1, 0, 0] == [float(x) for x in resting.between(3, 4)]


def test_rounding_noise_in_given_curves_does_no_harm():
    noise = 1e-14 * torch.tensor([0, 1, -1, 1, -1, 0.0]).double()
    schedule = MaskReplaceSchedule(0.5 * (1 + ramp(5).eq(0)) + noise, 0.5 * ramp(5).ne(0) + noise, num_codes=3)
    assert_close(schedule.alpha + 3 * schedule.beta + schedule.gamma, torch.ones(6).double(), atol=1e-12, rtol=0)
    for masked in (0.5, 1.0):  # alpha_bar rises by less than what counts as a rise, once with gamma_bar, once alone
        tiny = torch.tensor([2e-12, 2.5e-12, 0], dtype=torch.float64)
        gamma_bar = [0, 0.5, *(masked - (masked == 1) * tiny).tolist()]
        tail = MaskReplaceSchedule([1, 0.5, *tiny.tolist()], gamma_bar, num_codes=2)
        assert_close(tail.alpha + 2 * tail.beta + tail.gamma, torch.ones(5).double(), atol=1e-12, rtol=0)
    kept = 10.0 ** -torch.arange(11).double()  # 1 - kept forgets ten of its digits in the end
    steep = MaskReplaceSchedule(kept, 1 - kept, num_codes=2)
    assert_close(steep.alpha + 2 * steep.beta + steep.gamma, torch.ones(11).double(), atol=1e-12, rtol=0)


def test_times_may_be_ints_or_tensors():
    schedule = MaskReplaceSchedule.paper(7, 10)
    s, t = torch.tensor([0, 3, 9, 4]), torch.tensor([0, 10, 10, 5])
    for k, share in enumerate(schedule.between(s, t)):
        assert share.tolist() == [float(schedule.between(int(a), int(b))[k]) for a, b in zip(s, t, strict=True)]


@pytest.mark.parametrize("s, t", [(torch.tensor(-1), 2), (3, 2), (0, 11), (torch.tensor([0, 5]), torch.tensor([1, 4]))])
def test_between_refuses_times_out_of_order_or_range(s, t):
    with pytest.raises(ValueError, match=r"0 <= s <= t <= 10.*between"):
        MaskReplaceSchedule.paper(7, 10).between(s, t)


@pytest.mark.parametrize(
    "alpha_bar, gamma_bar, num_codes, message",
    [
        ([1, 0.5, 0.6], [0, 0.1, 0.2], 4, r"alpha_bar must never rise.*t = 1 and t = 2"),
        ([1, 0.5, 0.4], [0, 0.2, 0.1], 4, r"gamma_bar must never fall.*t = 1 and t = 2"),
        ([1, 0.5, 0.5], [0, 0.0, 0.4], 4, r"replaced share .* must never fall.*t = 1 and t = 2"),
        ([1, 0.5, -0.1], [0, 0.1, 0.2], 4, r"alpha_bar must hold probabilities.*-0.1 at t = 2"),
        ([1, 0.5, 0.1], [0, 0.1, 1.2], 4, r"gamma_bar must hold probabilities.*1.2 at t = 2"),
        ([1, float("nan"), 0.1], [0, 0.1, 0.2], 4, r"alpha_bar must hold probabilities.*nan at t = 1"),
        ([1, 0.5, 0.1], [0, float("nan"), 0.2], 4, r"gamma_bar must hold probabilities.*nan at t = 1"),
        ([1, 0.5, float("inf")], [0, 0.1, 0.2], 4, r"alpha_bar must hold probabilities.*inf at t = 2"),
        ([1, 0.7], [0, 0.4], 4, r"alpha_bar \+ gamma_bar must be at most 1, got 1.1 at t = 1"),
        ([1], [0], 4, r"num_steps .* at least 1, got 0"),
        ([], [], 4, r"num_steps .* at least 1, got -1"),
        ([1, 0.5], [0, 0.1, 0.2], 4, r"alpha_bar and gamma_bar must have equal lengths.*2 and 3"),
        ([[1, 0.5]], [[0, 0.5]], 4, r"alpha_bar must be a sequence.*\(1, 2\)"),
        ([0.9, 0.5], [0, 0.1], 4, r"alpha_bar\[0\] must be 1 .*got 0.9"),
        ([1, 0.5], [0.1, 0.1], 4, r"gamma_bar\[0\] must be 0 .*got 0.1"),
        ([1, 0.5], [0, 0.1], 0, r"num_codes must be a whole number of at least 1, got 0"),
        ([1, 0.5], [0, 0.1], 2.5, r"num_codes must be a whole number of at least 1, got 2.5"),
        ([1, 0.5], [0, 0.1], True, r"num_codes must be a whole number of at least 1, got True"),
    ],
)
def test_what_is_no_schedule_is_refused_by_name(alpha_bar, gamma_bar, num_codes, message):
    with pytest.raises(ValueError, match=message):
        MaskReplaceSchedule(alpha_bar, gamma_bar, num_codes=num_codes)


@pytest.mark.parametrize("arguments, name", [((0, 100), "num_codes"), ((8, 0), "num_steps"), ((8, -3), "num_steps")])
def test_presets_refuse_too_few_codes_or_steps(arguments, name):
    for preset in PRESETS:
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
            preset(*arguments)


def test_moving_keeps_everything():
    schedule = MaskReplaceSchedule.released(9, 4)
    moved = schedule.to("cpu")
    assert moved.num_codes == 9 and all(torch.equal(getattr(moved, c), getattr(schedule, c)) for c in CURVES)
    assert all(getattr(schedule.to("meta"), c).device.type == "meta" for c in CURVES)
    assert schedule.to("mps") is schedule  # which has no float64
    assert repr(MaskReplaceSchedule.paper(8, 50)) == (
        "MaskReplaceSchedule(num_codes=8, num_steps=50, kept, replaced, masked at T: 9e-06, 0.1, 0.9)"
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_prior_is_the_marginal_of_a_uniform_token(preset):
    schedule = preset(5)
    alpha, beta, gamma = (schedule.alpha_bar[-1], schedule.beta_bar[-1], schedule.gamma_bar[-1])
    expected = torch.cat([(alpha / 5 + beta).expand(5), gamma[None]])  # kept, or replaced by any of the five
    assert_close(schedule.prior(), expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_curves_of_a_coarser_dtype_are_taken_for_what_they_mean(dtype):
    """Rounded to float32, 1 - t and t need not sum to at most 1; it is masking alone all the same."""
    t = torch.arange(101) / 100
    schedule = MaskReplaceSchedule((1 - t).to(dtype), t.to(dtype), num_codes=7)
    assert bool((schedule.beta_bar == 0).all()) and schedule.alpha_bar.dtype == torch.float64
    assert_close(schedule.gamma_bar, t.to(dtype).double())


def test_schedules_are_equal_where_their_curves_are():
    assert MaskReplaceSchedule.paper(8) == MaskReplaceSchedule.from_ends(num_codes=8, gamma_end=0.9)
    assert hash(MaskReplaceSchedule.paper(8)) == hash(MaskReplaceSchedule.paper(8))
    assert MaskReplaceSchedule.paper(8) != MaskReplaceSchedule.paper(9)
    assert MaskReplaceSchedule.paper(8) != MaskReplaceSchedule.released(8) and MaskReplaceSchedule.paper(8) != "paper"


def test_shares_that_are_asked_for_again_are_the_same_and_may_be_written_to(monkeypatch):
    monkeypatch.setattr("vqlearn.schedule.KEPT", 3)
    schedule = MaskReplaceSchedule.paper(4, 10)
    pairs = [(s, t) for t in range(11) for s in range(t + 1)]
    expected = schedule.between(*torch.tensor(pairs).T)
    for _ in range(2):
        for number, (s, t) in enumerate(pairs):
            found = schedule.between(s, torch.tensor(t))
            for share, one in zip(found, expected, strict=True):
                assert torch.equal(share, one[number])
                share += 1
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule.to("cpu") == schedule
