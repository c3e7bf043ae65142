"""Estimated bounds and their standard errors, against the sum over all trajectories."""

import math

import pytest
import torch
from test_objective import all_states, exact_bound_and_likelihood, random_denoiser

from vqlearn import MaskReplaceSchedule, Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler
from vqlearn.evaluation.bound import bound, continuous_bound, estimate, pipeline_bound

SCHEDULE = MaskReplaceSchedule([1, 0.6, 0.3, 0.1], [0, 0.2, 0.5, 0.7], num_codes=3)
JOINT = torch.tensor([4.0, 1, 0, 2, 3, 1, 0, 5, 2], dtype=torch.float64) / 18  # of the nine pairs of three codes


def data(rows, seed):
    drawn = torch.multinomial(JOINT, rows, replacement=True, generator=torch.Generator().manual_seed(seed))
    return all_states(3, 2)[drawn]


def exact(denoise):
    """The mean over the joint in bits per token, by the sum over all trajectories."""
    bounds = [exact_bound_and_likelihood(denoise, SCHEDULE, x_0, 2)[0] for x_0 in all_states(3, 2)]
    return float((JOINT * torch.tensor(bounds, dtype=torch.float64)).sum()) / 2 / math.log(2)


def test_a_denoisers_bound_and_an_honest_error():
    """One estimate within 4 errors, and of 60 the spread is the error that they state."""
    denoise = random_denoiser(SCHEDULE, 2, seed=9)
    truth = exact(denoise)
    found = [bound(denoise, data(400, i), SCHEDULE, generator=torch.Generator().manual_seed(i)) for i in range(60)]
    assert abs(found[0].bits_per_token - truth) < 4 * found[0].standard_error
    spread = float(torch.tensor([one.bits_per_token for one in found]).std())
    assert spread == pytest.approx(found[0].standard_error, rel=0.35)  # the spread of 60 is known to 9 %
    assert found[0].tokens == 2 and found[0].bits_per_row == 2 * found[0].bits_per_token
    assert found[0].standard_error_per_row == 2 * found[0].standard_error and found[0].samples == 400


@pytest.fixture(scope="module")
def sequences():
    """A pipeline of two tokens of three codes that is conditioned on nothing."""
    torch.manual_seed(3)
    transformer = Transformer2DModel(
        2, 4, 1, None, 4, sample_size=2, num_embeds_ada_norm=3, feed_forward_mult=2, positions="sequence"
    )
    with torch.no_grad():
        transformer.out.weight *= 8  # predictions that are far from uniform
    scheduler = VQDiffusionScheduler(4, 3)
    pipe = VQDiffusionPipeline(None, None, None, transformer.double().eval(), scheduler)
    pipe.schedule = SCHEDULE
    return pipe


@pytest.mark.parametrize("times", [None, 2])
def test_a_pipelines_bound_on_a_data_set_of_tokens(sequences, times):
    truth = exact(lambda x_t, t: sequences.denoiser([None] * len(x_t))(x_t, t))
    rows = [(x_0, "a caption that nobody reads") for x_0 in data(1200, seed=1)]
    found = pipeline_bound(sequences, rows, batch=10, times=times, generator=torch.Generator().manual_seed(5))
    assert abs(found.bits_per_token - truth) < 4 * found.standard_error
    assert 0 < found.standard_error < 0.05 * truth and found.samples == (1200 if times is None else 120)
    few = pipeline_bound(sequences, rows, count=40, batch=10, generator=torch.Generator().manual_seed(5))
    assert few.samples == 40 and few.standard_error > found.standard_error


def test_drawing_times_is_counted_in_the_error(sequences):
    """With one time per batch, the spread of 24 estimates is the error that they state, and larger than with all."""
    rows = [(x_0, None) for x_0 in data(160, seed=2)]
    found = [
        pipeline_bound(sequences, rows, batch=8, times=1, generator=torch.Generator().manual_seed(i)) for i in range(24)
    ]
    spread = float(torch.tensor([one.bits_per_token for one in found]).std())
    stated = sum(one.standard_error for one in found) / 24
    assert spread == pytest.approx(stated, rel=0.4)  # the spread of 24 is known to 15 %
    all_times = pipeline_bound(sequences, rows, batch=8, generator=torch.Generator().manual_seed(0))
    assert stated > 1.5 * all_times.standard_error


def test_the_bound_in_continuous_time_lies_near_the_discrete_one_of_many_steps():
    """Of masks alone, with a prediction that knows no time: a schedule of 400 steps is continuous to a percent."""
    line = torch.linspace(0, 1, 401, dtype=torch.float64)
    fine = MaskReplaceSchedule(1 - line, line, num_codes=3)
    table = random_denoiser(SCHEDULE, 2, seed=4)
    x_0 = data(1500, seed=3)
    found = continuous_bound(
        lambda x_t, t: table(x_t, 1), x_0, fine, samples=20, generator=torch.Generator().manual_seed(1)
    )
    discrete = bound(lambda x_t, t: table(x_t, 1), x_0, fine, generator=torch.Generator().manual_seed(2))
    error = math.hypot(found.standard_error, discrete.standard_error)
    assert abs(found.bits_per_token - discrete.bits_per_token) < 4 * error and error < 0.05 * found.bits_per_token


def test_a_picture_has_a_bound_too(shipped):
    """Pictures of the toy world under their own captions cost less than under those of their neighbours."""
    from vqlearn import scenes

    drawn = [scenes.sample("test", index) for index in range(8)]
    images = scenes.to_tensor([scenes.draw(scene) for scene, _ in drawn])
    captions = [caption for _, caption in drawn]
    right, wrong = (
        pipeline_bound(
            shipped, list(zip(images, some, strict=True)), batch=2, times=6, generator=torch.Generator().manual_seed(0)
        )
        for some in (captions, captions[1:] + captions[:1])
    )
    assert right.tokens == 64 and right.bits_per_token + 4 * right.standard_error < wrong.bits_per_token


def test_one_estimate_has_no_error():
    with pytest.raises(ValueError, match="at least 2 independent estimates, got 1; use more data"):
        estimate(torch.tensor([1.0]), 2)
    assert str(estimate(torch.tensor([1.0, 2.0]), 2)) == "1.5000 ± 0.5000 bits per token"
