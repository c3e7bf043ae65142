"""The denoiser's own walks, taken while it learns."""

import torch

from vqlearn import MaskReplaceSchedule, scenes, strided_times
from vqlearn.walks import FIRST, STEPS, Walks

SCHEDULE = MaskReplaceSchedule.paper(num_codes=8)


def certain(code, count=4, length=6):
    return torch.full((count, length, 8), -torch.inf).index_fill(-1, torch.tensor(code), 0.0)


def test_each_walk_keeps_to_its_own_times_and_ends_where_nothing_is_left_to_learn(seeded):
    walks, generator = Walks(4, 6, SCHEDULE, seeded(0)), seeded(1)
    assert walks.captions() == [scenes.sample("train", FIRST + number)[1] for number in range(4)]
    plans = [strided_times(100, steps) for steps in STEPS]
    for k in range(7):  # the first, of ten steps, is at 30 then
        assert walks.times().tolist() == [plan[k] for plan in plans]
        walks.advance(certain(3), generator)
    assert walks.number.tolist() == [4, 1, 2, 3] and walks.taken.tolist() == [0, 7, 7, 7]
    assert walks.times().tolist() == [100, *(plan[7] for plan in plans[1:])]
    assert float((walks.x_t[0] == 8).float().mean()) > 0.5  # a new one begins from noise


def test_walks_follow_the_belief(seeded):
    """Sure of code 3, they hold it where the schedule keeps a token, and masks or other codes elsewhere (6 sigma)."""
    walks, generator = Walks(400, 6, SCHEDULE, seeded(0)), seeded(1)
    for _ in range(5):
        walks.advance(certain(3, count=400), generator)
    for row, steps in enumerate(STEPS):
        t = strided_times(100, steps)[5]
        share = float((walks.x_t[row::4] == 3).double().mean())
        expected = float(SCHEDULE.alpha_bar[t] + SCHEDULE.beta_bar[t])
        assert abs(share - expected) < 6 * (expected * (1 - expected) / 600) ** 0.5


def test_walks_that_end_together_get_captions_of_their_own(seeded):
    walks = Walks(4, 6, SCHEDULE, seeded(0))
    walks.number = torch.tensor([0, 4, 8, 1])  # three of ten steps
    for _ in range(7):
        walks.advance(certain(0), seeded(2))
    assert sorted(walks.number.tolist()) == [1, 9, 10, 11]


def test_a_saved_walk_goes_on_as_it_would_have(seeded):
    walks, twin = Walks(4, 6, SCHEDULE, seeded(0)), Walks(4, 6, SCHEDULE, seeded(5))
    for step in range(12):
        walks.advance(certain(1), seeded(step))
    twin.load_state_dict(walks.state_dict())
    for step in range(12, 40):
        for one in (walks, twin):
            one.advance(certain(2), seeded(step))
    assert torch.equal(walks.x_t, twin.x_t) and walks.captions() == twin.captions()
