"""The forward process and its posterior against dense matrices, Bayes' rule, published code and counted draws.

Presets are compared at 1e-9: their replaced share of 1e-6 is a difference of numbers near 1 and keeps ten digits.
Schedules whose shares are all at least 1e-3 are compared at 1e-12, float32 at 1e-6.
"""

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import (
    FALSE_ALARM,
    all_pairs,
    bayes,
    chi_square_p_value,
    edge_schedules,
    floats,
    one_step_matrices,
    random_prediction,
    well_conditioned,
)
from test_schedule import forty_examples, schedules
from torch.testing import assert_close

from vqlearn import transition, truncate
from vqlearn.draws import draw
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import (
    p_sample_step,
    q_likelihood,
    q_log_probs,
    q_posterior,
    q_posterior_sample,
    q_sample,
    transition_matrix,
)

GOLDEN = Path(__file__).parent / "data" / "diffusers_scheduler.npz"
K = 4
NAMES = ["paper", "released", *(f"random {seed}" for seed in range(4))]


@cache
def case(name):
    """A schedule, the tolerance it is held to, and the oracle's products of one-step matrices for every s <= t."""
    if name in ("paper", "released"):
        schedule, tolerance = getattr(MaskReplaceSchedule, name)(K, 100), 1e-9
    else:
        schedule, tolerance = well_conditioned(int(name.split()[1]), K)[0], 1e-12
    return schedule, tolerance, all_pairs(one_step_matrices(schedule.alpha_bar, schedule.gamma_bar, K))


def error(ours, truth):
    return float((ours.double() - truth).abs().max())


def states(rows=1):
    """Every state of x_t, `[rows, K + 1]`."""
    return torch.arange(K + 1).expand(rows, K + 1)


# ------------------------------------------------------------------------------------------ forward


@pytest.mark.parametrize("name", NAMES)
def test_transition_matrix_is_the_product_of_one_step_matrices(name):
    schedule, tolerance, products = case(name)
    for (s, t), truth in products.items():
        assert error(transition_matrix(schedule, t, s), floats(truth)) <= tolerance, (s, t)
    assert torch.equal(transition_matrix(schedule, 3), transition_matrix(schedule, 3, 2))


@pytest.mark.parametrize("name", NAMES)
def test_q_log_probs_and_q_likelihood_are_columns_and_rows(name):
    schedule, tolerance, products = case(name)
    pairs = list(products)[:: 1 + len(products) // 500]
    s, t = torch.tensor(pairs).T
    truth = torch.stack([floats(products[pair]) for pair in pairs])  # [N, to, from]
    for dtype, allowed in ((torch.float64, tolerance), (torch.float32, 1e-6)):
        columns = q_log_probs(states(len(s)), t, schedule, s=s, dtype=dtype)
        rows = q_likelihood(states(len(s)), t, schedule, s=s, dtype=dtype)
        assert columns.dtype == rows.dtype == dtype
        assert error(columns.exp(), truth.transpose(1, 2)) <= allowed and error(rows.exp(), truth) <= allowed
    clean = q_log_probs(states(schedule.num_steps + 1)[:, :K], torch.arange(schedule.num_steps + 1), schedule)
    truth = torch.stack([floats(products[0, t])[:, :K].T for t in range(schedule.num_steps + 1)])
    assert clean.dtype == torch.float32 and error(clean.exp(), truth) <= 1e-6
    every_t = torch.arange(schedule.num_steps + 1)
    truth = torch.stack([floats(products[0, t]) for t in every_t.tolist()])  # s is 0 where it is not given
    assert error(q_likelihood(states(len(every_t)), every_t, schedule).exp(), truth) <= 1e-6


@forty_examples
@given(schedules())
def test_matrices_are_stochastic_and_compose(schedule):
    whole = torch.stack([transition_matrix(schedule, t, 0) for t in range(schedule.num_steps + 1)])
    for s in range(len(whole)):
        later = torch.stack([transition_matrix(schedule, t, s) for t in range(s, len(whole))])
        assert (later >= 0).all()
        assert_close(later.sum(1), torch.ones(later.shape[0], later.shape[1]).double(), atol=1e-12, rtol=0)
        assert_close(later @ whole[s], whole[s:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name, schedule", edge_schedules().items())
def test_edge_matrices_compose(name, schedule):
    times = range(schedule.num_steps + 1)
    for s, t, u in ((s, t, u) for s in times for t in times for u in times if s <= t <= u):
        composed = transition_matrix(schedule, u, t) @ transition_matrix(schedule, t, s)
        reached = transition_matrix(schedule, s, 0).sum(1) > 0  # from states that nothing reaches anything would do
        assert error(composed[:, reached], transition_matrix(schedule, u, s)[:, reached]) <= 1e-12, (s, t, u)


# ------------------------------------------------------------------------------------------ posterior


@pytest.mark.parametrize("name", NAMES)
def test_posterior_is_bayes_for_every_pair_of_times_and_every_state(name):
    schedule, tolerance, products = case(name)
    pairs = [(s, t) for s, t in products if s < t]
    s, t = torch.tensor(pairs).T
    truth = torch.stack([bayes(products, *pair) for pair in pairs])  # [N, x_s, x_t, x_0]
    x_t = states(len(s))
    certain = torch.full((K, K), -torch.inf).double().fill_diagonal_(0.0)
    for x_0 in range(K):
        ours = q_posterior(certain[x_0].expand(len(s), K + 1, K), x_t, t, schedule, s=s)
        assert error(ours.exp(), truth[..., x_0].transpose(1, 2)) <= tolerance
    soft = random_prediction(len(s), K + 1, K, scale=3.0)
    mixed = torch.einsum("nsvc,nvc->nvs", truth, soft.exp())
    assert error(q_posterior(soft, x_t, t, schedule, s=s).exp(), mixed) <= tolerance
    single = q_posterior(soft.float(), x_t, t, schedule, s=s)
    assert single.dtype == torch.float32 and error(single.exp(), mixed) <= 1e-6
    assert error(single.double().exp().sum(-1), torch.ones(())) <= 1e-6


@pytest.mark.parametrize("name", ["released", "random 0", "random 3"])
def test_the_three_ways_are_bayes_exactly(name):
    """The mixture that the sampler draws from, spelled out for every x_0 and x_t, is q(x_s | x_t, x_0)."""
    schedule, tolerance, products = case(name)
    x_t, x_0 = states(K).T.reshape(1, -1), torch.arange(K).expand(K + 1, K).reshape(1, -1)  # every pair
    for s, t in [(s, t) for s, t in products if s < t][::7]:
        ways = transition._three_ways(x_t, x_0 == x_t, torch.tensor(s), torch.tensor(t), schedule)[:, 0, :, None]
        of_x_t, of_x_0 = (torch.nn.functional.one_hot(x[0], K + 1).double() for x in (x_t, x_0))
        of_any = torch.tensor([1 / K] * K + [0.0], dtype=torch.float64)
        ours = ways[0] * of_x_t + ways[1] * of_x_0 + ways[2] * of_any  # [x_t x_0, x_s]
        assert error(ours, bayes(products, s, t).permute(1, 2, 0).reshape(-1, K + 1)) <= tolerance


@pytest.mark.parametrize("name", ["K5_T10", "K5_T100", "K9_T10_paper", "K17_T100_paper"])
def test_posterior_equals_the_published_code(name):
    golden = np.load(GOLDEN)
    log_p = torch.from_numpy(golden[f"{name}/log_p_x_0"]).transpose(1, 2)
    x_t, steps = torch.from_numpy(golden[f"{name}/x_t"]), len(golden[f"{name}/at"])
    preset = MaskReplaceSchedule.paper if name.endswith("paper") else MaskReplaceSchedule.released
    schedule = preset(log_p.shape[-1], steps)
    timesteps = [
        key.split("/")[1] for key in golden.files if key.startswith(name + "/") and key.endswith("exact_log_posterior")
    ]
    assert len(timesteps) >= 3
    for timestep in timesteps:
        ours = q_posterior(log_p, x_t, int(timestep[1:]) + 1, schedule)
        exact, code = (
            torch.from_numpy(golden[f"{name}/{timestep}/{kind}"]).transpose(1, 2)
            for kind in ("exact_log_posterior", "q_posterior_f64")
        )
        assert torch.equal(ours == -torch.inf, exact == -torch.inf)
        assert error(ours.exp(), exact.exp()) <= 1e-9
        likely = exact > -30  # both references take one-step replacement as a difference: 1e-8 of its logarithm
        assert error(ours[likely], exact[likely]) <= 1e-8 and error(ours[likely], code[likely]) <= 1e-8


@forty_examples
@given(schedules(), st.integers(0, 99))
def test_posterior_sums_to_one_and_averages_to_the_marginal(schedule, seed):
    codes, last = schedule.num_codes, schedule.num_steps
    s, t = sorted(np.random.default_rng(seed).permutation(last + 1)[:2].tolist())
    x_t, x_0 = torch.arange(codes + 1)[None], torch.arange(codes)
    marginal = q_log_probs(x_0[None], t, schedule, dtype=torch.float64).exp()[0]  # [x_0, x_t]
    log_p = random_prediction(1, codes + 1, codes, seed=seed)
    possible = (marginal > 0).any(0)
    sums = q_posterior(log_p, x_t, t, schedule, s=s).exp().sum(-1)[0]
    assert_close(sums, possible.double(), atol=1e-12, rtol=0)  # nothing follows from what cannot happen
    certain = torch.full((codes, 1, codes), -torch.inf).double().scatter(-1, x_0[:, None, None], 0.0)
    posterior = q_posterior(certain.expand(codes, codes + 1, codes), x_t.expand(codes, -1), t, schedule, s=s).exp()
    averaged = torch.einsum("cv,cvs->cs", marginal, posterior)  # sum over x_t of q(x_t | x_0) q(x_s | x_t, x_0)
    assert_close(averaged, q_log_probs(x_0[None], s, schedule, dtype=torch.float64).exp()[0], atol=1e-12, rtol=0)


@forty_examples
@given(schedules(max_steps=4), st.integers(0, 99))
def test_posterior_is_linear_in_the_prediction_and_blind_to_names_of_codes(schedule, seed):
    codes, t = schedule.num_codes, schedule.num_steps
    one, two = random_prediction(2, 1, codes + 1, codes, seed=seed)
    x_t = torch.arange(codes + 1)[None]
    of = lambda log_p: q_posterior(log_p, x_t, t, schedule, s=t // 2).exp()  # noqa: E731
    visible_is_certain = (schedule.beta_bar[t] == 0) & (x_t < codes)
    mixed = torch.where(visible_is_certain[..., None], of(one), 0.25 * of(one) + 0.75 * of(two))
    assert_close(of(torch.logaddexp(one + np.log(0.25), two + np.log(0.75))), mixed, atol=1e-12, rtol=0)
    renamed = torch.randperm(codes, generator=torch.Generator().manual_seed(seed))
    states_renamed = torch.cat([renamed, torch.tensor([codes])])
    ours = q_posterior(one[..., renamed.argsort()], states_renamed[x_t], t, schedule, s=t // 2).exp()
    assert_close(ours[..., states_renamed], of(one), atol=1e-12, rtol=0)


def posterior_by_division(schedule, s, t, p_x0, x_t):
    """p(x_s | x_t) `[K + 1]` in plain float64, with the two conventions: impossible is 0, no replacement is certain."""
    codes = schedule.num_codes
    jump, until, whole = (transition_matrix(schedule, *pair) for pair in ((t, s), (s, 0), (t, 0)))
    if x_t < codes and schedule.beta_bar[t] == 0:
        p_x0 = torch.nn.functional.one_hot(torch.tensor(x_t), codes).double()
    likelihood = whole[x_t, :codes]
    if x_t < codes and schedule.beta_bar[t] == 0 and not likelihood.any():  # nothing leads to it: it stays
        return torch.nn.functional.one_hot(torch.tensor(x_t), codes + 1).double()
    weight = torch.where(likelihood > 0, p_x0 / torch.where(likelihood > 0, likelihood, 1.0), 0.0)
    return jump[x_t] * (until[:, :codes] @ weight)


def thinned(log_p, kind):
    """A prediction with classes at `-inf`: all but the best, the unlikely ones, or every second one."""
    dropped = {
        "soft": torch.zeros_like(log_p, dtype=torch.bool),
        "one-hot": log_p < log_p.amax(-1, keepdim=True),
        "truncated": log_p < -1,
        "half empty": torch.arange(log_p.shape[-1]).expand_as(log_p) % 2 == 1,
    }
    return log_p.masked_fill(dropped[kind], -torch.inf)


@pytest.mark.parametrize("kind", ["soft", "one-hot", "truncated", "half empty"])
@pytest.mark.parametrize("name, schedule", edge_schedules().items())
def test_edges_have_no_nan_and_impossible_is_minus_infinity(name, schedule, kind):
    codes = schedule.num_codes
    log_p = thinned(random_prediction(1, codes + 1, codes, seed=1), kind)
    x_t = torch.arange(codes + 1)[None]
    for s, t in itertools.combinations(range(schedule.num_steps + 1), 2):
        ours = q_posterior(log_p, x_t, t, schedule, s=s)
        truth = torch.stack([posterior_by_division(schedule, s, t, log_p[0, v].exp(), v) for v in range(codes + 1)])
        assert not ours.isnan().any() and error(ours[0].exp(), truth) <= 1e-12, (s, t)
        assert torch.equal(ours[0] == -torch.inf, truth == 0), (s, t)
        assert not q_posterior(log_p.float(), x_t, t, schedule, s=s).isnan().any()
        forward = (
            q_log_probs(x_t, t, schedule, s=s, dtype=torch.float64) if s else q_log_probs(x_t[:, :-1], t, schedule)
        )
        assert not forward.isnan().any()
        columns = transition_matrix(schedule, t, s).T
        assert torch.equal(forward[0] == -torch.inf, columns[: forward.shape[1]] == 0)


def test_large_vocabulary_sums_to_one_in_float32():
    codes, length = 4096, 1024
    schedule = MaskReplaceSchedule.paper(codes)
    generator = torch.Generator().manual_seed(0)
    log_p = random_prediction(1, length, codes, scale=3.0, dtype=torch.float32)
    x_t = torch.randint(codes, (1, length), generator=generator)
    x_t[:, ::3], x_t[:, 1::3] = codes, log_p.argmax(-1)[:, 1::3]
    posterior = q_posterior(log_p, x_t, 50, schedule, s=49)
    forward = q_log_probs(x_t, 50, schedule, s=25)
    for found in (posterior, forward):
        assert found.dtype == torch.float32 and error(found.exp().sum(-1, dtype=torch.float64), torch.ones(())) <= 1e-6


def test_a_prediction_keeps_its_mass():
    schedule, log_p = well_conditioned(0)[0], random_prediction(1, K + 1, K)
    ours = q_posterior(log_p + np.log(0.3), states(), 4, schedule, s=1).exp()
    assert_close(ours, 0.3 * q_posterior(log_p, states(), 4, schedule, s=1).exp(), atol=1e-14, rtol=0)


def test_times_per_row_equal_a_loop_of_ints():
    schedule = MaskReplaceSchedule.paper(K, 12)
    generator = torch.Generator().manual_seed(3)
    s, t = torch.tensor([0, 3, 11, 5, 0]), torch.tensor([1, 9, 12, 6, 12])
    x_t, log_p = torch.randint(K + 1, (5, 7), generator=generator), random_prediction(5, 7, K)
    x_0 = x_t.clamp(max=K - 1)
    for row in range(5):
        one, ints = slice(row, row + 1), (int(s[row]), int(t[row]))
        for of in (
            lambda i, s, t: q_posterior(log_p[i], x_t[i], t, schedule, s=s),
            lambda i, s, t: q_posterior(log_p[i], x_t[i], t, schedule),
            lambda i, s, t: q_log_probs(x_0[i], t, schedule, s=s, dtype=torch.float64),
            lambda i, s, t: q_log_probs(x_0[i], t, schedule, dtype=torch.float64),
            lambda i, s, t: q_likelihood(x_t[i], t, schedule, s=s, dtype=torch.float64),
        ):
            assert_close(of(slice(None), s, t)[one], of(one, *ints), atol=1e-14, rtol=0)
    ints = q_posterior(log_p, x_t, 8, schedule)
    assert torch.equal(ints, q_posterior(log_p, x_t, torch.full((5,), 8), schedule, s=torch.full((5,), 7)))
    for sample in (
        lambda s, t, g: q_sample(x_0, t, schedule, generator=g),
        lambda s, t, g: p_sample_step(log_p, x_t, t, schedule, s=s, generator=g),
    ):
        seeded = [torch.Generator().manual_seed(5) for _ in range(2)]
        assert torch.equal(sample(2, 8, seeded[0]), sample(torch.full((5,), 2), torch.full((5,), 8), seeded[1]))


# ------------------------------------------------------------------------------------------ draws


@pytest.mark.parametrize("seed", range(3))
def test_draw_follows_its_distribution(seed):
    log_p = random_prediction(6, seed=seed) + 3.0  # unnormalised
    log_p[seed] = -torch.inf
    found = draw(log_p.expand(100_000, 6), torch.Generator().manual_seed(seed))
    assert chi_square_p_value(found, log_p.softmax(-1)) > FALSE_ALARM


def test_draw_reaches_far_tails_and_never_the_impossible():
    log_p = torch.tensor([0.0, -torch.inf, -9.0, -torch.inf])  # nine nats down: 12 of 100 000
    found = draw(log_p.expand(400_000, 4), torch.Generator().manual_seed(0))
    assert chi_square_p_value(found, log_p.softmax(-1)) > FALSE_ALARM and (found == 2).any()
    assert (draw(torch.tensor([[-torch.inf, -5000.0, -torch.inf]]).expand(99, 3)) == 1).all()


@pytest.mark.parametrize("uniform, found", [(0.0, 1), (1 - 2.0**-53, 2)])
def test_draw_at_the_ends_of_the_unit_interval(uniform, found, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, dtype, **_: torch.full(shape, uniform, dtype=dtype))
    log_p = torch.tensor([[-torch.inf, 0.0, -1.0, -torch.inf]])
    assert draw(log_p).tolist() == [found]


def test_draw_takes_transposed_predictions_and_equal_generators_agree():
    log_p = random_prediction(2, 5, 9)
    first, second = (draw(log_p, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (2, 5)
    classes_first = log_p.transpose(1, 2).contiguous()
    assert torch.equal(draw(classes_first.transpose(1, 2), torch.Generator().manual_seed(1)), first)


JUMPS = [
    ("random 0", 0, 1),
    ("random 1", 2, 5),
    ("random 2", 5, 6),
    ("random 3", 0, 6),
    ("paper", 30, 40),
    ("released", 49, 50),
]


@pytest.mark.parametrize("name, s, t", JUMPS)
@pytest.mark.parametrize("x_t", [0, 2, K])
def test_p_sample_step_follows_the_posterior(name, s, t, x_t):
    schedule = case(name)[0]
    log_p, tokens = random_prediction(1, 1, K, seed=t), torch.tensor([[x_t]])
    truth = q_posterior(log_p, tokens, t, schedule, s=s).exp()[0, 0]
    generator = torch.Generator().manual_seed(100 + x_t)
    found = p_sample_step(log_p.expand(1, 60_000, K), tokens.expand(1, 60_000), t, schedule, s=s, generator=generator)
    assert chi_square_p_value(found, truth) > FALSE_ALARM


@pytest.mark.parametrize("x_t, x_0", [(0, 0), (0, 1), (K, 1)])
@pytest.mark.parametrize("name, s, t", [("random 0", 2, 4), ("random 1", 1, 6)])
def test_q_posterior_sample_follows_bayes(name, s, t, x_t, x_0):
    schedule, _, products = case(name)
    tokens, origin = torch.full((3, 20_000), x_t), torch.full((3, 20_000), x_0)
    found = q_posterior_sample(origin, tokens, t, schedule, s=s, generator=torch.Generator().manual_seed(8))
    assert chi_square_p_value(found, bayes(products, s, t)[:, x_t, x_0]) > FALSE_ALARM


@pytest.mark.parametrize("name, s, t", JUMPS)
def test_q_sample_follows_the_forward_process(name, s, t):
    schedule, _, products = case(name)
    generator = torch.Generator().manual_seed(7)
    clean = q_sample(torch.full((2, 30_000), 1), t, schedule, generator=generator)
    assert chi_square_p_value(clean, floats(products[0, t])[:, 1]) > FALSE_ALARM
    later = q_sample(torch.full((2, 30_000), 1), t, schedule, s=max(s, 1), generator=generator)
    assert chi_square_p_value(later, floats(products[max(s, 1), t])[:, 1]) > FALSE_ALARM
    masks = torch.full((1, 9), K)
    assert torch.equal(q_sample(masks, t, schedule, s=max(s, 1), generator=generator), masks)


def test_two_jumps_draw_what_one_jump_draws():
    schedule, _, products = case("random 2")
    generator = torch.Generator().manual_seed(11)
    x_2 = q_sample(torch.full((1, 60_000), 3), 2, schedule, generator=generator)
    x_5 = q_sample(x_2, 5, schedule, s=2, generator=generator)
    assert chi_square_p_value(x_5, floats(products[0, 5])[:, 3]) > FALSE_ALARM


@pytest.mark.parametrize("name, schedule", edge_schedules().items())
def test_edge_draws_are_possible(name, schedule):
    codes, generator = schedule.num_codes, torch.Generator().manual_seed(2)
    for t in range(1, schedule.num_steps + 1):
        for s in range(t):
            x_0 = torch.randint(codes, (1, 200), generator=generator)
            x_t = q_sample(x_0, t, schedule, generator=generator)
            log_p = random_prediction(1, 200, codes, seed=t).scatter(-1, x_0[..., None], 0.0).log_softmax(-1)
            x_s = p_sample_step(log_p, x_t, t, schedule, s=s, generator=generator)
            chance = q_posterior(log_p, x_t, t, schedule, s=s).gather(-1, x_s[..., None])
            assert (chance > -torch.inf).all(), (s, t)
            assert s > 0 or (x_s < codes).all()


def test_a_visible_token_is_certain_where_nothing_is_replaced():
    schedule = edge_schedules()["mask only"]
    x_t, wrong = torch.tensor([[1]]), torch.tensor([[[0.0, -torch.inf, -torch.inf]]])
    assert q_posterior(wrong, x_t, 3, schedule, s=2)[0, 0].tolist() == [-torch.inf, 0.0, -torch.inf, -torch.inf]
    assert p_sample_step(wrong, x_t, 3, schedule, s=2).tolist() == [[1]]


# ------------------------------------------------------------------------------------------ gradients and refusals


@pytest.mark.parametrize("x_t", [[0, 3, K], [K, K, 1]])
def test_posterior_gradient_is_the_derivative(x_t):
    schedule = well_conditioned(1)[0]
    logits = random_prediction(1, 3, K).requires_grad_()
    mask_free = torch.tensor([x_t]) != K
    finite = lambda z: q_posterior(z.log_softmax(-1), torch.tensor([x_t]), 5, schedule, s=2)[..., :K][mask_free]  # noqa: E731
    masked = lambda z: q_posterior(z.log_softmax(-1), torch.tensor([x_t]), 5, schedule, s=2)[~mask_free]  # noqa: E731
    assert torch.autograd.gradcheck(finite, logits) and torch.autograd.gradcheck(masked, logits)


LOG_P, TOKENS = random_prediction(2, 3, K), torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda q: q_posterior(LOG_P, TOKENS, 3, q, s=3), r"0 <= s < t <= 6, got s = 3, t = 3"),
        (lambda q: q_posterior(LOG_P, TOKENS, 7, q), r"0 <= s < t <= 6, got s = 6, t = 7"),
        (lambda q: q_posterior(LOG_P, TOKENS, 0, q), r"0 <= s < t <= 6, got s = -1, t = 0"),
        (lambda q: p_sample_step(LOG_P, TOKENS, torch.tensor([1, 9]), q), r"0 <= s < t <= 6"),
        (
            lambda q: q_posterior(LOG_P, TOKENS, torch.tensor([1, 2, 3]), q),
            r"integer tensor \[2\], got shape \(3,\)",
        ),
        (lambda q: q_sample(TOKENS, torch.tensor([1.0, 2.0]), q), r"t must be an int or an integer tensor"),
        (lambda q: q_posterior(LOG_P.transpose(1, 2), TOKENS, 3, q), r"log_p_x0 must be floating point \[2, 3, 4\]"),
        (lambda q: p_sample_step(LOG_P[..., :-1], TOKENS, 3, q), r"log_p_x0 must be .* got torch.float64 \[2, 3, 3\]"),
        (lambda q: q_posterior(LOG_P.long(), TOKENS, 3, q), r"log_p_x0 must be floating point"),
        (lambda q: q_posterior(LOG_P, TOKENS + K + 1, 3, q), r"x_t must lie in 0 ... 4 .*from 5 to 5"),
        (lambda q: q_posterior(LOG_P, TOKENS - 1, 3, q), r"x_t must lie in 0 ... 4 .*from -1 to -1"),
        (lambda q: q_sample(TOKENS + K, 3, q), r"x_0 must lie in 0 ... 3 \(codes, no mask\)"),
        (lambda q: q_log_probs(TOKENS + K, 3, q), r"x_0 must lie in 0 ... 3 \(codes, no mask\)"),
        (lambda q: q_log_probs(TOKENS[0], 3, q), r"x_0 must be int64 \[B, L\], got torch.int64 \[3\]"),
        (lambda q: q_likelihood(TOKENS.int(), 3, q), r"x_t must be int64 \[B, L\], got torch.int32"),
        (lambda q: transition_matrix(q, 0), "t must be a whole number from 1 to 6, got 0"),
        (lambda q: transition_matrix(q, 2, 4), r"0 <= s <= t <= 6, got s = 4, t = 2"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(well_conditioned(0)[0])


@pytest.mark.parametrize("block", [1, 7 * 50, 2**18])
def test_work_in_blocks_of_positions_changes_nothing(monkeypatch, block):
    log_p = torch.randn(2, 9, 50, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    whole = [draw(log_p, torch.Generator().manual_seed(1)), truncate(log_p, 0.7)]
    monkeypatch.setattr("vqlearn.draws.BLOCK", block)
    parts = [draw(log_p, torch.Generator().manual_seed(1)), truncate(log_p, 0.7)]
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    assert (whole[0].shape, whole[1].shape) == ((2, 9), (2, 9, 50))


def test_a_visible_token_that_nothing_leads_to_stays():
    """Masking alone with alpha_bar[T] = 0: at T no token is visible, but one that is (known, say) stays as it is."""
    t = torch.arange(5).double() / 4
    schedule = MaskReplaceSchedule(1 - t, t, num_codes=3)
    log_p = torch.full((1, 2, 3), 1 / 3).log()
    x_t = torch.tensor([[1, 3]])
    for s in range(4):
        found = q_posterior(log_p, x_t, 4, schedule, s=s).exp()
        torch.testing.assert_close(found[0, 0], torch.tensor([0.0, 1.0, 0.0, 0.0]))
        torch.testing.assert_close(found[0, 1, 3], torch.tensor(s / 4))
        assert int(p_sample_step(log_p, x_t, 4, schedule, s=s)[0, 0]) == 1
