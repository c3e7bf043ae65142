"""The reverse process: times, the distribution of whole runs with a true denoiser, guidance and truncation."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import FALSE_ALARM, chi_square_p_value, edge_schedules, ramp, random_prediction, well_conditioned
from torch.testing import assert_close

from vqlearn.guidance import guide, truncate
from vqlearn.objective import prior_log_probs
from vqlearn.sampling import ancestral, prior_sample, strided_times
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_posterior, q_sample, transition_matrix

GOLDEN = Path(__file__).parent / "data" / "diffusers_scheduler.npz"
forty_examples = settings(deadline=None, max_examples=40, derandomize=True)
DATA = torch.tensor([0.45, 0.3, 0.2, 0.05], dtype=torch.float64)  # the distribution of a single token


# ------------------------------------------------------------------------------------------ times


@forty_examples
@given(st.integers(1, 300), st.data())
def test_strided_times_fall_evenly_from_T_to_0(num_steps, data):
    count = data.draw(st.integers(1, num_steps))
    times = strided_times(num_steps, count)
    gaps = [t - s for t, s in itertools.pairwise(times)]
    assert (times[0], times[-1], len(times)) == (num_steps, 0, count + 1)
    assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 1


def test_strided_times_by_example():
    assert strided_times(10, 4) == [10, 8, 5, 3, 0]
    assert strided_times(5, 5) == [5, 4, 3, 2, 1, 0] and strided_times(5, 1) == [5, 0]


@forty_examples
@given(st.integers(1, 300), st.floats(1, 8), st.data())
def test_a_power_shortens_the_strides_towards_0(num_steps, power, data):
    count = data.draw(st.integers(1, num_steps))
    times = strided_times(num_steps, count, power)
    assert (times[0], times[-1], len(times)) == (num_steps, 0, count + 1)
    assert min(t - s for t, s in itertools.pairwise(times)) >= 1
    assert all(late <= even for late, even in zip(times, strided_times(num_steps, count), strict=True))


def test_a_power_by_example():
    assert strided_times(100, 5, 2.0) == [100, 64, 36, 16, 4, 0]
    assert strided_times(10, 5, 2.0) == [10, 6, 4, 2, 1, 0]
    for power in (0.5, float("nan"), float("inf"), True, "2"):
        with pytest.raises(ValueError, match="power must be a finite number of at least 1, got"):
            strided_times(10, 5, power)


@pytest.mark.parametrize("count", [0, -1, 11, 2.0, True, "3", None])
def test_strided_times_refuse_other_counts(count):
    with pytest.raises(ValueError, match="num_inference_steps must be a whole number from 1 to 10, got"):
        strided_times(10, count)


# ------------------------------------------------------------------------------------------ the reverse process


def forgetful():
    """Schedules that forget everything by T, so that the prior is the true distribution of x_T."""
    c, r = torch.cos(ramp(6) * torch.pi / 2), ramp(6)
    return {
        "masks": MaskReplaceSchedule(1 - r, r, num_codes=4),
        "mask and replace": MaskReplaceSchedule(1 - r, 0.8 * r, num_codes=4),
        "uniform": MaskReplaceSchedule(c, 0 * c, num_codes=4),
        "done early": MaskReplaceSchedule(1 - ramp(6, 4), 0.5 * ramp(6, 4), num_codes=4),
    }


def true_denoiser(schedule):
    """p(x_0 | x_t) of a single token under `DATA`, by Bayes; where x_t is impossible anything will do."""
    joint = torch.stack([transition_matrix(schedule, t, 0)[:, :4] * DATA for t in range(schedule.num_steps + 1)])
    table = torch.where(joint.sum(-1, keepdim=True) > 0, joint, 0.25).log().log_softmax(-1)  # [t, x_t, x_0]
    return lambda x_t, t: table[t][x_t]


@pytest.mark.parametrize("times", [[6, 5, 4, 3, 2, 1, 0], [6, 3, 0], [6, 0], [6, 5, 1, 0], [6, 4, 2, 0]])
@pytest.mark.parametrize("name", forgetful())
def test_the_reverse_process_gives_the_data_distribution_for_any_stride_exactly(name, times):
    schedule = forgetful()[name]
    denoise, states = true_denoiser(schedule), torch.arange(5)[None]
    marginal = prior_log_probs(schedule).exp()
    for t, s in itertools.pairwise(times):
        reverse = q_posterior(denoise(states, t), states, t, schedule, s=s).exp()[0]  # [from, to]
        marginal = marginal @ reverse
        assert_close(marginal, transition_matrix(schedule, s, 0)[:, :4] @ DATA, atol=1e-12, rtol=0)
    assert_close(marginal[:4], DATA, atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 4, 6])
@pytest.mark.parametrize("name", forgetful())
def test_ancestral_draws_the_data_distribution_for_any_stride(name, count):
    schedule, generator = forgetful()[name], torch.Generator().manual_seed(count)
    x_T = prior_sample(schedule, 30_000, 1, generator=generator)
    x_0 = ancestral(true_denoiser(schedule), x_T, schedule, strided_times(6, count), generator=generator)
    assert chi_square_p_value(x_0, DATA) > FALSE_ALARM


@pytest.mark.parametrize("name", forgetful())
def test_ancestral_draws_positions_independently(name):
    """Two tokens, each with its true posterior: their joint comes out as the product of the two."""
    schedule, generator = forgetful()[name], torch.Generator().manual_seed(3)
    x_T = prior_sample(schedule, 30_000, 2, generator=generator)
    x_0 = ancestral(true_denoiser(schedule), x_T, schedule, [6, 3, 1, 0], generator=generator)
    assert chi_square_p_value(4 * x_0[:, 0] + x_0[:, 1], torch.outer(DATA, DATA).flatten()) > FALSE_ALARM


def test_ancestral_starts_anywhere():
    schedule, generator = forgetful()["mask and replace"], torch.Generator().manual_seed(5)
    clean = torch.multinomial(DATA, 30_000, replacement=True, generator=generator)[:, None]
    x_4 = q_sample(clean, 4, schedule, generator=generator)
    x_0 = ancestral(true_denoiser(schedule), x_4, schedule, [4, 1, 0], generator=generator)
    assert chi_square_p_value(x_0, DATA) > FALSE_ALARM


def test_equal_generators_give_equal_tokens_and_steps_are_reported():
    schedule, seen = forgetful()["mask and replace"], []
    runs = []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        x_T = prior_sample(schedule, 3, 40, generator=generator)
        runs.append(ancestral(true_denoiser(schedule), x_T, schedule, [6, 4, 0], generator=generator,
                              on_step=lambda number, s, x: seen.append((number, s, x.clone()))))  # fmt: skip
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert [step[:2] for step in seen[:2]] == [(0, 4), (1, 0)] and torch.equal(seen[1][2], runs[0])
    assert runs[0].shape == (3, 40) and runs[0].dtype == torch.int64 and (runs[0] < 4).all()


def test_denoisers_are_called_at_the_time_of_their_tokens_without_gradient():
    schedule, calls = forgetful()["masks"], []

    def denoise(x_t, t):
        calls.append((t, torch.is_grad_enabled()))
        return true_denoiser(schedule)(x_t, t)

    ancestral(denoise, torch.full((1, 2), 4), schedule, [6, 2, 1, 0])
    assert calls == [(6, False), (2, False), (1, False)]


@pytest.mark.parametrize("times", [[6, 3], [6, 6, 0], [3, 4, 0], [0], []])
def test_ancestral_refuses_times_that_do_not_fall_to_zero(times):
    with pytest.raises(ValueError, match="times must fall strictly and end at 0"):
        ancestral(true_denoiser(forgetful()["masks"]), torch.full((1, 2), 4), forgetful()["masks"], times)


@pytest.mark.parametrize("name, schedule", [*edge_schedules().items(), ("random", well_conditioned(0)[0])])
def test_prior_sample_follows_the_prior(name, schedule):
    tokens = prior_sample(schedule, 200, 100, generator=torch.Generator().manual_seed(1))
    masked = float(schedule.gamma_bar[-1])
    prior = torch.tensor([(1 - masked) / schedule.num_codes] * schedule.num_codes + [masked])
    assert tokens.shape == (200, 100) and chi_square_p_value(tokens, prior) > FALSE_ALARM


# ------------------------------------------------------------------------------------------ guidance


@pytest.mark.parametrize("scale", [0.5, 2, 5.0, -1.0])
def test_guidance_is_the_normalised_product_of_powers(scale):
    text, null = random_prediction(2, 3, 7, seed=1), random_prediction(2, 3, 7, seed=2)
    guided = guide(text, null, scale)
    assert_close(guided.exp().sum(-1), torch.ones(2, 3).double())
    weights = text.exp() ** scale * null.exp() ** (1 - scale)
    assert_close(guided.exp(), weights / weights.sum(-1, keepdim=True), atol=1e-13, rtol=0)


def test_guidance_scale_one_is_the_text_and_zero_the_null():
    text, null = random_prediction(2, 3, 7, seed=1), random_prediction(2, 3, 7, seed=2)
    assert guide(text, null, 1.0) is text and guide(text, null, 0.0) is null
    for scale in (1 + 1e-9, 1e-9):  # no jump at the short cuts
        assert_close(guide(text, null, scale), guide(text, null, round(scale)), atol=1e-7, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_of_predictions_with_impossible_classes_has_no_nan(scale):
    text = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]]).log()
    null = torch.tensor([[[0.25, 0.0, 0.75, 0.0]]]).log()
    guided = guide(text, null, scale)
    assert not guided.isnan().any() and guided[0, 0, 3] == -torch.inf
    assert_close(guided.exp().sum(-1), torch.ones(1, 1))
    assert (guided[0, 0, 2] == -torch.inf) == (scale > 0)


# ------------------------------------------------------------------------------------------ truncation


@pytest.mark.parametrize("name", ["K5_T10", "K17_T100_paper"])
@pytest.mark.parametrize("rate", ["0.5", "0.86", "1.0"])
def test_truncation_equals_the_published_code(name, rate):
    golden = np.load(GOLDEN)
    log_p, published = (
        torch.from_numpy(golden[f"{name}/{key}"]).transpose(1, 2) for key in ("log_p_x_0", f"truncate_{rate}")
    )
    assert torch.equal(truncate(log_p, float(rate)), published)


@forty_examples
@given(st.integers(0, 999), st.floats(0, 1), st.integers(1, 9))
def test_truncation_keeps_the_likeliest_and_all_before_which_the_mass_is_short(seed, rate, codes):
    log_p = random_prediction(1, 2, codes, seed=seed)
    kept = truncate(log_p, rate)[0]
    for row, result in zip(log_p[0].tolist(), kept.tolist(), strict=True):
        order, before = sorted(range(codes), key=lambda i: -row[i]), 0.0
        for rank, i in enumerate(order):
            if abs(before - rate) > 1e-9:  # the very edge is a matter of rounding
                assert result[i] == (row[i] if rank == 0 or before < rate else -torch.inf)
            before += np.exp(row[i])


def test_truncation_by_example():
    p = torch.tensor([[[0.125, 0.5, 0.25, 0.125]]]).double()
    keep = lambda rate: (truncate(p.log(), rate) > -torch.inf)[0, 0].int().tolist()  # noqa: E731
    assert keep(0.0) == [0, 1, 0, 0] and keep(0.4) == [0, 1, 0, 0]
    assert keep(0.5) == [0, 1, 0, 0]  # the mass before the second class is 0.5, not below it
    assert keep(0.6) == [0, 1, 1, 0] and keep(0.8) == [1, 1, 1, 0] and keep(0.9) == [1, 1, 1, 1]
    log_p = random_prediction(1, 2, 5)
    assert truncate(log_p, 1.0) is log_p


@pytest.mark.parametrize("rate", [-0.1, 1.01, 86, float("nan")])
def test_truncation_refuses_rates_outside_the_unit_interval(rate):
    with pytest.raises(ValueError, match=r"truncation_rate must be a number in \[0, 1\], got"):
        truncate(random_prediction(1, 1, 3), rate)
