"""Samplers that decide where to write: their distribution, and what the original code's rules do with 1024 tokens."""

import json
import math

import numpy as np
import pytest
import torch
from oracle import FALSE_ALARM, chi_square_p_value

from vqlearn import MaskReplaceSchedule, strided_times
from vqlearn.choices import Choice, halton_order, write, written
from vqlearn.exactness.enumeration import grids, numbers
from vqlearn.unmasking import (
    Confident,
    EntropyBounded,
    Halton,
    HighQuality,
    Purity,
    entropy,
    per_call,
    time_of_share,
)

L = 1024


@pytest.fixture(scope="module")
def original(data):
    folder = data / "original"
    return np.load(folder / "sampling.npz"), json.loads((folder / "sampling.json").read_text())


def mock(x_t, t):
    """The original's mock network: at masks a table of high (even) and low (odd) purity, elsewhere trust."""
    table = torch.full((L, 8), 0.1 / 7)
    table[1::2] = 0.7 / 7
    table[torch.arange(L), torch.arange(L) // 2 % 8] = torch.tensor([0.9, 0.3]).repeat(L // 2)
    seen = torch.full((8, 8), 1e-4 / 7).fill_diagonal_(0.9999)
    masked = (x_t == 8)[..., None]
    return torch.where(masked, table, seen[x_t.clamp(max=7)]).log()


RUNS = {
    "rule1_w0_T100": HighQuality(),
    "rule2_w0_T100": Purity(weight=0.0),
    "rule2_w1_T100": Purity(weight=1.0),
    "rule1_speed0.5_T100": HighQuality(most=5),
    "rule2_w1_speed0.5_T100": Purity(weight=1.0, most=5),
    "rule1_w0_T50": HighQuality(),
    "rule2_w1_T25": Purity(weight=1.0),
    "rule1_w0_T10": HighQuality(),
}


@pytest.mark.parametrize("run", RUNS)
def test_with_the_original_table_it_does_what_the_original_does(run, original, seeded):
    """Masks and evaluations per step exactly; how many pure positions are left, and drawn classes, within 5 sigma."""
    arrays, summary = original
    steps, settings = int(run.rpartition("_T")[2]), summary[run]
    table = arrays[f"n_sample.T{steps}_ps{10 if settings['prior_ps'] <= 10 else 1024}"]
    sampler = type(RUNS[run])(**{**vars(RUNS[run]), "quota": tuple(table[:0:-1].tolist())})
    schedule, batch = MaskReplaceSchedule.released(8, steps), 8
    calls, masks, pure = [], [], []

    def denoise(x_t, t):
        calls.append(t)
        return mock(x_t, t)

    def on_step(number, s, x_s):
        masks.append((x_s == 8).sum(-1))
        pure.append((x_s == 8)[:, ::2].sum(-1).double())

    x_T = sampler.start(schedule, batch, L)
    x_0 = sampler(denoise, x_T, schedule, range(steps, -1, -1), generator=seeded(0), on_step=on_step)
    assert [int(row.unique()) for row in masks] == arrays[f"{run}.masked_mean"].astype(int).tolist()
    assert np.bincount(calls, minlength=steps + 1)[:0:-1].tolist() == arrays[f"{run}.calls"].astype(int).tolist()
    half = len(pure) // 2
    expected = arrays[f"{run}.masked_high_purity_mean"][half]
    sigma = math.sqrt(max(1.0, expected / 2) / batch)  # drawn without replacement: less than binomial
    assert abs(float(pure[half].mean()) - expected) < 5 * sigma
    top = (x_0 == torch.arange(L) // 2 % 8).double()
    for first, name in ((0, "high"), (1, "low")):
        share = float(top[:, first::2].mean())
        p = summary[run][f"top_class_{name}"]
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / (batch * L / 2)) + 5e-4


@pytest.mark.parametrize("sampler", [HighQuality(), Purity(), Confident(), Halton(), HighQuality(most=3)], ids=repr)
@pytest.mark.parametrize("length, steps", [(64, 100), (64, 7), (17, 10), (1, 3)])
@pytest.mark.parametrize("preset", ["paper", "released"])
def test_any_length_and_any_number_of_steps(sampler, length, steps, preset, seeded):
    schedule = getattr(MaskReplaceSchedule, preset)(6, 100)
    left, calls, times = [], [0], strided_times(100, steps)

    def denoise(x_t, t):
        calls[0] += 1
        return torch.zeros(*x_t.shape, 6).log_softmax(-1)

    x_T = sampler.start(schedule, 3, length)
    x_0 = sampler(denoise, x_T, schedule, times, generator=seeded(1),
                  on_step=lambda number, s, x_s: left.append((x_s == 6).sum(-1).tolist()))  # fmt: skip
    assert x_0.shape == (3, length) and int(x_0.max()) < 6
    asked = [round(length * float(schedule.gamma_bar[s] / schedule.gamma_bar[-1]) + 1e-9) for s in times[1:]]
    assert all(abs(a - b) <= 1 for row, b in zip(left, asked, strict=True) for a in row) and left[-1] == [0, 0, 0]
    assert calls[0] <= (steps if sampler.most is None else steps + length)


@pytest.mark.parametrize("at_random", [True, False])
def test_writing_has_its_exact_distribution(at_random):
    """Which positions are drawn without replacement, and what is written there: 40 000 draws against enumeration."""
    schedule = MaskReplaceSchedule.paper(2, 10)
    generator = torch.Generator().manual_seed(3)
    x_t = torch.tensor([[2, 0, 2, 2]])
    choice = Choice(
        torch.tensor([[0.3, 9.0, 1.2, -0.4]]).double(), torch.randn(1, 4, 2, generator=generator).double(), at_random
    )
    many, count = 40_000, torch.tensor([2])
    p = written(choice, x_t, count, schedule.mask_id)[0]
    assert abs(float(p.sum()) - 1) < 1e-12
    repeated = Choice(choice.log_weight.expand(many, -1), choice.log_p.expand(many, -1, -1), at_random)
    drawn = write(repeated, x_t.expand(many, -1), count.expand(many), 2, generator)
    assert chi_square_p_value(numbers(drawn, 3), p) > FALSE_ALARM
    assert (grids(3, 4)[p > 0][:, 1] == 0).all()  # a visible token is left alone


def test_evaluations_of_a_step_leave_no_single_token():
    for ask, most, expected in [
        (11, 5, [5, 6]),
        (10, 5, [5, 5]),
        (6, 5, [6]),
        (1, 5, [1]),
        (13, 5, [5, 5, 3]),
        (4, None, [4]),
    ]:
        left, calls = torch.tensor([ask]), []
        while int(left):
            calls.append(int(per_call(left, most)))
            left = left - calls[-1]
        assert calls == expected


@pytest.mark.parametrize("length", [1, 4, 6, 49, 64, 1024])
def test_halton_order_visits_every_position_once_and_spreads(length):
    order = halton_order(length)
    assert sorted(order.tolist()) == list(range(length))
    if length == 1024:
        first = torch.stack([order[:64] // 32, order[:64] % 32], -1).double()
        rows = torch.stack([torch.arange(64) // 32, torch.arange(64) % 32], -1).double()

        def nearest(points):
            return (torch.cdist(points, points) + 99 * torch.eye(64)).min(-1)[0].mean()

        assert nearest(first) > 2 * nearest(rows)


def test_the_entropy_bound_decides_the_number_of_evaluations(seeded):
    schedule, times = MaskReplaceSchedule.released(4, 100), strided_times(100, 25)

    def evaluations(p, bound):
        calls = [0]

        def denoise(x_t, t):
            calls[0] += 1
            return p.expand(2, 16, 4).log()

        x_0 = EntropyBounded(bound)(denoise, torch.full((2, 16), 4), schedule, times, generator=seeded(0))
        assert int(x_0.max()) < 4
        return calls[0]

    sure, unsure = torch.tensor([0.9997, 0.0001, 0.0001, 0.0001]), torch.full((4,), 0.25)
    assert evaluations(sure, 0.5) == 1  # 16 positions of 0.003 nats
    assert evaluations(unsure, 0.5) == 16  # one at a time
    assert evaluations(unsure, 2.9) == 6  # three at a time: two of 1.386 nats do not exceed the bound
    assert evaluations(unsure, 0.5) <= len(times) - 1


def test_entropy_of_certainty_is_zero_and_not_nan():
    log_p = torch.tensor([[[0.0, -torch.inf], [math.log(0.5), math.log(0.5)]]])
    torch.testing.assert_close(entropy(log_p), torch.tensor([[0.0, math.log(2)]]))


def test_a_quota_of_wrong_length_is_named():
    schedule = MaskReplaceSchedule.released(8, 10)
    with pytest.raises(ValueError, match="quota must name 9 numbers of tokens"):
        HighQuality(quota=(1, 2))(mock, torch.full((1, L), 8), schedule, range(10, -1, -1))


# ------------------------------------------------------------------------------------------ rules, by hand

P = torch.tensor([[[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.9, 0.05, 0.05], [0.4, 0.35, 0.25]]]).double()  # [1, 4, 3]
MASKED = torch.tensor([[3, 3, 1, 3]])  # the third is visible


def written_first(sampler, count: int) -> list[int]:
    """The positions that a rule without chance writes first, drawn by the sampler's own parts."""
    choice = sampler.choose(P.log(), MASKED)
    assert not choice.at_random
    after = write(choice, MASKED, torch.tensor([count]), 3, torch.Generator().manual_seed(0))
    return ((after != 3) & (MASKED == 3))[0].nonzero()[:, 0].tolist()


def test_confident_writes_the_largest_probability_first():
    """0.6, then 0.5, then 0.4; the visible 0.9 does not count."""
    assert [written_first(Confident(), count) for count in (1, 2, 3)] == [[1], [0, 1], [0, 1, 3]]


def test_entropy_bounded_writes_the_smallest_entropy_first():
    """0.673, 1.030 and 1.081 nats, by the sum of -p log p written out."""
    by_hand = [-sum(p * math.log(p) for p in row if p) for row in P[0].tolist()]
    assert sorted((0, 1, 3), key=lambda k: by_hand[k]) == [1, 0, 3]
    assert [written_first(EntropyBounded(), count) for count in (1, 2, 3)] == [[1], [0, 1], [0, 1, 3]]
    torch.testing.assert_close(entropy(P.log()), torch.tensor([by_hand]).double())


@pytest.mark.parametrize(("bound", "expected"), [(0.0, 1), (0.67, 1), (0.68, 2), (1.70, 2), (1.71, 3), (9.0, 3)])
def test_so_many_positions_as_all_but_the_largest_entropy_allow(bound, expected):
    """0.673 alone is free; the second costs 0.673, the third 0.673 + 1.030 = 1.703 nats."""
    assert EntropyBounded(bound).count(P.log(), MASKED == 3).tolist() == [expected]


def test_purity_prefers_and_sharpens_by_the_largest_probability():
    """Weights 0.5, 0.6, 0.9, 0.4 as they are, and powers 1 + weight * p / 0.9, the purest of the picture being 0.9."""
    for weight in (0.0, 1.0, 0.5):
        choice = Purity(weight).choose(P.log(), MASKED)
        assert choice.at_random
        torch.testing.assert_close(choice.log_weight.exp(), torch.tensor([[0.5, 0.6, 0.9, 0.4]]).double())
        power = 1 + weight * torch.tensor([[0.5, 0.6, 0.9, 0.4]]).double() / 0.9
        torch.testing.assert_close(choice.log_p.exp(), P ** power[..., None])


def test_high_quality_prefers_no_position():
    choice = HighQuality().choose(P.log(), MASKED)
    assert choice.at_random and choice.log_weight.tolist() == [[0.0] * 4] and torch.equal(choice.log_p, P.log())


def test_halton_order_of_a_small_grid_by_hand():
    """Base 2 gives the column, base 3 the row: 1/2 1/3, 1/4 2/3, 3/4 1/9, 1/8 4/9, 5/8 7/9 ... on a grid of 4 x 4."""
    points = [(1 / 2, 1 / 3), (1 / 4, 2 / 3), (3 / 4, 1 / 9), (1 / 8, 4 / 9), (5 / 8, 7 / 9), (3 / 8, 2 / 9)]
    by_hand = [int(row * 4) * 4 + int(column * 4) for column, row in points]
    assert halton_order(16)[:6].tolist() == by_hand == [6, 9, 3, 4, 14, 1]
    assert halton_order(5)[:3].tolist() == [2, 1, 3]  # a single row: 5/2, 5/4, 15/4
    assert [written_first(Halton(), count) for count in (1, 2)] == [[1], [0, 1]]  # 2 x 2: 1, 2 (visible), then 0, 3
    assert halton_order(4).tolist() == [1, 2, 0, 3]


def test_the_time_of_a_share_is_the_first_that_reaches_it():
    """Masking alone in ten even steps: a share of 0.31 of the masks has appeared at t = 4, of exactly 0.3 at 3."""
    t = torch.arange(11).double() / 10
    schedule = MaskReplaceSchedule(1 - t, t, num_codes=3)
    found = [time_of_share(share, schedule, 10) for share in (0.05, 0.3, 0.31, 1.0)]
    assert found == [1, 3, 4, 10] and time_of_share(0.9, schedule, 6) == 6
