"""Measuring text-image agreement on the toy world: pictures are read back and compared with their captions."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from vqlearn.arguments import real, whole
from vqlearn.data import layouts, scenes
from vqlearn.exactness.ideal import ideal_denoiser
from vqlearn.objective import kl_divergence
from vqlearn.transition import q_sample

if TYPE_CHECKING:
    from vqlearn.autoregression import AutoregressivePipeline
    from vqlearn.components import Components
    from vqlearn.pipeline import VQDiffusionPipeline

LAST = 2**63 - 1  # the largest seed of a generator
ATTRIBUTES = ("count", "shape", "color", "size", "relation", "background")


@dataclass(frozen=True)
class Report:
    """Shares in [0, 1] of pictures that fulfil a caption: in all parts, per part, and by the number of objects named.

    A part's share counts only the captions that say something about it. Captions of one object are the same in training
    (`recall`); `generalisation` is the share of the `new` captions, which state a whole combination that training never
    showed (`states_new_combination`). `entropy` is that of attributes which the captions left open, in bits.
    """

    pictures: int
    all: float
    parts: dict[str, float]
    by_count: dict[int, float]
    new: int
    generalisation: float
    entropy: dict[str, float]

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval of `all` (normal approximation)."""
        return margin(self.all, self.pictures)

    @property
    def recall(self) -> float:
        """The share of the captions of one object."""
        return self.by_count[1]


def margin(share: float, count: int) -> float:
    """Half the width of the 95 % interval of a share of `count` cases (normal approximation)."""
    share, count = real("share", share, 0, 1), whole("count", count, 0)
    return 1.96 * math.sqrt(share * (1 - share) / max(1, count))


def states_new_combination(claim: scenes.Claim) -> bool:
    """Whether a caption states the sizes and colours of two objects and their relation, and this is held out.

    No scene that fulfils it, and no caption that says it, is in the training split.
    """
    whole = [one.size is not None and one.color is not None for one in claim.objects]
    return any(
        whole[i] and whole[j] and scenes.held_out_pair(claim.objects[i], relation, claim.objects[j])
        for i, relation, j in claim.relations
    )


def check_world(pipe: Components, world: str = "the toy world", side: int = scenes.SIZE) -> None:
    """Raises ValueError for a pipeline that reads no text or draws pictures of another size than a world's."""
    pixels = 0 if pipe.vqvae is None else pipe.vqvae.factor**2 * pipe.transformer.num_positions
    if pipe.transformer.reads != "text" or pixels != side**2:
        raise ValueError(f"{world} takes a model that reads text and draws {side} x {side} pixels")


@torch.no_grad()
def evaluate(
    pipe: VQDiffusionPipeline | AutoregressivePipeline,
    *,
    split: str = "test",
    count: int = 500,
    seed: int = 0,
    batch: int = 100,
    progress: bool = True,
    **call: Any,
) -> Report:
    """Draw a picture for each of the first `count` captions of a split, read it back; `call` goes to the pipeline.

    Raises ValueError for another split, numbers out of range and a pipeline that draws no pictures of the toy world.
    """
    count, seed, batch = whole("count", count), whole("seed", seed, 0, LAST), whole("batch", batch)
    check_world(pipe)
    captions = [scenes.sample(split, index)[1] for index in range(count)]
    generator = Generator().manual_seed(seed)
    drawn = pictures_of(pipe, captions, batch=batch, progress=progress, generator=generator, **call)
    read = [scenes.read(picture) for picture in drawn]
    return report(captions, read)


def pictures_of(
    pipe: VQDiffusionPipeline | AutoregressivePipeline,
    captions: Sequence[str],
    *,
    batch: int,
    progress: bool,
    **call: Any,
) -> Iterator[Tensor]:
    """A picture per caption, float `[3, H, W]` in [-1, 1], drawn `batch` at a time; `call` goes to the pipeline."""
    quiet = copy.copy(pipe)  # the same parts, with a setting of its own
    quiet.set_progress_bar_config(disable=True)
    for start in tqdm(range(0, len(captions), batch), disable=not progress, desc="evaluating", unit="batch"):
        images = quiet(list(captions[start : start + batch]), output_type="pt", **call).images
        yield from images * 2 - 1


def report(captions: list[str], pictures: list[scenes.Scene]) -> Report:
    """Compare pictures that were read with the captions they were drawn for; raises ValueError for none or others."""
    if not captions or len(captions) != len(pictures):
        raise ValueError(f"there must be a picture for each caption, got {len(pictures)} for {len(captions)} captions")
    claims = [scenes.parse(caption) for caption in captions]
    found = [scenes.agreement(scene, claim) for scene, claim in zip(pictures, claims, strict=True)]
    parts = {}
    for name in ATTRIBUTES:
        said = [getattr(result, name) for result, claim in zip(found, claims, strict=True) if _says(claim, name)]
        parts[name] = sum(said) / max(1, len(said))
    by_count = {}
    for number in scenes.COUNTS:
        results = [result.all for result, claim in zip(found, claims, strict=True) if len(claim.objects) == number]
        by_count[number] = sum(results) / max(1, len(results))
    new = [result.all for result, claim in zip(found, claims, strict=True) if states_new_combination(claim)]
    return Report(
        len(captions),
        sum(result.all for result in found) / len(found),
        parts,
        by_count,
        len(new),
        sum(new) / max(1, len(new)),
        _entropy(claims, pictures),
    )


def _says(claim: scenes.Claim, attribute: str) -> bool:
    if attribute == "background":
        return claim.background is not None
    if attribute == "relation":
        return bool(claim.relations)
    if attribute in ("size", "color"):
        return any(getattr(one, attribute) for one in claim.objects)
    return True


def _entropy(claims: list[scenes.Claim], pictures: list[scenes.Scene]) -> dict[str, float]:
    """Entropy in bits of what captions of one object left open, and of the background where it is unsaid."""
    open_ones: dict[str, list[Any]] = {"size": [], "color": [], "background": [], "position": []}
    for claim, scene in zip(claims, pictures, strict=True):
        if claim.background is None:
            open_ones["background"].append(scene.background)
        if len(claim.objects) == len(scene.objects) == 1:
            for name in ("size", "color"):
                if getattr(claim.objects[0], name) is None:
                    open_ones[name].append(getattr(scene.objects[0], name))
            open_ones["position"].append((scene.objects[0].row // 8, scene.objects[0].col // 8))
    return {name: _bits(values) for name, values in open_ones.items()}


def _bits(values: list[Any]) -> float:
    shares = [count / len(values) for count in Counter(values).values()]
    return -sum(share * math.log2(share) for share in shares) + 0.0


@torch.no_grad()
def excess(
    pipe: VQDiffusionPipeline, times: Iterable[int] = (100, 97, 93, 88, 80, 70, 55, 40, 20, 10, 5, 3, 1), *,
    split: str = "test", count: int = 192, seed: int = 0,
) -> dict[int, float]:  # fmt: skip
    """How far the network is from the ideal denoiser at some times: KL(ideal || network) of x_0, in nats per picture.

    Averages over scenes of a split, "train" or "test", and their x_t, each position's divergence by itself; without
    guidance. 0 is perfect. Raises ValueError for another split and for numbers out of range.
    """
    check_world(pipe)
    times = [whole("times", t, 1, pipe.schedule.num_steps) for t in times]
    count, seed = whole("count", count), whole("seed", seed, 0, LAST)
    drawn = layouts.draw(split, count, generator=Generator().manual_seed(seed))
    captions, table = drawn.captions(), layouts.code_table(pipe.encode)
    x_0 = layouts.tokens(drawn, table)
    ideal, network = ideal_denoiser(captions, table, pipe.schedule, split=split), pipe.denoiser(captions)
    found = {}
    for t in times:
        x_t = q_sample(x_0, t, pipe.schedule, generator=Generator().manual_seed(t))
        found[t] = float(kl_divergence(ideal(x_t, t), network(x_t.to(pipe.device), t).double().cpu()).sum(-1).mean())
    return found


@torch.no_grad()
def reconstruction(pipe: Components, *, split: str = "test", count: int = 500) -> float:
    """Share of scenes that read the same after the codec's round trip as before, positions included."""
    count = whole("count", count)
    drawn = [scenes.draw(scenes.sample(split, index)[0]) for index in range(count)]
    images: Tensor = pipe.decode(pipe.encode(scenes.to_tensor(drawn)))
    return sum(scenes.read(image) == scenes.read(picture) for image, picture in zip(images, drawn, strict=True)) / count
