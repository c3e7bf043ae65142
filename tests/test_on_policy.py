"""States of the denoiser's own sampling trajectories."""

import pytest
import torch

from vqlearn import MaskReplaceSchedule, scenes
from vqlearn.data import layouts
from vqlearn.training import shipped
from vqlearn.training.on_policy import STEPS, Trajectories

SCHEDULE = MaskReplaceSchedule.paper(num_codes=8)


@pytest.fixture(scope="module")
def texts():
    return layouts.text_table(shipped.networks()["tokenizer"])


def certain(code, count=4, length=6):
    return torch.full((count, length, 8), -torch.inf).index_fill(-1, torch.tensor(code), 0.0)


def test_each_trajectory_keeps_to_its_own_times_to_the_end(seeded, texts):
    own, generator = Trajectories(4, 6, SCHEDULE, texts, seeded(0)), seeded(1)
    begun = own.ids.clone()
    plans = [list(range(100, -1, -100 // steps)) for steps in STEPS]  # even strides
    for k in range(10):
        assert own.times().tolist() == [plan[k] for plan in plans]
        own.advance(certain(3), generator)
    assert own.number.tolist() == [4, 1, 2, 3] and own.taken.tolist() == [0, 10, 10, 10]  # the first had ten steps
    assert own.times().tolist() == [100, *(plan[10] for plan in plans[1:])]
    assert float((own.x_t[0] == 8).float().mean()) > 0.5  # a new one begins from noise
    assert not torch.equal(own.ids[0], begun[0]) and torch.equal(own.ids[1:], begun[1:])


def test_they_follow_the_prediction(seeded, texts):
    """With a prediction certain of code 3, they hold it where the schedule keeps a token (6 standard errors)."""
    own, generator = Trajectories(400, 6, SCHEDULE, texts, seeded(0)), seeded(1)
    for _ in range(5):
        own.advance(certain(3, count=400), generator)
    for row, steps in enumerate(STEPS):
        t = 100 - 5 * (100 // steps)  # after five even strides
        share = float((own.x_t[row::4] == 3).double().mean())
        expected = float(SCHEDULE.alpha_bar[t] + SCHEDULE.beta_bar[t])
        assert abs(share - expected) < 6 * (expected * (1 - expected) / 600) ** 0.5


def test_those_that_end_together_get_captions_of_their_own(seeded, texts):
    own = Trajectories(4, 6, SCHEDULE, texts, seeded(0))
    own.number = torch.tensor([0, 4, 8, 1])  # three of ten steps
    for _ in range(10):
        own.advance(certain(0), seeded(2))
    assert sorted(own.number.tolist()) == [1, 9, 10, 11]
    assert len({tuple(row) for row in own.ids.tolist()}) == 4


def test_captions_and_claims_are_the_same_captions(seeded, texts):
    own = Trajectories(12, 6, SCHEDULE, texts, seeded(0))
    for step in range(60):
        own.advance(certain(0, 12), seeded(step))
    nouns = torch.isin(own.ids, texts.words[[layouts.WORDS.index(shape) for shape in scenes.SHAPES]]).sum(1)
    assert torch.equal(nouns, own.claims.objects)


def test_a_saved_trajectory_goes_on_as_it_would_have(seeded, texts):
    own, twin = Trajectories(4, 6, SCHEDULE, texts, seeded(0)), Trajectories(4, 6, SCHEDULE, texts, seeded(5))
    for step in range(12):
        own.advance(certain(1), seeded(step))
    twin.load_state_dict(own.state_dict())
    for step in range(12, 40):
        for one in (own, twin):
            one.advance(certain(2), seeded(step))
    assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), twin.state_dict().values(), strict=True))
