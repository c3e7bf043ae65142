"""The exactness lab: the published tables to their last digit, and every sampler against its exact distribution."""

import functools
import math

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
from vqlearn.guidance import keep_known
from vqlearn.keeping import Keeping, denoiser_times
from vqlearn.reverse import as_sampler
from vqlearn.sampling import Corrector, first_hitting, official_fast, official_times, prior_sample
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
SKIPS = {1: ("0.0164", "0.0566"), 3: ("0.0509", "0.0804"), 9: ("0.2494", "0.2144")}  # 51, 26 and 11 evaluations
ENDS = {0: ("0.0096", "0.0935"), 0.05: ("0.0061", "0.0647"), 0.1: ("0.0054", "0.0579"),
        0.3: ("0.0046", "0.0530"), 0.5: ("0.0048", "0.0572"), 1: ("0.0058", "0.0701")}  # fmt: skip


@pytest.mark.parametrize("count", STRIDED)
def test_the_table_of_exact_strides_to_its_last_digit(lab, count):
    assert tuple(f"{lab[2](ancestral, preset, count):.4f}" for preset in PRESETS) == STRIDED[count]


@pytest.mark.parametrize("skip", SKIPS)
def test_the_table_of_the_public_codes_skip_to_its_last_digit(lab, skip):
    """The table began its runs at the last time's shares as the public code has them, which do not sum to 1."""
    joint, perfect, _ = lab
    found = []
    for preset, schedule in PRESETS.items():
        shares = torch.cat([schedule.beta_bar[-1].expand(K), schedule.gamma_bar[-1:]])
        one = shares / shares.sum()
        start = functools.reduce(lambda p, _: (p[:, None] * one).flatten(), range(L - 1), one)
        p = outcome(official_fast, perfect[preset], schedule, L, official_times(100, skip), start=start).law
        found.append(f"{total_variation(p, joint):.4f}")
    assert tuple(found) == SKIPS[skip]


@pytest.mark.parametrize("share", ENDS)
def test_the_row_of_the_final_uniform_share_to_its_last_digit(lab, share):
    gamma_end = max(0.99999 - share, 0.000009) if share else 0.99999
    schedule = MaskReplaceSchedule.from_ends(num_codes=K, gamma_end=gamma_end)
    denoise = oracle(lab[0], schedule)
    found = (outcome(ancestral, denoise, schedule, L, strided_times(100, count)).law for count in (100, 10))
    assert tuple(f"{total_variation(p, lab[0]):.4f}" for p in found) == ENDS[share]


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
    assert error(official_fast, "released", 1) < error(ancestral, "released", 51)  # the one case in which the skip wins
    order = [Corrector(0.1), ancestral, HighQuality(), Purity(0.0), Halton(), Confident(), Purity(1.0)]
    at = [error(sampler, "paper", 10) for sampler in order]
    assert at == sorted(at)


# ------------------------------------------------------------------------------------------ samplers and what they draw

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
def test_what_a_sampler_draws_has_the_enumerated_distribution(sampler, times):
    """20 000 grids each, chi-square over all 27: a right distribution fails with probability 1e-6."""
    schedule, joint = SMALL["paper"], uneven_joint()
    denoise = oracle(joint, schedule)
    p, calls = outcome(sampler, denoise, schedule, 3, times)
    assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    assert calls <= len(times) - 1 or sampler == HighQuality(most=1)
    assert chi_square_p_value(draws(sampler, denoise, schedule, times), p) > FALSE_ALARM


def test_what_is_finished_is_evaluated_no_more():
    """A bound beyond every entropy lets all tokens be drawn at the first of four evaluations."""
    denoise = oracle(uneven_joint(), SMALL["paper"])
    assert outcome(EntropyBounded(100.0), denoise, SMALL["paper"], 3, [8, 6, 4, 2, 0]).calls == pytest.approx(1)
    assert outcome(EntropyBounded(0.1), denoise, SMALL["paper"], 3, [8, 6, 4, 2, 0]).calls > 2


@pytest.mark.parametrize("times", [[8, 5, 2, 0], range(8, -1, -1)], ids=["three", "all"])
def test_first_hitting_has_the_distribution_of_ancestral_under_masking_alone(times):
    joint = uneven_joint()
    denoise = oracle(joint, MASK_ONLY)
    p = outcome(ancestral, denoise, MASK_ONLY, 3, times).law
    assert chi_square_p_value(draws(first_hitting, denoise, MASK_ONLY, times), p) > FALSE_ALARM


CHANGES = {
    "guided": lambda given, null: guide(given, null, 2.5),
    "truncated": lambda given, null: truncate(given, 0.6),
    "top-1": lambda given, null: top_k(given, 1),
    "guided, then truncated": lambda given, null: truncate(guide(given, null, 2.5), 0.6),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sampler", [ancestral, Corrector(0.3), Purity(1.0), Confident()], ids=repr)
def test_guidance_and_truncation_go_through_the_lab(sampler, change):
    schedule = SMALL["paper"]
    given, null = oracle(uneven_joint(), schedule), oracle(torch.full((27,), 1 / 27, dtype=torch.float64), schedule)
    denoise = lambda x_t, t: CHANGES[change](given(x_t, t), null(x_t, t))  # noqa: E731
    p = outcome(sampler, denoise, schedule, 3, [8, 5, 2, 0]).law
    assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    assert chi_square_p_value(draws(sampler, denoise, schedule, [8, 5, 2, 0]), p) > FALSE_ALARM


@pytest.mark.parametrize("renew", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("preset", SMALL)
def test_the_corrector_leaves_the_marginals_intact(preset, renew):
    """Runs that know x_0, begun at q(x_T | x_0): at every s x_s is distributed as q(x_s | x_0) (chi-square, 1e-6)."""
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
        p = q_log_probs(x_0[:1], s, schedule, dtype=torch.float64)[0].exp()
        for position in range(3):
            assert chi_square_p_value(seen[s][:, position], p[position]) > FALSE_ALARM


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


@functools.cache
def conditional(preset):
    """The chain's ideal denoiser, and its distribution given the known tokens."""
    x_0, known = KNOWN
    joint = markov_chain(2, 5, 0.9)
    truth = joint * ((grids(2, 5) == x_0) | ~known).all(-1)
    return oracle(joint, BESIDE[preset]), truth / truth.sum()


def conditional_error(sampler, preset, count, **more):
    """Total variation between what a sampler draws beside known tokens and the conditional distribution of the data."""
    denoise, truth = conditional(preset)
    p = outcome(Keeping(sampler, *KNOWN, **more), denoise, BESIDE[preset], 5, strided_times(100, count)).law
    return total_variation(p, truth)


EVEN = torch.arange(101).double() / 100
BESIDE = {
    "paper": MaskReplaceSchedule.paper(2),
    "released": MaskReplaceSchedule.released(2),
    "masks": MaskReplaceSchedule(1 - EVEN, EVEN, num_codes=2),
    "mostly replaced": MaskReplaceSchedule.from_ends(num_codes=2, gamma_end=0.2),
}
INDEPENDENT = [ancestral, Corrector(0.1), first_hitting, SAMPLERS["reference"]]
ONE_BY_ONE = [HighQuality(most=1), Purity(0.0, most=1), Confident(most=1), Halton(most=1)]


@pytest.mark.parametrize("preset", BESIDE)
def test_beside_known_tokens_the_error_falls_with_the_steps(preset):
    """At times without doubt the conditional is exact: what is left is that tokens of one step are independent, O(1/N).

    It was 0.22 while known tokens were noised, and 0.09 with replacement while the denoiser doubted them.
    """
    for sampler in INDEPENDENT:
        coarse, fine = (conditional_error(sampler, preset, n, surprise=math.inf) for n in (4, 16))
        assert fine < 0.35 * coarse and fine < 0.025
    for sampler in ONE_BY_ONE:
        assert conditional_error(sampler, preset, 10, surprise=math.inf) < 2e-5


def test_beside_known_tokens_with_every_step():
    """And so it is at the times where a trained network is at home, under the paper's schedule: 0.09 until then."""
    assert conditional_error(ancestral, "paper", 100, surprise=math.inf) < 0.0035
    assert conditional_error(ancestral, "paper", 100) < 0.0035
    for sampler in [*INDEPENDENT, *ONE_BY_ONE]:
        assert conditional_error(sampler, "paper", 25) < 0.015


def test_a_known_token_is_not_doubted_in_an_early_evaluation():
    """Evaluated at t itself, as in a run of the schedule, an ideal denoiser of the paper's errs by more than 0.04."""
    (x_0, known), (denoise, truth) = KNOWN, conditional("paper")
    schedule = BESIDE["paper"]
    first = torch.where(known[0, :, None], torch.eye(3).double()[x_0[0]], schedule.prior())
    certain = lambda x_t, t: keep_known(denoise(torch.where(known, x_0, x_t), t), x_0, known)  # noqa: E731
    p = outcome(ancestral, certain, schedule, 5, range(100, -1, -1), start=joint_of(first[None])[0]).law
    assert 0.04 < total_variation(p, truth) < 0.1


@pytest.mark.parametrize("sampler", [*INDEPENDENT, *ONE_BY_ONE, "entropy_bounded", "official_fast"], ids=str)
def test_what_is_drawn_beside_known_tokens_has_the_enumerated_distribution(sampler):
    """20 000 grids, chi-square over all 32 (1e-6); known tokens come back as they are."""
    schedule, kept = BESIDE["paper"], Keeping(sampler, *KNOWN)
    times, generator = [100, 60, 30, 0], torch.Generator().manual_seed(2)
    p = outcome(kept, conditional("paper")[0], schedule, 5, times).law
    x_T = kept.start(schedule, 20_000, 5, generator=generator)
    x_0 = kept(conditional("paper")[0], x_T, schedule, times, generator=generator)
    assert bool(((x_0 == KNOWN[0]) | ~KNOWN[1]).all())
    assert chi_square_p_value(numbers(x_0, 2), p) > FALSE_ALARM


def test_known_tokens_differ_from_picture_to_picture():
    """In a batch of two kinds of pictures each kind has its own conditional distribution."""
    x_0 = torch.tensor([[0, 1, 0, 0, 1], [1, 1, 0, 0, 0]]).repeat(10_000, 1)
    known = torch.tensor([[True, False, False, False, True], [True, True, False, False, False]]).repeat(10_000, 1)
    joint, schedule = markov_chain(2, 5, 0.9), BESIDE["paper"]
    kept, generator = Keeping(HighQuality(most=1), x_0, known, surprise=math.inf), torch.Generator().manual_seed(4)
    x_T = kept.start(schedule, 20_000, 5, generator=generator)
    found = kept(conditional("paper")[0], x_T, schedule, strided_times(100, 20), generator=generator)
    for kind in (0, 1):
        truth = joint * ((grids(2, 5) == x_0[kind]) | ~known[kind]).all(-1)
        assert chi_square_p_value(numbers(found[kind::2], 2), truth + 1e-6) > FALSE_ALARM


SHARES = torch.tensor([[1.0, 0.0, 0.6, 0.0, 0.3]])  # of the run for which the tokens of 0, ., 0, ., 1 are kept


def released_distribution(schedule):
    """From the definition: what is held conditions; at t = 70 all that is free by then is masked at random, at 40 what
    was masked and is still, and what is free since; each time the masked tokens are drawn given all others."""
    joint, states = markov_chain(2, 5, 0.9), grids(2, 5)
    fixed = joint * ((states == KNOWN[0]) | (SHARES == 0)).all(-1)
    at_70, at_40 = (float(1 - schedule.alpha_bar[t]) for t in (70, 40))
    masked = torch.where(SHARES[0] < 0.5, at_70, 0.0)  # the probability of each position
    p = torch.zeros(32).double()
    for first in grids(2, 5).bool():
        then = torch.where(SHARES[0] < 0.5, first * at_40 / at_70, torch.where(SHARES[0] < 1, at_40, 0.0))
        for second in grids(2, 5).bool():
            share = torch.where(first, masked, 1 - masked).prod() * torch.where(second, then, 1 - then).prod()
            if share > 0:
                p += float(share) * (fixed / fixed.sum() @ drawn_anew(first) @ drawn_anew(second))
    return p


def drawn_anew(pattern):
    """Clean grids to those in which some positions are drawn anew given the others, `[from, to]`."""
    states, joint = grids(2, 5), markov_chain(2, 5, 0.9)
    rows = ((states[None] == states[:, None]) | pattern).all(-1) * joint
    return rows / rows.sum(-1, keepdim=True)


@pytest.mark.parametrize("preset", ["paper", "masks"])
def test_tokens_that_are_released_during_the_run(preset):
    """Released at t = 40 and 70: the distribution of the definition, up to an error that falls with the steps."""
    schedule, denoise, truth = BESIDE[preset], conditional(preset)[0], released_distribution(BESIDE[preset])
    errors = []
    for count in (10, 40):
        kept = Keeping(ancestral, KNOWN[0], SHARES, surprise=math.inf)
        p = outcome(kept, denoise, schedule, 5, strided_times(100, count)).law
        errors.append(total_variation(p, truth))
    assert errors[1] < 0.35 * errors[0] and errors[1] < 0.015


@pytest.mark.parametrize("sampler", [*ONE_BY_ONE, "entropy_bounded"], ids=str)
def test_samplers_that_count_masks_go_through_releases_too(sampler):
    """How many masks a release leaves is random, so they state no distribution; what is kept to the end stays."""
    kept, denoise = Keeping(sampler, KNOWN[0], SHARES), conditional("paper")[0]
    x_0 = kept(
        denoise,
        torch.full((500, 5), 2),
        BESIDE["paper"],
        strided_times(100, 10),
        generator=torch.Generator().manual_seed(6),
    )
    assert int(x_0.max()) < 2 and bool((x_0[:, 0] == 0).all()) and len(x_0[:, 4].unique()) == 2
    with pytest.raises(NotImplementedError, match="states no distribution"):
        outcome(kept, denoise, BESIDE["paper"], 5, strided_times(100, 10))


@pytest.mark.parametrize("sampler", [ancestral, Corrector(0.3), first_hitting, SAMPLERS["reference"]], ids=str)
def test_what_is_drawn_with_releases_has_the_enumerated_distribution(sampler):
    schedule, kept = BESIDE["paper"], Keeping(sampler, KNOWN[0], SHARES)
    times, generator, steps = [100, 80, 60, 30, 10, 0], torch.Generator().manual_seed(3), []
    p = outcome(kept, conditional("paper")[0], schedule, 5, times).law
    x_T = kept.start(schedule, 20_000, 5, generator=generator)
    x_0 = kept(conditional("paper")[0], x_T, schedule, times, generator=generator,
               on_step=lambda number, s, x_s: steps.append((number, s)))  # fmt: skip
    assert chi_square_p_value(numbers(x_0, 2), p) > FALSE_ALARM
    assert steps == [(0, 80), (1, 60), (2, 30), (3, 10), (4, 0)]


def test_all_tokens_kept_for_a_part_of_the_run_are_a_variation():
    """Noised together at t = 50 and drawn from there: the same distribution as that run alone."""
    schedule, denoise = BESIDE["masks"], conditional("masks")[0]
    kept = Keeping(ancestral, KNOWN[0], torch.full((5,), 0.5), surprise=math.inf)
    x_50 = joint_of(q_log_probs(KNOWN[0], 50, schedule, dtype=torch.float64).exp())[0]
    expected = outcome(ancestral, lambda x_t, t: denoise(x_t, 1), schedule, 5, [50, 20, 0], start=x_50).law
    assert_close(outcome(kept, denoise, schedule, 5, [100, 50, 20, 0]).law, expected, atol=1e-12, rtol=0)


def test_two_are_compared_as_objects_and_their_tensors_are_not():
    kept, other = (Keeping(ancestral, *KNOWN) for _ in range(2))
    assert kept == kept and kept != other and len({kept, other}) == 2


def test_shares_of_0_and_1_are_the_same_as_false_and_true():
    schedule, denoise = BESIDE["paper"], conditional("paper")[0]
    found = [Keeping(ancestral, KNOWN[0], known) for known in (KNOWN[1], KNOWN[1].double(), KNOWN[1][0].half())]
    first, second, third = (outcome(kept, denoise, schedule, 5, [100, 40, 0]).law for kept in found)
    assert torch.equal(first, second) and torch.equal(first, third)


def test_the_time_at_which_a_denoiser_is_evaluated():
    """Of 64 tokens 32 are masked: at home at t = 56 of the paper's schedule; 5 nats earlier; at the first of all."""
    paper, half = BESIDE["paper"], torch.tensor([0.5]).double()
    assert [denoiser_times(half, 64, paper, nats) for nats in (0.0, 5.0, math.inf)] == [[56], [36], [1]]
    at, earlier = (float(paper.gamma_bar[t]) for t in (36, 35))
    by_hand = [32 * math.log(0.25 / (gamma * (1 - gamma))) for gamma in (at, earlier)]  # 64 KL(1/2 || gamma)
    assert by_hand[0] <= 5.0 < by_hand[1]
    assert denoiser_times(half, 64, BESIDE["masks"], 5.0) == [50]  # there is no doubt: at home
    assert denoiser_times(half, 64, BESIDE["released"], 5.0) == [51]


@pytest.mark.parametrize(
    ("x_0", "known", "message"),
    [
        (KNOWN[0].int(), KNOWN[1], "x_0 must be int64 and known bool or floats, got torch.int32 and torch.bool"),
        (KNOWN[0], KNOWN[1].long(), "got torch.int64 and torch.int64"),
        (KNOWN[0], KNOWN[1][:, :4], r"known must be for the tokens of x_0, \[1, 5\], got \[1, 4\]"),
        (KNOWN[0].expand(2, 5), KNOWN[1].expand(3, 5), r"tokens of x_0, \[2, 5\], got \[3, 5\]"),
        (KNOWN[0], 1.5 * KNOWN[1], r"shares of the reverse process, numbers in \[0, 1\]"),
        (KNOWN[0], KNOWN[1] * math.nan, r"numbers in \[0, 1\]"),
        (KNOWN[0][None], KNOWN[1], r"x_0 must be \[L\] or \[B, L\], got \[1, 1, 5\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(x_0, known, message):
    with pytest.raises(ValueError, match=message):
        Keeping("ancestral", x_0, known)


def test_what_cannot_be_kept_in_this_run_is_refused():
    denoise, schedule = conditional("paper")[0], BESIDE["paper"]
    with pytest.raises(ValueError, match=r"x_0 must hold codes 0 ... 1 where it is known, got values from 0 to 2"):
        Keeping("halton", torch.full((5,), 2), KNOWN[1])(denoise, torch.full((1, 5), 2), schedule, [100, 0])
    with pytest.raises(ValueError, match=r"x_0 and known must be for tokens \[3, 5\]"):
        Keeping("halton", KNOWN[0].expand(2, 5), KNOWN[1]).start(schedule, 3, 5)
    with pytest.raises(ValueError, match="sampler must be one of ancestral"):
        Keeping("nonesuch", *KNOWN)
    with pytest.raises(TypeError, match="known must be a tensor"):
        Keeping("halton", KNOWN[0], [True])
    assert [Keeping("halton", *KNOWN, surprise=fine).surprise for fine in (0, 0.5, math.inf)] == [0, 0.5, math.inf]
    for wrong in (-1.0, -1e-9, math.nan, "5", True):
        with pytest.raises(ValueError, match="surprise must be a number of at least 0"):
            Keeping("halton", *KNOWN, surprise=wrong)
    nothing_known = Keeping("halton", torch.full((5,), 7), torch.zeros(5, dtype=torch.bool))  # x_0 is not looked at
    assert int(nothing_known(denoise, torch.full((1, 5), 2), schedule, [100, 0]).max()) < 2


REPLACED = {
    "presets": MaskReplaceSchedule.from_ends(num_codes=2, gamma_start=0.0, gamma_end=0.0),  # r_1 is 1e-5
    "even": MaskReplaceSchedule(1 - EVEN, 0 * EVEN, num_codes=2),  # and here 0.0101
}


@pytest.mark.parametrize("sampler", [ancestral, Corrector(0.5), SAMPLERS["reference"]], ids=repr)
@pytest.mark.parametrize("name", REPLACED)
def test_without_masks_the_conditional_is_reached_up_to_the_odds_of_the_first_step(name, sampler):
    """Uniform replacement alone: what the run errs by, 0.18 by ancestral, is gone after some draws of each token."""
    schedule, joint = REPLACED[name], markov_chain(2, 5, 0.9)
    denoise, truth = oracle(joint, schedule), conditional("masks")[1]
    odds = float(2 * schedule.beta_bar[1] / schedule.alpha_bar[1])
    kept = Keeping(sampler, *KNOWN, surprise=math.inf)
    found = [outcome(kept, denoise, schedule, 5, strided_times(100, count)) for count in (4, 40)]
    assert [one.calls for one in found] == [8, 80]
    assert all(float(one.law[~((grids(2, 5) == KNOWN[0]) | ~KNOWN[1]).all(-1)].sum()) < 1e-12 for one in found)
    errors = [total_variation(one.law, truth) for one in found]
    assert errors[1] < 1.2 * odds + 1e-7 and errors[0] < 0.1
    usual = outcome(Keeping(sampler, *KNOWN), denoise, schedule, 5, strided_times(100, 40)).law
    assert total_variation(usual, truth) < 0.013  # evaluated at the first t with odds of exp(-5)


def test_without_masks_what_is_drawn_has_the_enumerated_distribution():
    schedule = REPLACED["even"]
    denoise, kept = oracle(markov_chain(2, 5, 0.9), schedule), Keeping("ancestral", *KNOWN)
    times, generator = strided_times(100, 5), torch.Generator().manual_seed(3)
    x_T = kept.start(schedule, 20_000, 5, generator=generator)
    drawn = kept(denoise, x_T, schedule, times, generator=generator)
    p = outcome(kept, denoise, schedule, 5, times).law
    assert bool(((drawn == KNOWN[0]) | ~KNOWN[1]).all())
    assert chi_square_p_value(numbers(drawn, 2), p) > FALSE_ALARM


def test_without_masks_each_picture_has_its_own_turns_and_tokens_known_for_a_part_keep_what_they_are():
    schedule = REPLACED["even"]
    known = torch.tensor([[1.0, 0, 0, 0.5, 1], [1.0, 1, 1, 1, 1], [0.0, 1, 0.2, 1, 1]])
    turns = [again for again, _ in Keeping("ancestral", KNOWN[0], known)._again(schedule, 3)]
    positions = [[row.nonzero()[:, 0].tolist() for row in again] for again in turns]
    assert positions == [[[1], [], [0]], [[2], [], [0]], [[1], [], [0]]]
    assert not [*Keeping("ancestral", *KNOWN)._again(BESIDE["paper"], 3)]
    with pytest.raises(ValueError, match="needs a schedule with masks"):
        Keeping("halton", *KNOWN)(conditional("masks")[0], torch.zeros(1, 5, dtype=torch.int64), schedule, [100, 0])


# ------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize("preset", PRESETS)
def test_the_bound_is_never_under_the_likelihood_and_close_to_it(preset):
    """Per grid against what ancestral draws over all times, and on average against the entropy of the data."""
    schedule = {"released": MaskReplaceSchedule.released, "paper": MaskReplaceSchedule.paper}[preset](2, 50)
    joint = markov_chain(2, 3, 0.9)
    denoise = oracle(joint, schedule)
    found, p = bound(joint, denoise, schedule), outcome(ancestral, denoise, schedule, 3, range(50, -1, -1)).law
    assert bool((found >= -p.log() - 1e-9).all())
    entropy = -(joint * joint.log()).sum()
    assert 0 <= float((joint * found).sum() - entropy) < 0.2


def test_divergence_and_variation_of_two_distributions():
    p, q = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.25, 0.25, 0.5]).double()
    assert total_variation(p, q) == 0.5 and total_variation(p, p) == 0.0
    assert divergence(p, q) == pytest.approx(torch.tensor(2.0).log().item())


# ------------------------------------------------------------------------------------------ the parts


def test_grids_are_counted_from_the_left():
    assert grids(3, 2).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]]
    assert numbers(grids(3, 4), 3).tolist() == list(range(81))
    assert len(grids(200_000, 1)) == 200_000
    for base, length in ((4096, 2), (200_001, 1)):
        with pytest.raises(ValueError, match=f"at most 200000 grids can be enumerated, got {base}\\^{length}"):
            grids(base, length)


def test_the_oracle_is_bayes():
    """Against the definition, spelled out for one noisy grid."""
    schedule, joint = SMALL["paper"], uneven_joint()
    x_t = torch.tensor([[3, 1, 0]])
    q = q_log_probs(torch.arange(3)[None], 5, schedule, dtype=torch.float64)[0].exp()  # [x_0, x_t]
    weight = torch.stack([joint[n] * q[a, 3] * q[b, 1] * q[c, 0] for n, (a, b, c) in enumerate(grids(3, 3).tolist())])
    expected = torch.stack([weight[grids(3, 3)[:, i] == k].sum() for i in range(3) for k in range(3)]).view(3, 3)
    assert_close(oracle(joint, schedule)(x_t, 5)[0].exp(), expected / weight.sum(), atol=1e-14, rtol=0)


def test_the_distribution_of_the_first_state():
    schedule = SMALL["paper"]
    p = prior(schedule, 2).view(4, 4)
    assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    assert float(p[3, 3]) == pytest.approx(0.9**2, abs=1e-4)
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
    p, evaluations = outcome(Sharper(), denoise, schedule, 3, times)
    assert evaluations == 3
    assert chi_square_p_value(draws(Sharper(), denoise, schedule, times), p) > FALSE_ALARM
    assert total_variation(p, outcome(ancestral, denoise, schedule, 3, times).law) > 0.05


def test_a_function_with_a_step_law_is_a_sampler_too():
    """With the defaults of the base class; a joint distribution over states does as well as independent positions."""
    schedule, denoise = SMALL["paper"], oracle(uneven_joint(), SMALL["paper"])

    def mine(denoise, x_t, schedule, times, *, generator=None, on_step=None):
        return ancestral(denoise, x_t, schedule, times, generator=generator, on_step=on_step)

    def joint_distribution(log_p, x_t, t, s, schedule):
        return joint_of(ancestral.step_law(log_p, x_t, t, s, schedule))

    mine.step_law = joint_distribution
    found = outcome(mine, denoise, schedule, 3, [8, 4, 0])
    assert_close(found.law, outcome(ancestral, denoise, schedule, 3, [8, 4, 0]).law, atol=1e-14, rtol=0)
    assert as_sampler(mine).times(schedule, 2) == [8, 4, 0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p: p.log(), "sum to 1.*are they logs"),
        (lambda p: p[..., :-1], r"step_law must give \[\d+, 3, 4\]"),
        (lambda p: p / 2, "sum of 0.5"),
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
    with pytest.raises(TypeError, match="a sampler must be a callable with the signature of ancestral, got <class"):
        Keeping(Halton, *KNOWN)
    with pytest.raises(NotImplementedError, match="Sampler defines neither __call__ nor step"):
        Sampler()(oracle(uneven_joint(), SMALL["paper"]), torch.full((1, 3), 3), SMALL["paper"], [8, 0])
