"""The bound in continuous time: the limit of the discrete one for ever finer schedules, which know nothing of it."""

import itertools
import math

import pytest
import torch
from oracle import random_prediction
from torch.testing import assert_close

from vqlearn import MaskReplaceSchedule
from vqlearn.objective import (
    bound_terms,
    continuous_loss,
    continuous_sample,
    continuous_terms,
    mixed_marginals,
    mixed_posteriors,
    one_hot_log,
)
from vqlearn.transition import q_log_probs

CODES, STEPS = 3, 4
SCHEDULES = {
    "masks": ([1, 0.75, 0.5, 0.25, 0], [0, 0.25, 0.5, 0.75, 1]),
    "masks, uneven": ([1, 0.9, 0.6, 0.5, 0.2], [0, 0.1, 0.4, 0.5, 0.8]),
    "both": ([1, 0.8, 0.5, 0.3, 0.1], [0, 0.1, 0.2, 0.5, 0.6]),
    "uniform": ([1, 0.7, 0.5, 0.4, 0.2], [0, 0, 0, 0, 0]),
    "replacement late": ([1, 0.8, 0.6, 0.2, 0.1], [0, 0.2, 0.4, 0.5, 0.6]),
    "all masked early": ([1, 0.5, 0.2, 0, 0], [0, 0.3, 0.6, 1, 1]),
}


def schedule_of(name):
    return MaskReplaceSchedule(*SCHEDULES[name], num_codes=CODES)


def refined(name, parts):
    """The same schedule with `parts` steps for one, `gamma` and the kept share of the unmasked tokens being linear."""
    alpha, gamma = SCHEDULES[name]
    kept = []
    for a, g in zip(alpha, gamma, strict=True):
        kept.append(a / (1 - g) if g < 1 else kept[-1])
    fine_gamma, fine_alpha = [0.0], [1.0]
    for step in range(STEPS):
        for part in range(1, parts + 1):
            g, k = (c[step] + (c[step + 1] - c[step]) * part / parts for c in (gamma, kept))
            fine_gamma.append(g)
            fine_alpha.append(k * (1 - g))
    return MaskReplaceSchedule(fine_alpha, fine_gamma, num_codes=CODES)


def every_case():
    """Each pair of a clean code and a state, `[12, 1]` each."""
    pairs = list(itertools.product(range(CODES), range(CODES + 1)))
    return tuple(torch.tensor(column)[:, None] for column in zip(*pairs, strict=True))


@pytest.mark.parametrize("name", SCHEDULES)
def test_terms_are_the_limit_of_the_discrete_ones(name):
    """One step of a schedule that is 20000 times finer costs the integrand, up to terms of the next order."""
    parts = 20_000
    fine, (x_0, x_t) = refined(name, parts), every_case()
    log_p = random_prediction(len(x_0), 1, CODES, seed=1)
    for step, part in itertools.product(range(STEPS), (0.3, 0.8)):
        at = step * parts + round(part * parts)
        reached = q_log_probs(x_0, at, fine, dtype=torch.float64).gather(-1, x_t[..., None])[:, 0, 0] > -torch.inf
        cost = bound_terms(log_p[reached], x_0[reached], x_t[reached], at, fine) * fine.num_steps
        time = torch.full((int(reached.sum()),), (at - 0.5) / fine.num_steps, dtype=torch.float64)
        found = continuous_terms(log_p[reached], x_0[reached], x_t[reached], time, schedule_of(name))
        assert_close(found, cost, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["masks", "masks, uneven"])
def test_for_masks_alone_it_is_the_weighted_cross_entropy_of_mdlm(name):
    """-alpha' / (1 - alpha) times -log p(x_0) where x_t is the mask, and nothing elsewhere."""
    alpha, (x_0, x_t) = SCHEDULES[name][0], every_case()
    log_p = random_prediction(len(x_0), 1, CODES, seed=2)
    for time in (0.05, 0.3, 0.6, 0.95):
        step = math.ceil(time * STEPS)
        slope = (alpha[step] - alpha[step - 1]) * STEPS
        now = alpha[step - 1] + slope * (time - (step - 1) / STEPS)
        nll = -log_p.gather(-1, x_0[..., None])[..., 0]
        expected = torch.where(x_t == CODES, -slope / (1 - now) * nll, 0.0)
        found = continuous_terms(log_p, x_0, x_t, torch.full((len(x_0),), time, dtype=torch.float64), schedule_of(name))
        assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_ideal_prediction_costs_nothing(name):
    x_0, x_t = every_case()
    for time in (0.01, 0.4, 0.99, 1.0):
        certain = one_hot_log(x_0, CODES, torch.float64)
        times = torch.full((len(x_0),), time, dtype=torch.float64)
        found = continuous_terms(certain, x_0, x_t, times, schedule_of(name))
        assert_close(found, torch.zeros(len(x_0), 1).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_samples_are_those_of_the_finer_schedule(name):
    fine, rows = refined(name, 8), 4000
    for step in (3, 13, 32):
        time = torch.full((rows,), step / fine.num_steps, dtype=torch.float64)
        x_0 = torch.full((rows, 1), 2)
        x_t = continuous_sample(x_0, time, schedule_of(name), generator=torch.Generator().manual_seed(step))
        expected = q_log_probs(x_0[:1], step, fine, dtype=torch.float64)[0, 0].exp()
        shares = torch.bincount(x_t.flatten(), minlength=CODES + 1) / rows
        assert ((shares - expected).abs() <= 5 * (expected * (1 - expected) / rows).sqrt()).all()


def table_denoiser(length, seed):
    """`denoise(x_t, t)` from a random table that looks at all positions; t an int or `[B]`."""
    table = random_prediction(STEPS + 1, (CODES + 1) ** length, length, CODES, seed=seed)
    place = (CODES + 1) ** torch.arange(length - 1, -1, -1)
    return lambda x_t, t: table[t, (x_t * place).sum(-1)]


def exact(name, denoise, x_0, length, parts):
    """The bound without L_T in nats per token: a sum over the states and steps of a finer schedule.

    The first step that replaces tokens is as coarse as it is.
    """
    fine, states = refined(name, parts), torch.tensor(list(itertools.product(range(CODES + 1), repeat=length)))
    clean, total = x_0.expand(len(states), length), 0.0
    coarse = schedule_of(name)
    first = next((step for step in range(1, STEPS + 1) if coarse.beta_bar[step] > 1e-12), None)
    for at in range(1, STEPS * parts + 1):
        step = math.ceil(at / parts)
        if step == first and at < step * parts:
            continue
        q = q_log_probs(clean, at, fine, dtype=torch.float64).exp().gather(-1, states[..., None]).prod(1)[:, 0]
        seen = q > 0
        log_p = denoise(states[seen], step)
        t, schedule = (step, coarse) if step == first else (at, fine)
        cost = bound_terms(log_p, clean[seen], states[seen], t, schedule)
        total += float((q[seen] * cost.sum(-1)).sum())
    return total / length


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_loss_is_an_unbiased_estimate_of_the_bound(name):
    """Within 4 standard errors, and those are under 4 %, of the sum over all states of a finer schedule."""
    denoise, x_0, batches = table_denoiser(2, seed=3), torch.tensor([1, 2]), 100
    generator, schedule = torch.Generator().manual_seed(0), schedule_of(name)
    losses = torch.stack(
        [continuous_loss(denoise, x_0.expand(125, 2), schedule, generator=generator).mean() for _ in range(batches)]
    )
    # what a finer schedule misses is proportional to its steps' length: two of them give the limit, within 1e-4 of it
    coarse, fine = (exact(name, denoise, x_0, 2, parts) for parts in (10, 20))
    error = float(losses.std()) / batches**0.5
    assert error < 0.04 * fine and abs(float(losses.mean()) - (2 * fine - coarse)) < 4 * error


def test_with_mixed_marginals_it_is_the_loss_of_gidd():
    """KL of the marginals plus the Itakura-Saito divergence at x_t, over q(x_t | x_0) (von Ruette et al. 2025)."""
    (x_0, x_t), (alpha, gamma) = every_case(), SCHEDULES["both"]
    log_p = random_prediction(len(x_0), 1, CODES, seed=5)
    time = 0.6  # in the third step, 0.4 of it
    g, kept = (c[2] + (c[3] - c[2]) * 0.4 for c in (gamma, [a / (1 - m) for a, m in zip(alpha, gamma, strict=True)]))
    slope_g, slope_kept = (gamma[3] - gamma[2]) * STEPS, (alpha[3] / (1 - gamma[3]) - alpha[2] / (1 - gamma[2])) * STEPS
    expected = []
    for clean, state, p in zip(x_0.flatten().tolist(), x_t.flatten().tolist(), log_p[:, 0].exp(), strict=True):
        q = torch.full((CODES + 1,), (1 - g) * (1 - kept) / CODES, dtype=torch.float64)
        model = q.clone()
        q[clean] += (1 - g) * kept
        model[:CODES] += (1 - g) * kept * p
        q[CODES] = model[CODES] = g
        divergence = float((q * (q / model).log()).sum())
        ratio = float(q[state] / model[state])
        saito = ratio - math.log(ratio) - 1
        rate = slope_g / (1 - g) if state == CODES else -slope_kept / kept / CODES  # of the jump back to x_t
        expected.append(rate / float(q[state]) * (divergence + (0 if state == CODES else (1 - g) * saito)))
    times = torch.full((len(x_0),), time, dtype=torch.float64)
    found = continuous_terms(log_p, x_0, x_t, times, schedule_of("both"), jumps=mixed_marginals)
    assert_close(found[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_times_are_spread_evenly():
    """Of 40 rows and 4 steps ten fall in each, whatever is drawn."""
    asked = []

    def denoise(x_t, t):
        asked.append(t)
        return random_prediction(40, 1, CODES)

    x_0 = torch.zeros(40, 1, dtype=torch.int64)
    for seed in range(3):
        continuous_loss(denoise, x_0, schedule_of("masks"), generator=torch.Generator().manual_seed(seed))
    assert all(t.bincount().tolist() == [0, 10, 10, 10, 10] for t in asked)


@pytest.mark.parametrize("jumps", [mixed_posteriors, mixed_marginals])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_gradient_is_finite_and_the_derivative(name, jumps):
    x_0, x_t = every_case()
    schedule, logits = schedule_of(name), random_prediction(len(x_0), 1, CODES, seed=4)
    for time in (0.1, 0.6, 1.0):
        times = torch.full((len(x_0),), time, dtype=torch.float64)

        def terms(z, times=times):  # a row's depends on the row alone, so that all rows change at once
            return continuous_terms(z.log_softmax(-1), x_0, x_t, times, schedule, jumps=jumps)[:, 0]

        leaf = logits.clone().requires_grad_()
        (found,) = torch.autograd.grad(terms(leaf).sum(), leaf)
        for code, step in enumerate(1e-6 * torch.eye(CODES, dtype=torch.float64)):
            difference = (terms(logits + step) - terms(logits - step)) / 2e-6
            assert_close(found[:, 0, code], difference, rtol=1e-5, atol=1e-6)
    single = (8 * random_prediction(64, 5, CODES, dtype=torch.float32)).requires_grad_()
    clean = torch.zeros(64, 5, dtype=torch.int64)
    loss = continuous_loss(lambda x, t: single.log_softmax(-1), clean, schedule, jumps=jumps).mean()
    loss.backward()
    assert loss.isfinite() and single.grad.isfinite().all() and single.grad.abs().sum() > 0


def test_the_rate_of_unmasking_near_time_0_is_that_of_the_formula():
    """-alpha' / (1 - alpha) is 1 / time for masks that grow evenly, at 1e-14 too; without masks it is 0."""
    log_p, mask, x_0 = random_prediction(1, 1, CODES, seed=6), torch.full((1, 1), CODES), torch.tensor([[1]])
    for time in (1e-14, 1e-9, 0.2):
        found = continuous_terms(log_p, x_0, mask, torch.tensor([time]).double(), schedule_of("masks"))
        assert_close(found, -log_p[:, :, 1] / time, rtol=1e-6, atol=0)
    none = continuous_terms(log_p, x_0, mask, torch.tensor([0.5]).double(), schedule_of("uniform"))
    assert none.tolist() == [[0.0]]
