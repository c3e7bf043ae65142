"""The exactness lab: the published tables to their last digit, and every sampler against its enumerated law."""

import functools

import pytest
import torch
from oracle import FALSE_ALARM, chi_square_p_value
from torch.testing import assert_close

from vqlearn import (
    SAMPLERS,
    MaskReplaceSchedule,
    Sampler,
    ancestral,
    guide,
    p_sample_step,
    q_log_probs,
    q_posterior,
    strided_times,
    top_k,
    truncate,
)
from vqlearn.choices import joint_of
from vqlearn.exactness.enumeration import (
    bound,
    divergence,
    grids,
    markov_chain,
    numbers,
    oracle,
    outcome,
    prior,
    sure_of_masks,
    total_variation,
)
from vqlearn.reverse import as_sampler
from vqlearn.sampling import Corrector, Keeping, first_hitting, official_fast, official_times, prior_sample
from vqlearn.unmasking import Confident, EntropyBounded, Halton, HighQuality, Purity

K, L = 2, 6
PRESETS = {"released": MaskReplaceSchedule.released(K, 100), "paper": MaskReplaceSchedule.paper(K, 100)}


@pytest.fixture(scope="module")
def lab():
    """The chain of the tables, and the total variation to it of a sampler under a preset; each is computed once."""
    joint = markov_chain(K, L, 0.9)
    perfect = {name: oracle(joint, schedule) for name, schedule in PRESETS.items()}

    @functools.cache
    def error(sampler, preset, count):
        schedule = PRESETS[preset]
        times = official_times(100, count) if sampler is official_fast else strided_times(100, count)
        return total_variation(outcome(sampler, perfect[preset], schedule, L, times).law, joint)

    return joint, perfect, error


STRIDED = {100: ("0.0096", "0.0054"), 51: ("0.0190", "0.0107"), 26: ("0.0370", "0.0213"), 11: ("0.0849", "0.0523")}
SKIPS = {1: ("0.0164", "0.0566"), 3: ("0.0509", "0.0804"), 9: ("0.2494", "0.2144")}  # 51, 26 and 11 calls
ENDS = {0: ("0.0096", "0.0935"), 0.05: ("0.0061", "0.0647"), 0.1: ("0.0054", "0.0579"),
        0.3: ("0.0046", "0.0530"), 0.5: ("0.0048", "0.0572"), 1: ("0.0058", "0.0701")}  # fmt: skip


@pytest.mark.parametrize("count", STRIDED)
def test_the_table_of_exact_strides_to_its_last_digit(lab, count):
    assert tuple(f"{lab[2](ancestral, preset, count):.4f}" for preset in PRESETS) == STRIDED[count]


@pytest.mark.parametrize("skip", SKIPS)
def test_the_table_of_the_public_codes_skip_to_its_last_digit(lab, skip):
    """The table began its walks at the last time's shares as the public code has them, which do not sum to 1."""
    joint, perfect, _ = lab
    found = []
    for preset, schedule in PRESETS.items():
        shares = torch.cat([schedule.beta_bar[-1].expand(K), schedule.gamma_bar[-1:]])
        one = shares / shares.sum()
        start = functools.reduce(lambda law, _: (law[:, None] * one).flatten(), range(L - 1), one)
        law = outcome(official_fast, perfect[preset], schedule, L, official_times(100, skip), start=start).law
        found.append(f"{total_variation(law, joint):.4f}")
    assert tuple(found) == SKIPS[skip]


@pytest.mark.parametrize("share", ENDS)
def test_the_row_of_the_final_uniform_share_to_its_last_digit(lab, share):
    gamma_end = max(0.99999 - share, 0.000009) if share else 0.99999
    schedule = MaskReplaceSchedule.from_ends(num_codes=K, gamma_end=gamma_end)
    denoise = oracle(lab[0], schedule)
    laws = (outcome(ancestral, denoise, schedule, L, strided_times(100, count)).law for count in (100, 10))
    assert tuple(f"{total_variation(law, lab[0]):.4f}" for law in laws) == ENDS[share]


def test_the_order_that_the_course_claims(lab):
    """More steps are better, the paper's schedule beats the released one, the exact stride the skip, and so on."""
    _, _, error = lab
    for preset in PRESETS:
        at = [error(ancestral, preset, count) for count in (100, 50, 25, 10, 5)]
        assert at == sorted(at)
    for count in (100, 50, 25, 10):
        assert error(ancestral, "paper", count) < error(ancestral, "released", count)
    for skip, calls in ((3, 26), (9, 11)):
        for preset in PRESETS:
            assert error(ancestral, preset, calls) < error(official_fast, preset, skip)
    assert error(official_fast, "released", 1) < error(ancestral, "released", 51)  # the one place where the skip wins
    order = [Corrector(0.1), ancestral, HighQuality(), Purity(0.0), Halton(), Confident(), Purity(1.0)]
    at = [error(sampler, "paper", 10) for sampler in order]
    assert at == sorted(at)


# ------------------------------------------------------------------------------------------ every sampler has its law

SMALL = {"paper": MaskReplaceSchedule.paper(3, 8), "released": MaskReplaceSchedule.released(3, 8)}
MASK_ONLY = MaskReplaceSchedule(1 - torch.arange(9).double() / 8, torch.arange(9).double() / 8, num_codes=3)
EVERY = [
    ancestral, official_fast, Corrector(0.0), Corrector(0.3), Corrector(1.0), HighQuality(), HighQuality(most=1),
    Purity(0.0), Purity(1.0), Confident(), Halton(), EntropyBounded(0.1), EntropyBounded(0.8), SAMPLERS["reference"],
]  # fmt: skip


def uneven_joint(codes=3, length=3):
    """A distribution without symmetries."""
    weight = torch.rand(codes**length, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    return weight / weight.sum()


def draws(sampler, denoise, schedule, times, count=20_000):
    generator = torch.Generator().manual_seed(1)
    x_T = sampler.start(schedule, count, 3, generator=generator)
    return numbers(sampler(denoise, x_T, schedule, times, generator=generator), schedule.num_codes)


@pytest.mark.parametrize("sampler", EVERY, ids=lambda s: getattr(s, "__name__", None) or repr(s))
@pytest.mark.parametrize("times", [[8, 5, 2, 0], range(8, -1, -1)], ids=["three", "all"])
def test_what_a_sampler_draws_has_the_enumerated_law(sampler, times):
    """20 000 grids each, chi-square over all 27: a right law fails with probability 1e-6."""
    schedule, joint = SMALL["paper"], uneven_joint()
    denoise = oracle(joint, schedule)
    law, calls = outcome(sampler, denoise, schedule, 3, times)
    assert_close(law.sum(), torch.ones((), dtype=torch.float64))
    assert calls <= len(times) - 1 or sampler == HighQuality(most=1)
    assert chi_square_p_value(draws(sampler, denoise, schedule, times), law) > FALSE_ALARM


@pytest.mark.parametrize("times", [[8, 5, 2, 0], range(8, -1, -1)], ids=["three", "all"])
def test_first_hitting_has_the_law_of_ancestral_under_masking_alone(times):
    joint = uneven_joint()
    denoise = oracle(joint, MASK_ONLY)
    law = outcome(ancestral, denoise, MASK_ONLY, 3, times).law
    assert chi_square_p_value(draws(first_hitting, denoise, MASK_ONLY, times), law) > FALSE_ALARM


CHANGES = {
    "guided": lambda told, null: guide(told, null, 2.5),
    "truncated": lambda told, null: truncate(told, 0.6),
    "top-1": lambda told, null: top_k(told, 1),
    "guided, then truncated": lambda told, null: truncate(guide(told, null, 2.5), 0.6),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sampler", [ancestral, Corrector(0.3), Purity(1.0), Confident()], ids=repr)
def test_guidance_and_truncation_go_through_the_lab(sampler, change):
    schedule = SMALL["paper"]
    told, null = oracle(uneven_joint(), schedule), oracle(torch.full((27,), 1 / 27, dtype=torch.float64), schedule)
    denoise = lambda x_t, t: CHANGES[change](told(x_t, t), null(x_t, t))  # noqa: E731
    law = outcome(sampler, denoise, schedule, 3, [8, 5, 2, 0]).law
    assert_close(law.sum(), torch.ones((), dtype=torch.float64))
    assert chi_square_p_value(draws(sampler, denoise, schedule, [8, 5, 2, 0]), law) > FALSE_ALARM


@pytest.mark.parametrize("renew", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("preset", SMALL)
def test_the_corrector_leaves_the_marginals_intact(preset, renew):
    """Walks that know x_0, begun at q(x_T | x_0): at every s the law is q(x_s | x_0) (chi-square, 1e-6)."""
    schedule, x_0 = SMALL[preset], torch.tensor([[0, 1, 2]]).expand(20_000, -1)
    certain = torch.full((20_000, 3, 3), -torch.inf).scatter(-1, x_0[..., None], 0.0)
    generator, seen = torch.Generator().manual_seed(0), {}
    x_T = prior_sample(schedule, 20_000, 3, generator=generator)  # alpha_bar_T is 9e-6: as good as q(x_T | x_0)
    Corrector(renew)(
        lambda x_t, t: certain, x_T, schedule, [8, 6, 3, 1, 0], generator=generator,
        on_step=lambda number, s, x_s: seen.setdefault(s, x_s),
    )  # fmt: skip
    assert list(seen) == [6, 3, 1, 0] and torch.equal(seen[0], x_0)
    for s in (6, 3, 1):
        law = q_log_probs(x_0[:1], s, schedule, dtype=torch.float64)[0].exp()
        for position in range(3):
            assert chi_square_p_value(seen[s][:, position], law[position]) > FALSE_ALARM


@pytest.mark.parametrize("renew", [0.0, 0.3, 1.0])
def test_the_corrector_leaves_the_marginals_intact_exactly(renew):
    """The same by matrices: with x_0 known, one step takes q(x_t | x_0) to q(x_s | x_0), to 1e-12."""
    schedule = SMALL["paper"]
    states = torch.arange(4)[:, None]  # one position: 0, 1, 2 and the mask
    for x_0 in range(3):
        certain = torch.full((4, 1, 3), -torch.inf, dtype=torch.float64)
        certain[..., x_0] = 0.0
        q = lambda t, x_0=x_0: q_log_probs(torch.tensor([[x_0]]), t, schedule, dtype=torch.float64)[0, 0].exp()  # noqa: E731
        for t in range(2, 9):
            for s in range(1, t):
                step = Corrector(renew).step_law(certain, states, t, s, schedule)[:, 0]  # [from, to]
                assert_close(q(t) @ step, q(s), atol=1e-12, rtol=0)


# ------------------------------------------------------------------------------------------ given some of the tokens

KNOWN = torch.tensor([[0, 0, 0, 0, 1]]), torch.tensor([[True, False, False, False, True]])  # both ends are known


def conditional_error(sampler, schedule, count):
    """Total variation between what a sampler draws beside known tokens and the conditional distribution of the data."""
    x_0, known = KNOWN
    joint, states = markov_chain(2, 5, 0.9), grids(2, 5)
    truth = joint * ((states == x_0) | ~known).all(-1)
    first = torch.where(known[0, :, None], torch.eye(3, dtype=torch.float64)[x_0[0]], sampler.start_law(schedule))
    denoise = Keeping(sampler, x_0, known).conditioned(oracle(joint, schedule))
    times = strided_times(schedule.num_steps, count)
    law = outcome(sampler, denoise, schedule, 5, times, start=joint_of(first[None])[0]).law
    return total_variation(law, truth / truth.sum())


@pytest.mark.parametrize("preset", ["masks", "released"])
def test_beside_known_tokens_the_error_falls_to_nothing_without_replacement(preset):
    """As for the whole grid, what is left is that tokens of one step are drawn independently: 0.22 when hidden."""
    t = torch.arange(101).double() / 100
    schedule = {"masks": MaskReplaceSchedule(1 - t, t, num_codes=2), "released": MaskReplaceSchedule.released(2)}[
        preset
    ]
    errors = [conditional_error(ancestral, schedule, count) for count in (5, 10, 100)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.006
    for sampler in (HighQuality(most=1), Confident(most=1), Halton(most=1)):  # one token at a time
        assert conditional_error(sampler, schedule, 100) < 1e-5
    for sampler in (Corrector(0.1), SAMPLERS["reference"]):
        assert conditional_error(sampler, schedule, 100) < 0.01


def test_beside_known_tokens_replacement_leaves_an_error():
    """The denoiser takes visible tokens for doubtful at early times; a corrector that visits them again halves it."""
    schedule = MaskReplaceSchedule.paper(2)
    assert 0.05 < conditional_error(ancestral, schedule, 100) < 0.1
    assert conditional_error(Corrector(0.1), schedule, 100) < 0.05


# ------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize("preset", PRESETS)
def test_the_bound_is_never_under_the_likelihood_and_close_to_it(preset):
    """Per grid against the law of ancestral over all times, and on average against the entropy of the data."""
    schedule = {"released": MaskReplaceSchedule.released, "paper": MaskReplaceSchedule.paper}[preset](2, 50)
    joint = markov_chain(2, 3, 0.9)
    denoise = oracle(joint, schedule)
    found, law = bound(joint, denoise, schedule), outcome(ancestral, denoise, schedule, 3, range(50, -1, -1)).law
    assert bool((found >= -law.log() - 1e-9).all())
    entropy = -(joint * joint.log()).sum()
    assert 0 <= float((joint * found).sum() - entropy) < 0.2


def test_divergence_and_variation_of_two_laws():
    p, q = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.25, 0.25, 0.5]).double()
    assert total_variation(p, q) == 0.5 and total_variation(p, p) == 0.0
    assert divergence(p, q) == pytest.approx(torch.tensor(2.0).log().item())


# ------------------------------------------------------------------------------------------ the parts


def test_grids_are_counted_from_the_left():
    assert grids(3, 2).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]]
    assert numbers(grids(3, 4), 3).tolist() == list(range(81))
    with pytest.raises(ValueError, match="at most 200000 grids can be enumerated, got 4096\\^2"):
        grids(4096, 2)


def test_the_oracle_is_bayes():
    """Against the definition, spelled out for one noisy grid."""
    schedule, joint = SMALL["paper"], uneven_joint()
    x_t = torch.tensor([[3, 1, 0]])
    q = q_log_probs(torch.arange(3)[None], 5, schedule, dtype=torch.float64)[0].exp()  # [x_0, x_t]
    weight = torch.stack([joint[n] * q[a, 3] * q[b, 1] * q[c, 0] for n, (a, b, c) in enumerate(grids(3, 3).tolist())])
    expected = torch.stack([weight[grids(3, 3)[:, i] == k].sum() for i in range(3) for k in range(3)]).view(3, 3)
    assert_close(oracle(joint, schedule)(x_t, 5)[0].exp(), expected / weight.sum(), atol=1e-14, rtol=0)


def test_where_walks_begin():
    schedule = SMALL["paper"]
    law = prior(schedule, 2).view(4, 4)
    assert_close(law.sum(), torch.ones((), dtype=torch.float64))
    assert float(law[3, 3]) == pytest.approx(0.9**2, abs=1e-4)
    assert sure_of_masks(schedule, 2).nonzero().tolist() == [[15]]


def test_an_unknown_sampler_is_refused():
    def mine():
        pass

    with pytest.raises(NotImplementedError, match="mine does not state its distribution, it has no step_law"):
        outcome(mine, oracle(uneven_joint(), SMALL["paper"]), SMALL["paper"], 3, [8, 0])


class Sharper(Sampler):
    """A sampler of a user's own: as the example of the base class, with one that is not in this package."""

    def step(self, log_p_x0, x_t, t, s, schedule, *, generator=None):
        return p_sample_step(2 * log_p_x0, x_t, t, schedule, s=s, generator=generator)

    def step_law(self, log_p_x0, x_t, t, s, schedule):
        return q_posterior((2 * log_p_x0).log_softmax(-1), x_t, t, schedule, s=s).exp()


def test_a_sampler_of_ones_own_is_measured_by_its_step_law():
    """What it draws has the distribution that `outcome` finds, which is not that of `ancestral`."""
    schedule, joint, times = SMALL["paper"], uneven_joint(), [8, 5, 2, 0]
    denoise = oracle(joint, schedule)
    law, evaluations = outcome(Sharper(), denoise, schedule, 3, times)
    assert evaluations == 3
    assert chi_square_p_value(draws(Sharper(), denoise, schedule, times), law) > FALSE_ALARM
    assert total_variation(law, outcome(ancestral, denoise, schedule, 3, times).law) > 0.05


def test_a_function_with_a_step_law_is_a_sampler_too():
    """With the defaults of the base class; a joint distribution over states does as well as independent positions."""
    schedule, denoise = SMALL["paper"], oracle(uneven_joint(), SMALL["paper"])

    def mine(denoise, x_t, schedule, times, *, generator=None, on_step=None):
        return ancestral(denoise, x_t, schedule, times, generator=generator, on_step=on_step)

    def joint_law(log_p, x_t, t, s, schedule):
        return joint_of(ancestral.step_law(log_p, x_t, t, s, schedule))

    mine.step_law = joint_law
    found = outcome(mine, denoise, schedule, 3, [8, 4, 0])
    assert_close(found.law, outcome(ancestral, denoise, schedule, 3, [8, 4, 0]).law, atol=1e-14, rtol=0)
    assert as_sampler(mine).times(schedule, 2) == [8, 4, 0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda law: law.log(), "sum to 1.*are they logs"),
        (lambda law: law[..., :-1], r"step_law must give \[\d+, 3, 4\]"),
        (lambda law: law / 2, "sum of 0.5"),
    ],
)
def test_what_is_no_distribution_is_refused(wrong, message):
    class Mine(Sampler):
        def step_law(self, log_p_x0, x_t, t, s, schedule):
            return wrong(ancestral.step_law(log_p_x0, x_t, t, s, schedule))

    with pytest.raises(ValueError, match=message):
        outcome(Mine(), oracle(uneven_joint(), SMALL["paper"]), SMALL["paper"], 3, [8, 0])


def test_what_is_not_callable_is_no_sampler():
    with pytest.raises(TypeError, match="a sampler must be a callable with the signature of ancestral, got 3"):
        as_sampler(3)
    with pytest.raises(NotImplementedError, match="Sampler defines neither __call__ nor step"):
        Sampler()(oracle(uneven_joint(), SMALL["paper"]), torch.full((1, 3), 3), SMALL["paper"], [8, 0])
