"""The bound by enumeration of every trajectory, the loss against published code, and the choice of t."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import FALSE_ALARM, chi_square_p_value, edge_schedules, random_prediction, well_conditioned
from torch.testing import assert_close

from vqlearn import objective
from vqlearn.objective import (
    TimeSampler,
    bound_terms,
    evidence_bound,
    kl_divergence,
    one_hot_log,
    prior_log_probs,
    prior_term,
    training_loss,
)
from vqlearn.schedule import MaskReplaceSchedule
from vqlearn.transition import q_log_probs, q_posterior, q_sample, transition_matrix

GOLDEN = Path(__file__).parent / "data" / "original_loss.npz"


# ------------------------------------------------------------------------------------------ the bound, by enumeration


def all_states(num_states, length):
    """Every sequence of states, `[num_states ** length, length]`."""
    return torch.tensor(list(itertools.product(range(num_states), repeat=length)))


def random_denoiser(schedule, length, seed=0):
    """A denoiser from a random table that looks at all positions, and its table's rows in the order of `all_states`."""
    codes = schedule.num_codes
    table = random_prediction(schedule.num_steps + 1, (codes + 1) ** length, length, codes, seed=seed)
    place = (codes + 1) ** torch.arange(length - 1, -1, -1)
    return lambda x_t, t: table[t, (x_t * place).sum(-1)]


def joint_matrix(schedule, s, t, length):
    """q(x_t | x_s) over whole sequences, `[to, from]`, positions being independent."""
    matrix = one = transition_matrix(schedule, t, s)
    for _ in range(length - 1):
        matrix = torch.kron(matrix, one)
    return matrix


def joint_reverse(denoise, schedule, t, length):
    """p(x_{t-1} | x_t) over whole sequences, `[to, from]`."""
    states = all_states(schedule.num_codes + 1, length)
    reached = q_posterior(denoise(states, t), states, t, schedule).exp()  # [from, L, K + 1]
    return torch.stack([reached[:, torch.arange(length), to].prod(-1) for to in states])


def exact_bound_and_likelihood(denoise, schedule, x_0, length):
    """-ELBO as one sum over all trajectories x_1 ... x_T, and -log p(x_0), in nats for the whole sequence."""
    states = all_states(schedule.num_codes + 1, length)
    start = int((states == x_0).all(-1).nonzero())
    prior = prior_log_probs(schedule).exp()[states].prod(-1)
    forward = [joint_matrix(schedule, t - 1, t, length) for t in range(1, schedule.num_steps + 1)]
    reverse = [joint_reverse(denoise, schedule, t, length) for t in range(1, schedule.num_steps + 1)]
    bound = 0.0
    for path in itertools.product(range(len(states)), repeat=schedule.num_steps):
        nodes = (start, *path)
        q = math.prod(float(forward[i][nodes[i + 1], nodes[i]]) for i in range(schedule.num_steps))
        if q > 0:
            p = float(prior[nodes[-1]]) * math.prod(
                float(reverse[i][nodes[i], nodes[i + 1]]) for i in range(schedule.num_steps)
            )
            bound += q * (math.log(q) - math.log(p))
    generated = prior
    for step in reversed(reverse):
        generated = step @ generated
    return bound, -math.log(float(generated[start]))


def sum_of_terms(denoise, schedule, x_0, length):
    """L_T + sum over t of the expectation over x_t of `bound_terms`, in nats for the whole sequence."""
    states = all_states(schedule.num_codes + 1, length)
    clean = x_0.expand(len(states), length)
    total = prior_term(x_0[None], schedule, dtype=torch.float64).sum()
    for t in range(1, schedule.num_steps + 1):
        q = q_log_probs(clean, t, schedule, dtype=torch.float64).exp().gather(-1, states[..., None]).prod(1)[:, 0]
        seen = q > 0
        terms = bound_terms(denoise(states[seen], t), clean[seen], states[seen], t, schedule).sum(-1)
        total = total + (q[seen] * terms).sum()
    return float(total)


def tiny_schedules(num_codes):
    mixed = MaskReplaceSchedule([1, 0.6, 0.3, 0.1], [0, 0.2, 0.5, 0.7], num_codes=num_codes)
    third = torch.arange(4) / 3
    return {
        "mixed": mixed,
        "masks": MaskReplaceSchedule(1 - third.double(), third.double(), num_codes=num_codes),
        "uniform": MaskReplaceSchedule([1, 0.7, 0.4, 0.2], [0, 0, 0, 0], num_codes=num_codes),
        "paper": MaskReplaceSchedule.paper(num_codes, 3),
    }


@pytest.mark.parametrize("codes, length", [(2, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("name", ["mixed", "masks", "uniform", "paper"])
def test_the_bound_is_the_sum_over_all_trajectories_and_never_below_the_code_length(name, codes, length):
    schedule = tiny_schedules(codes)[name]
    denoise = random_denoiser(schedule, length, seed=codes + length)
    for x_0 in all_states(codes, length)[:3]:
        bound, code_length = exact_bound_and_likelihood(denoise, schedule, x_0, length)
        assert_close(
            sum_of_terms(denoise, schedule, x_0, length), bound, atol=1e-9 if name == "paper" else 1e-12, rtol=0
        )
        assert bound >= code_length - 1e-12 and bound - code_length < 20


def test_the_bound_on_four_steps():
    schedule = MaskReplaceSchedule([1, 0.8, 0.5, 0.3, 0.1], [0, 0.1, 0.2, 0.5, 0.6], num_codes=3)
    denoise, x_0 = random_denoiser(schedule, 1, seed=5), torch.tensor([2])
    bound, code_length = exact_bound_and_likelihood(denoise, schedule, x_0, 1)
    assert_close(sum_of_terms(denoise, schedule, x_0, 1), bound, atol=1e-12, rtol=0)
    assert bound > code_length


@pytest.mark.parametrize("name", ["mixed", "uniform", "masks"])
def test_the_bound_is_tight_for_the_true_denoiser_averaged_over_the_data(name):
    """With the true p(x_0 | x_t) and L = 1 the chain is the exact reversal: entropy, and what the prior at T misses."""
    schedule = tiny_schedules(3)[name]
    data = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    likelihood = torch.stack([transition_matrix(schedule, t, 0)[:, :3] for t in range(4)])  # [t, x_t, x_0]
    table = (likelihood * data).log().log_softmax(-1).nan_to_num(-math.log(3))
    mean = sum(
        float(w) * sum_of_terms(lambda x, t: table[t][x], schedule, torch.tensor([c]), 1) for c, w in enumerate(data)
    )
    last = transition_matrix(schedule, 3, 0)[:, :3] @ data
    entropy = -float((data * data.log()).sum())
    prior_gap = float(kl_divergence(last.log(), prior_log_probs(schedule)))
    assert_close(mean, entropy + prior_gap, atol=1e-12, rtol=0)


def test_evidence_bound_estimates_the_bound():
    schedule = tiny_schedules(3)["mixed"]
    denoise, rows = random_denoiser(schedule, 2, seed=9), 20_000
    x_0 = torch.tensor([1, 2])
    exact = sum_of_terms(denoise, schedule, x_0, 2) / 2 / math.log(2)
    times = torch.randint(1, 4, (2,), generator=torch.Generator().manual_seed(6))
    for kwargs in ({}, {"samples": 2}):
        found = evidence_bound(
            denoise, x_0.expand(rows, 2), schedule, generator=torch.Generator().manual_seed(4), **kwargs
        )
        assert found.shape == (rows,) and found.dtype == torch.float64
        assert abs(found.mean() - exact) < 5 * found.std() / rows**0.5  # false alarm 6e-7
    assert evidence_bound(denoise, x_0[None], schedule, times=times).shape == (1,)


def test_evidence_bound_over_drawn_times_is_unbiased_exactly(monkeypatch):
    schedule = MaskReplaceSchedule.paper(3, 5)
    denoise, x_0 = random_denoiser(schedule, 2), torch.tensor([[0, 2], [1, 1]])
    fixed = {t: q_sample(x_0, t, schedule, generator=torch.Generator().manual_seed(t)) for t in range(1, 6)}
    monkeypatch.setattr(objective, "q_sample", lambda x_0, t, schedule, generator: fixed[t])
    pairs = [torch.tensor(pair) for pair in itertools.product(range(1, 6), repeat=2)]
    averaged = torch.stack([evidence_bound(denoise, x_0, schedule, times=pair) for pair in pairs]).mean(0)
    assert_close(averaged, evidence_bound(denoise, x_0, schedule), atol=1e-12, rtol=0)


# ------------------------------------------------------------------------------------------ its terms


@pytest.mark.parametrize("seed", range(3))
def test_the_last_term_is_the_code_length(seed):
    schedule = well_conditioned(seed, 4)[0]
    log_p = random_prediction(4, 5, 4, seed=seed)
    x_1, x_0 = torch.arange(5).expand(4, 5), torch.arange(4)[:, None].expand(4, 5)
    assert_close(
        bound_terms(log_p, x_0, x_1, 1, schedule), -log_p.gather(-1, x_0[..., None])[..., 0], atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("name, schedule", edge_schedules().items())
def test_prior_term_is_exact(name, schedule):
    codes = schedule.num_codes
    prior = prior_log_probs(schedule).exp()
    assert_close(prior.sum(), torch.ones(()).double())
    columns = transition_matrix(schedule, schedule.num_steps, 0)[:, :codes]
    assert_close(columns.mean(1), prior, atol=1e-15, rtol=0)  # q(x_T) for a uniform x_0
    terms = [sum(float(q) * math.log(q / p) for q, p in zip(c, prior, strict=True) if q > 0) for c in columns.T]
    ours = prior_term(torch.arange(codes)[None], schedule, dtype=torch.float64)[0]
    assert_close(ours, torch.tensor(terms, dtype=torch.float64), atol=1e-13, rtol=0)


def test_the_ideal_prediction_costs_nothing_and_none_costs_less():
    schedule = well_conditioned(2, 4)[0]
    x_0 = torch.randint(4, (6, 8), generator=torch.Generator().manual_seed(0))
    t = torch.arange(1, 7)
    x_t = q_sample(x_0, t, schedule, generator=torch.Generator().manual_seed(1))
    assert (bound_terms(one_hot_log(x_0, 4, torch.float64), x_0, x_t, t, schedule).abs() < 1e-14).all()
    assert (bound_terms(random_prediction(6, 8, 4), x_0, x_t, t, schedule) > 0).all()
    ruled_out = random_prediction(6, 8, 4).scatter(-1, x_0[..., None], -torch.inf)
    assert (bound_terms(ruled_out, x_0, x_t, t, schedule)[0] == torch.inf).all()  # x_0 ruled out


def test_kl_divergence_conventions():
    half, never = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.5, 0.25, 0.25]).log()
    assert_close(kl_divergence(half, never), torch.tensor(0.5 * math.log(2)))
    assert kl_divergence(never, half) == torch.inf and kl_divergence(half, half) == 0


# ------------------------------------------------------------------------------------------ the training loss


def published(kind):
    return {
        key.split("/")[1]: torch.from_numpy(value) for key, value in np.load(GOLDEN).items() if key.startswith(kind)
    }


@pytest.mark.parametrize("kind", ["class_pretrained", "text_ithq"])
def test_divergences_equal_the_published_code(kind):
    golden = published(kind)
    log_p, t = golden["log_model_prob"].transpose(1, 2), golden["t"] + 1  # log p(x_{t-1} | x_t), mask last
    codes = log_p.shape[-1] - 1
    truth = one_hot_log(golden["x_0"], codes, torch.float32)
    log_q = q_posterior(truth, golden["x_t"], t, MaskReplaceSchedule.released(codes, 100))
    assert_close(kl_divergence(log_q, log_p), golden["kl_token"], atol=2e-6, rtol=2e-6)
    clean = log_p[t == 1, :, :-1]  # one step from clean data p(x_0 | x_1) is p(x_0 | x_t) itself
    x_0, x_1 = golden["x_0"][t == 1], golden["x_t"][t == 1]
    terms = bound_terms(clean, x_0, x_1, 1, MaskReplaceSchedule.released(codes, 100))
    assert_close(terms, golden["kl_token"][t == 1], atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("kind", ["class_pretrained", "text_ithq"])
@pytest.mark.parametrize("total, adaptive", [("total", True), ("total_b", False)])
def test_training_loss_puts_its_terms_together_as_published(kind, total, adaptive, monkeypatch):
    golden = published(kind)
    x_0, t, codes = golden["x_0"], golden["t"] + 1, golden["log_model_prob"].shape[1] - 1
    weight = golden["mask_weight_b"] if total == "total_b" else torch.ones(2)  # of masked and of visible tokens
    weight = torch.where((golden["x_t"] == codes) | (t == 1)[:, None], weight[0], weight[1])  # a code length weighs 1
    monkeypatch.setattr(objective, "bound_terms", lambda *_: weight * golden["kl_token"])
    log_p = torch.full((*x_0.shape, codes), -1.0).scatter(
        -1, x_0[..., None], -(weight * golden["kl_aux_token"])[..., None]
    )
    loss, terms = training_loss(
        log_p, x_0, golden["x_t"], t, MaskReplaceSchedule.released(codes, 100),
        p_t=golden["pt"], auxiliary_weight=float(golden["aux_weight"]), adaptive=adaptive,
    )  # fmt: skip
    assert_close(loss, golden[total], atol=0, rtol=1e-6)
    assert_close(terms, (weight * golden["kl_token"]).mean(-1))


def test_adaptive_weight_falls_from_two_to_one_and_a_bit():
    schedule, T = MaskReplaceSchedule.paper(4, 20), 20
    x_0, log_p = torch.zeros(1, 3, dtype=torch.int64), random_prediction(1, 3, 4)
    code_length = -log_p[0, :, 0].mean()
    for t in range(1, T + 1):
        x_t, time = torch.full((1, 3), 4), torch.tensor([t])
        bare, terms = training_loss(log_p, x_0, x_t, time, schedule, auxiliary_weight=0.0)
        assert_close(bare, T * terms[0], atol=1e-12, rtol=0)
        for adaptive, weight in ((True, 2 - (t - 1) / T), (False, 1.0)):
            loss, _ = training_loss(log_p, x_0, x_t, time, schedule, auxiliary_weight=0.1, adaptive=adaptive)
            assert_close((loss - bare) / T, 0.1 * weight * code_length, atol=1e-12, rtol=0)


def test_the_importance_weighted_loss_is_unbiased_for_any_choice_of_t():
    """Summed over t with its probability the loss is one number, whatever the probabilities are: the bound's sum."""
    schedule, T = well_conditioned(0, 4)[0], 6
    x_0 = torch.tensor([[0, 3, 2, 2]])
    log_p = random_prediction(T, 1, 4, 4)
    x_t = [q_sample(x_0, t, schedule, generator=torch.Generator().manual_seed(t)) for t in range(1, T + 1)]
    bound = sum(bound_terms(log_p[t - 1], x_0, x_t[t - 1], t, schedule).mean() for t in range(1, T + 1))
    uneven = torch.tensor([0.3, 0.05, 0.1, 0.25, 0.1, 0.2], dtype=torch.float64)
    for p in (uneven, torch.full((T,), 1 / T, dtype=torch.float64)):
        losses = [
            training_loss(log_p[i], x_0, x_t[i], torch.tensor([i + 1]), schedule, p_t=p[i : i + 1], auxiliary_weight=0)[
                0
            ]
            for i in range(T)
        ]
        assert_close((p * torch.stack(losses)).sum(), bound, atol=1e-12, rtol=0)
    uniform = [
        training_loss(log_p[i], x_0, x_t[i], torch.tensor([i + 1]), schedule, auxiliary_weight=0)[0] for i in range(T)
    ]
    assert_close(torch.stack(uniform).mean(), bound, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [*edge_schedules(), "paper", "released"])
def test_gradients_are_finite_and_do_not_vanish(name):
    schedule = edge_schedules()[name] if name in edge_schedules() else getattr(MaskReplaceSchedule, name)(6, 5)
    codes, generator = schedule.num_codes, torch.Generator().manual_seed(0)
    t = torch.arange(1, schedule.num_steps + 1).repeat_interleave(8)
    x_0 = torch.randint(codes, (len(t), 5), generator=generator)
    x_t = q_sample(x_0, t, schedule, generator=generator)
    logits = (8 * torch.randn(*x_0.shape, codes, generator=generator)).requires_grad_()
    loss, terms = training_loss(logits.log_softmax(-1), x_0, x_t, t, schedule)
    loss.backward()
    assert loss.isfinite() and terms.isfinite().all() and not terms.requires_grad and logits.grad.isfinite().all()
    assert codes == 1 or logits.grad.abs().sum() > 0


def test_training_loss_gradient_is_the_derivative():
    schedule = well_conditioned(1, 4)[0]
    t, x_0 = torch.tensor([1, 3, 6]), torch.tensor([[0, 1], [3, 2], [2, 2]])
    x_t = torch.tensor([[0, 4], [4, 1], [2, 0]])
    assert torch.autograd.gradcheck(
        lambda z: training_loss(z.log_softmax(-1), x_0, x_t, t, schedule, auxiliary_weight=0.1)[0],
        random_prediction(3, 2, 4).requires_grad_(),
    )


# ------------------------------------------------------------------------------------------ the choice of t


@pytest.mark.parametrize("kind", ["class_pretrained", "text_ithq"])
def test_time_sampler_follows_the_published_rule(kind):
    golden = published(kind)
    sampler = TimeSampler(100)
    sampler.history[1:], sampler.counts[1:] = golden["Lt_history_before"], golden["Lt_count_before"]
    p = sampler.probabilities()
    assert p.shape == (101,) and p[0] == 0 and p[1] == p[2]
    assert_close(p[1:], golden["pt_all"].double(), atol=0, rtol=1e-6)
    sampler.update(golden["t"] + 1, golden["kl"])
    assert_close(sampler.history[1:].float(), golden["Lt_history_after"], atol=0, rtol=1e-6)
    new = sampler.counts[1:] - golden["Lt_count_before"]
    assert new.nonzero()[:, 0].tolist() == sorted(golden["t"].tolist()) and new.sum() == 4


def test_time_sampler_is_uniform_until_every_time_was_seen_more_than_ten_times():
    sampler, every = TimeSampler(4), torch.arange(1, 5)
    for _ in range(10):
        sampler.update(every, torch.tensor([9.0, 1.0, 2.0, 4.0]))
    assert_close(sampler.probabilities(), torch.tensor([0, 1, 1, 1, 1], dtype=torch.float64) / 4)
    for late in (1, 4):  # the last one to be seen an eleventh time
        behind = copy.deepcopy(sampler)
        behind.update(every[every != late], torch.ones(3))
        assert_close(behind.probabilities(), torch.tensor([0, 1, 1, 1, 1], dtype=torch.float64) / 4)
    sampler.update(every, torch.tensor([9.0, 1.0, 2.0, 4.0]))
    root_mean_square = (1 - 0.9**11) ** 0.5 * torch.tensor([0.0, 1, 1, 2, 4]).double()
    expected = torch.where(torch.arange(5) > 0, (root_mean_square**2 + 1e-10).sqrt() + 1e-4, 0.0)
    assert_close(sampler.probabilities(), expected / expected.sum(), atol=1e-12, rtol=0)
    t, p_t = sampler.sample(50_000, torch.Generator().manual_seed(0))
    assert torch.equal(p_t, sampler.probabilities()[t]) and p_t.dtype == torch.float64
    assert chi_square_p_value(t, sampler.probabilities()) > FALSE_ALARM


def test_time_sampler_remembers_repeats_and_survives_saving():
    sampler = TimeSampler(3)
    sampler.update(torch.tensor([2, 2]), torch.tensor([1.0, 3.0]))
    assert_close(sampler.history[2], torch.tensor(0.9 * 0.1 + 0.1 * 9, dtype=torch.float64))
    assert sampler.counts[2] == 2
    twin = TimeSampler(3)
    twin.load_state_dict(sampler.state_dict())
    assert torch.equal(twin.history, sampler.history) and torch.equal(twin.counts, sampler.counts)
    twin.update(torch.tensor([1]), torch.tensor([1.0]))
    assert sampler.counts[1] == 0  # a copy, not a view


def test_time_sampler_of_a_single_step():
    sampler = TimeSampler(1)
    sampler.update(torch.ones(11, dtype=torch.int64), torch.ones(11))
    assert sampler.probabilities().tolist() == [0, 1] and sampler.sample(3)[0].tolist() == [1, 1, 1]
