"""The nine claims, each with the paper's place, the models that it takes, and what would have to be true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from experiments.models import Arm, Lab
from vqlearn.course.contrasts import Contrast
from vqlearn.unmasking import HighQuality, Purity

Figures = dict[str, float]
PAPER = Arm()
RIVAL = Arm(kind="autoregressive")


@dataclass(frozen=True)
class Claim:
    """A claim in our words, where the paper makes it, how it is tested here, and what would change the verdict."""

    name: str
    title: str
    says: str
    place: str
    protocol: str
    contrasts: tuple[Contrast, ...]
    changes: str
    measure: Callable[[Lab, int], Iterator[tuple[str, Figures]]]  # of a seed: (setting, figures)
    axis: str = "setting"


def _kernels(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    for label, masked in (("mask and replace", 0.9), ("masks alone", 1.0), ("replacement alone", 0.0)):
        arm = Arm(masked=masked)
        for steps in (25, 100):
            yield (
                f"{label}, {steps} steps",
                lab.draw(arm, seed, num_inference_steps=steps) | {"bits": lab.bits(arm, seed)},
            )


def _mask_rates(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    for masked in (0.0, 0.3, 0.6, 0.9, 1.0):
        yield f"{masked:g}", lab.draw(Arm(masked=masked), seed, num_inference_steps=100)


def _steps(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    for trained in (10, 25, 50, 100):
        for steps in (n for n in (10, 25, 50, 100) if n <= trained):
            yield f"T = {trained}, {steps} steps", lab.draw(Arm(num_steps=trained), seed, num_inference_steps=steps)


def _truncation(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    for rate in (0.5, 0.7, 0.86, 0.95, 1.0):
        yield f"{rate:g}", lab.draw(PAPER, seed, truncation_rate=rate)


def _guidance(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    for null in ("learned", "empty", "none"):
        for scale in (1.0, 1.5, 3.0, 5.0):
            yield f"{null}, {scale:g}", lab.draw(Arm(null=null), seed, guidance_scale=scale)


def _purity(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    yield "ancestral", lab.draw(PAPER, seed)
    yield "random positions", lab.draw(PAPER, seed, sampler=HighQuality())
    for weight in (0.0, 0.5, 1.0, 2.0, 4.0):
        yield f"purity, {weight:g}", lab.draw(PAPER, seed, sampler=Purity(weight))


def _auxiliary(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    for weight in (0.0, 5e-4, 5e-2):
        arm = Arm(auxiliary_weight=weight)
        yield f"{weight:g}", lab.draw(arm, seed) | {"bits": lab.bits(arm, seed)}


def _fast(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    calls = {f"{steps} steps": (PAPER, {"num_inference_steps": steps}) for steps in (5, 10, 25, 50, 100)}
    speeds = lab.speeds(calls, seed)
    for name, (arm, call) in calls.items():
        yield name, lab.draw(arm, seed, **call) | {"speed": speeds[name]}


def _fifteen(lab: Lab, seed: int) -> Iterator[tuple[str, Figures]]:
    calls = {f"autoregressive, {name} cache": (RIVAL, {"cache": name == "with"}) for name in ("no", "with")}
    calls |= {f"diffusion, {steps} steps": (PAPER, {"num_inference_steps": steps}) for steps in (5, 25, 100)}
    speeds = lab.speeds(calls, seed)
    for name, (arm, call) in calls.items():
        yield name, lab.draw(arm, seed, **call) | {"bits": lab.bits(arm, seed), "speed": speeds[name]}


UNCERTAIN = "The wording is from transcriptions of the paper, not checked against its pages."
CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            "kernels", "Mask and replace against masks alone and replacement alone",
            "Corrupting tokens by masks and by random codes together gives better pictures than either alone.",
            f"VQ-Diffusion, section 4.1 and the ablation of the final mask rate. {UNCERTAIN}",
            "Three schedules, otherwise equal models, data and updates; read back at 25 and at 100 steps.",
            (
                Contrast("mask and replace, 100 steps", "masks alone, 100 steps"),
                Contrast("mask and replace, 100 steps", "replacement alone, 100 steps"),
            ),
            "A larger model, for which fewer tokens are wrong when they are drawn; more seeds.",
            _kernels,
        ),
        Claim(
            "mask-rate", "The final mask rate",
            "A final mask rate of 0.9 is best; lower and higher ones are worse.",
            f"VQ-Diffusion, ablation of the final mask rate. {UNCERTAIN}",
            "Five rates, otherwise equal models, 100 steps.",
            tuple(Contrast("0.9", other) for other in ("0", "0.3", "0.6", "1")),
            "Longer training, after which replaced tokens are recognised; pictures with more tokens to repair.",
            _mask_rates, axis="share of tokens that is masked at t = T",
        ),
        Claim(
            "steps", "Training steps T and inference steps",
            "A model of more time steps is better, and one of T = 100 loses little when it is sampled in 25.",
            f"VQ-Diffusion, table of training and inference steps. {UNCERTAIN}",
            "Four models of T = 10, 25, 50, 100 with equal updates, each sampled in up to T steps. 'Little' is 0.05.",
            (
                Contrast("T = 100, 100 steps", "T = 10, 10 steps"),
                Contrast("T = 100, 25 steps", "T = 100, 100 steps", least=-0.05),
            ),
            "More seeds: what 25 steps lose, 3.5 points, lies near the 5 that we allow.",
            _steps,
        ),
        Claim(
            "truncation", "The truncation rate",
            "Drawing from the likeliest codes that make up 0.86 of the probability is better than from all.",
            "VQ-Diffusion, section 5.1 and ablation (0.86 on CUB-200; 0.869 on ImageNet, by an author).",
            "One model a seed, 25 steps, no guidance, five rates.",
            (Contrast("0.86", "1"), Contrast("0.86", "0.5")),
            "A measure that rewards diversity as the Frechet distance does: the share that is right does not.",
            _truncation, axis="truncation rate",
        ),
        Claim(
            "guidance", "Guidance by a learned null text, the empty text, and untrained",
            "Guidance improves agreement with the text, with a learned null more than with the empty text, and with "
            "the empty text more if training has dropped texts.",
            f"Improved VQ-Diffusion, section 3.1 and its ablation. {UNCERTAIN}",
            "Three models a seed (10 % of texts dropped, but for the last), four scales, 25 steps, no truncation.",
            (
                Contrast("learned, 1.5", "learned, 1"),
                Contrast("learned, 1.5", "empty, 1.5"),
                Contrast("empty, 1.5", "none, 1.5"),
            ),
            "Captions that leave more open, and fine-tuning of a large model, which is what the paper does.",
            _guidance,
        ),
        Claim(
            "purity", "Sampling by purity",
            "Uncovering the purest positions first, and drawing them more sharply, gives better pictures than the "
            "posterior's random positions at equal numbers of network evaluations.",
            f"Improved VQ-Diffusion, section 3.2. {UNCERTAIN}",
            "One model a seed, 25 steps: the posterior, random positions, purity with five weights.",
            (Contrast("purity, 1", "ancestral"), Contrast("purity, 1", "random positions")),
            "A measure of diversity beside the share that is right.",
            _purity,
        ),
        Claim(
            "auxiliary", "The auxiliary loss",
            "Predicting x_0 directly, as a second term of the loss, improves the pictures.",
            "VQ-Diffusion, Eq. 12; weight 5e-4 in the public code.",
            "Three models a seed: weight 0, 5e-4 and 5e-2, 25 steps.",
            (Contrast("0.0005", "0"),),
            "Longer training: the term speeds up the beginning, where the bound's gradient is noisy.",
            _auxiliary, axis="weight of the auxiliary term",
        ),
        Claim(
            "fast", "Fewer inference steps",
            "25 steps give almost the pictures of 100, at 3.4 times as many a second.",
            "VQ-Diffusion, table of speed on CUB-200 (1.25 and 0.37 pictures a second, FID 15.46 and 12.97).",
            "One model a seed, 5 to 100 steps. 'Almost' is 0.05, 'times' is of processor time, batches of 32.",
            (
                Contrast("25 steps", "100 steps", least=-0.05),
                Contrast("25 steps", "100 steps", "speed", 3.0, ratio=True),
            ),
            "More seeds: what 25 steps lose, 3.5 points, lies near the 5 that we allow.",
            _fast,
        ),
        Claim(
            "fifteen", "Fifteen times faster than autoregression",
            "With 25 steps diffusion draws fifteen times as many pictures a second as an autoregressive model of its "
            "size, and better ones.",
            "VQ-Diffusion, abstract and table of speed (15.6 and 15.7 times at 25 steps, 1 024 tokens, one V100, batch "
            "32). The public text does not say whether the rival kept keys and values.",
            "A rival of equal width, depth, feed-forward weights, data and updates; 64 tokens, batch 32, one core.",
            (
                Contrast("diffusion, 25 steps", "autoregressive, no cache", "speed", 15.0, ratio=True),
                Contrast("diffusion, 25 steps", "autoregressive, with cache", "speed", 15.0, ratio=True),
                Contrast("diffusion, 25 steps", "autoregressive, with cache"),
            ),
            "The number of tokens: 1 024 in place of 64 multiply the rival's evaluations by 16 (notebook 11).",
            _fifteen,
        ),
    )
}  # fmt: skip
