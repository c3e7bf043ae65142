"""A value that is not finite is an error that says where, never a token; and every loop of a sampler ends."""

import math

import pytest
import torch
from oracle import FALSE_ALARM, chi_square_p_value

from vqlearn import (
    SAMPLERS,
    MaskReplaceSchedule,
    Sampler,
    evidence_bound,
    guide,
    p_sample_step,
    strided_times,
    top_k,
    training_loss,
    truncate,
)
from vqlearn.choices import Choice, write
from vqlearn.draws import draw
from vqlearn.reverse import Checked
from vqlearn.unmasking import Confident, EntropyBounded, HighQuality, Purity

CODES, EVEN = 4, torch.arange(11).double() / 10
SCHEDULE = MaskReplaceSchedule(1 - EVEN, EVEN, num_codes=CODES)  # masks alone, for `first_hitting`
FAULTS = {"is NaN": math.nan, "is inf": math.inf, "is -inf everywhere": -math.inf}


def flat(*shape, dtype=torch.float32):
    return torch.zeros(*shape, CODES, dtype=dtype).log_softmax(-1)


def spoilt(what, *where, shape=(2, 6), dtype=torch.float32):
    """A flat prediction with one fault: in one entry, or for -inf in all of a row."""
    log_p = flat(*shape, dtype=dtype)
    log_p[(*where, *([] if FAULTS[what] == -math.inf else [1]))] = FAULTS[what]
    return log_p


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("name", [*SAMPLERS, "a function"])
def test_every_sampler_says_when_and_where(name, what):
    """The second evaluation has a fault at picture 1, position 3."""
    asked = []

    def denoise(x_t, t):
        asked.append(t)
        return spoilt(what, 1, 3) if len(asked) == 2 else flat(2, 6)

    def plain(denoise, x_t, schedule, times, *, generator=None, on_step=None):
        for t in times[:-1]:
            x_t = denoise(x_t, t).argmax(-1)
        return x_t

    class Mine(Sampler):
        def run(self, *args, **more):
            return plain(*args, **more)

    sampler = Mine() if name == "a function" else SAMPLERS[name]
    with pytest.raises(ValueError, match=rf"at t = \d+ {what} at picture 1, position 3: nothing can be drawn") as error:
        sampler(denoise, torch.full((2, 6), CODES), SCHEDULE, range(10, -1, -1), generator=torch.Generator())
    assert f"t = {asked[1]} " in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("branch", [0, 1], ids=["conditional", "null"])
@pytest.mark.parametrize("scale", [3.0, torch.tensor([3.0, 0.5])], ids=["number", "tensor"])
def test_guidance_leaves_nothing_out_in_silence(value, branch, scale):
    both = [flat(2, 6), flat(2, 6)]
    both[branch][1, 3, 2] = value
    guided = guide(*both, scale)
    bad = ~guided.isfinite().all(-1)
    assert bad.nonzero().tolist() == [[1, 3]] and bool(guided[1, 3].isnan().any())


@pytest.mark.parametrize("change", [lambda p: truncate(p, 0.5), lambda p: truncate(p, 0.0), lambda p: top_k(p, 1)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_truncation_leaves_nothing_out_in_silence(change, value):
    log_p = flat(2, 6)
    log_p[1, 3, 2] = value
    with pytest.raises(ValueError, match=r"log_p is (NaN|inf) at picture 1, position 3"):
        draw(change(log_p))


def test_elsewhere_than_on_a_cpu_it_is_said_at_the_end():
    """Flags are kept, and looked at once; the first time is named."""
    checked = Checked(lambda x_t, t: flat(2, 6), CODES)
    bad = torch.zeros(2, 6, dtype=torch.bool)
    checked.seen = [(9, bad), (7, bad.index_fill(1, torch.tensor([4]), True)), (5, ~bad)]
    with pytest.raises(ValueError, match="at t = 7 is not finite at picture 0, position 4"):
        checked.at_the_end()
    checked.seen = [(9, bad)]
    checked.at_the_end()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("what", FAULTS)
def test_nothing_is_drawn_from_what_is_none(what, dtype):
    log_p, x_t = spoilt(what, 0, 2, dtype=dtype), torch.full((2, 6), CODES)
    with pytest.raises(ValueError, match=f"log_p {what} at picture 0, position 2"):
        draw(log_p)
    with pytest.raises(ValueError, match=f"log_p {what} at picture 0, position 2"):
        p_sample_step(log_p, x_t, 5, SCHEDULE)
    with pytest.raises(ValueError, match=rf"log_p {what} at index \[2\]"):
        draw(log_p[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_draws_are_fair_in_every_precision(dtype):
    """40 000 draws of 1025 equal classes, chi-square (1e-6), and the mean code within 5 standard errors of 512."""
    drawn = draw(torch.zeros(40_000, 1025, dtype=dtype).log_softmax(-1), torch.Generator().manual_seed(0))
    assert chi_square_p_value(drawn, torch.ones(1025)) > FALSE_ALARM
    assert abs(float(drawn.double().mean()) - 512) < 5 * 1025 / math.sqrt(12 * 40_000)


@pytest.mark.parametrize(
    "wrong", [flat(4, 6), flat(2, 5), flat(2, 6)[..., :3], flat(2, 6).long(), flat(12), [0.0], None], ids=str
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_prediction_of_another_shape_is_one_clear_error(name, wrong):
    with pytest.raises(ValueError, match=r"the denoiser must give floating point \[2, 6, 4\] .*, got"):
        SAMPLERS[name](lambda x_t, t: wrong, torch.full((2, 6), CODES), SCHEDULE, [10, 0])


@pytest.mark.parametrize("worst", [-math.inf, math.nan])
@pytest.mark.parametrize("at_random", [True, False])
def test_as_many_masks_are_written_as_are_asked_for(worst, at_random):
    """Whatever their weights are: positions that a rule thinks impossible do not tie with visible ones."""
    weight = torch.tensor([[5.0, worst, worst, 1.0, worst]])
    x_t = torch.tensor([[1, 4, 4, 4, 4]])
    for count in range(5):
        after = write(Choice(weight, flat(1, 5), at_random), x_t, torch.tensor([count]), CODES, torch.Generator())
        assert int((after == CODES).sum()) == 4 - count and after[0, 0] == 1


@pytest.mark.parametrize("sampler", [Purity(), Confident(), EntropyBounded(), HighQuality(most=1)], ids=repr)
def test_certain_and_impossible_classes_end_too(sampler):
    """Predictions with all but one class at -inf, and a picture that begins with nothing masked."""
    calls, log_p = [0], torch.full((2, 6, CODES), -torch.inf)
    log_p[..., 2] = 0.0

    def denoise(x_t, t):
        calls[0] += 1
        return log_p

    x_t = torch.stack([torch.full((6,), CODES), torch.zeros(6, dtype=torch.int64)])
    x_0 = sampler(denoise, x_t, SCHEDULE, strided_times(10, 5))
    assert x_0.tolist() == [[2] * 6, [0] * 6] and calls[0] <= 11


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "2"])
def test_a_step_of_no_tokens_is_refused(most):
    with pytest.raises(ValueError, match="most must be a whole number from 1 to "):
        HighQuality(most=most)
    with pytest.raises(ValueError, match="each number of quota must be a whole number of at least 0"):
        Purity(quota=(3, most if most != 0 else -2))


# ------------------------------------------------------------------------------------------ logits


def test_logits_are_refused_where_numbers_are_made_of_them():
    """A bound of -1404 bits and a loss of -984 until then."""
    logits, x_0 = 5 * torch.randn(2, 6, CODES, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 6).long()
    t = torch.tensor([5, 6])
    for call in (
        lambda log_p: evidence_bound(lambda x_t, t: log_p, x_0, SCHEDULE),
        lambda log_p: training_loss(log_p, x_0, torch.full((2, 6), CODES), t, SCHEDULE),
    ):
        with pytest.raises(ValueError, match=r"log_p_x0 must be log-probabilities.*of logits take log_softmax"):
            call(logits)
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            call(logits.log_softmax(-1).to(dtype))
        call(logits.log_softmax(-1) - 0.5)  # less than 1, as after truncation


def test_a_bound_of_what_is_not_finite_is_none():
    x_0 = torch.zeros(2, 6).long()
    for what in FAULTS:
        with pytest.raises(ValueError, match=f"{what} at picture 1, position 3"):
            evidence_bound(lambda x_t, t, what=what: spoilt(what, 1, 3), x_0, SCHEDULE)
    with pytest.raises(ValueError, match=r"must give floating point \[2, 6, 4\]"):
        evidence_bound(lambda x_t, t: flat(4, 6), x_0, SCHEDULE)
