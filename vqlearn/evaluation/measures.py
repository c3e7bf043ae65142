"""What the protocol measures, of pictures that are real, drawn or trained on, as values that JSON can write."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from vqlearn.autoregression import AutoregressivePipeline
from vqlearn.evaluation import distances
from vqlearn.evaluation.agreement import margin
from vqlearn.evaluation.bound import pipeline_bound
from vqlearn.evaluation.features import Features, features_of, pixels
from vqlearn.evaluation.kept import Drawn, Kept
from vqlearn.evaluation.reconstruction import WINDOW, reconstruction
from vqlearn.evaluation.references import Reference, Rows

MOST_TRAIN = 10_000  # training pictures that copies are sought among
TIMES, ESTIMATES = 25, 16  # of the bound: times for each batch, and batches at least where there are as many pictures
UNKNOWN = "what the model was trained on is not known, or is what it was measured by"


@dataclass(frozen=True)
class Chosen:
    """A model that a user names: how results name it, what it does, and a digest of what it gives for two pictures."""

    name: str
    does: Callable[..., Any]
    tried: str


@dataclass
class Pictures(Sequence[np.ndarray]):
    """The first pictures of a data set as uint8 `[H, W, 3]`."""

    data: Rows
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        return as_bytes(self.data[index][0])


@dataclass
class Read(Pictures):
    """The same with the condition that the model is given for each, and a digest of all of it."""

    conditions: list[Any]
    digest: str

    def batches(self, size: int) -> Iterator[Tensor]:
        """As tensors `[B, 3, H, W]` in [-1, 1]."""
        for start in range(0, len(self), size):
            yield torch.stack([self.data[i][0] for i in range(start, min(start + size, len(self)))])


@dataclass
class Work:
    """What is measured; `made_of` is what every measure depends on, `drawn_of` what drawing depends on besides."""

    pipe: Any
    reference: Reference
    rows: Read
    drawn: Drawn
    made_of: list[Any]
    drawn_of: list[Any]
    seed: int
    batch: int
    progress: bool


def as_bytes(image: Tensor) -> np.ndarray:
    """A picture `[3, H, W]` in [-1, 1] as uint8 `[H, W, 3]`."""
    found: np.ndarray = ((image.detach().cpu() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return found


# ------------------------------------------------------------------------------------------ codec and bound


def codec(work: Work, kept: Kept) -> dict[str, Any]:
    """The codec's round trip, and the use of its codes."""

    def find() -> dict[str, Any]:
        with tqdm(total=len(work.rows), disable=not work.progress, desc="codec", unit="picture") as bar:
            found = reconstruction(work.pipe, _moving(work.rows.batches(work.batch), bar))
        psnr = found.psnr if math.isfinite(found.psnr) else None  # None: all are the same
        similar = {"ssim": written(found.ssim), "ssim_window": f"Gaussian, {WINDOW} x {WINDOW} pixels, sigma 1.5"}
        book = {**asdict(found.codebook), "share": found.codebook.share}
        return {"reconstruction": {"psnr": psnr, **similar}, "codebook": book}

    return kept.of("codec", work.made_of, find)


def _moving(batches: Iterator[Tensor], bar: Any) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        bar.update(len(batch))


def bound(work: Work, kept: Kept) -> dict[str, Any]:
    """The code length of the pictures' tokens, given their conditions, without guidance."""
    exact, count = isinstance(work.pipe, AutoregressivePipeline), len(work.rows)
    times = None if exact else min(TIMES, work.pipe.schedule.num_steps)
    batch = work.batch if exact else max(1, min(work.batch, count // ESTIMATES))

    def find() -> dict[str, Any]:
        with tqdm(total=count, disable=not work.progress, desc="bound", unit="picture") as bar:
            rows, generator = _Watched(work.rows, bar), Generator().manual_seed(work.seed)
            found = pipeline_bound(work.pipe, rows, batch=batch, times=times, generator=generator)
        values = work.rows[0].size
        each = distances.Mean(found.bits_per_row / values, found.standard_error_per_row / values)
        return {
            "kind": "code length" if exact else "upper bound on the code length",
            "bits_per_token": written(distances.Mean(found.bits_per_token, found.standard_error)),
            "bits_per_dimension": written(each),
            **{"tokens": found.tokens, "dimensions": values, "estimates": found.samples, "times": times},
        }

    return kept.of("bound", [*work.made_of, work.seed, batch, times], find)


class _Watched(Dataset[tuple[Tensor, Any]]):
    """Rows of pictures and conditions, whose reading moves a bar."""

    def __init__(self, rows: Read, bar: Any):
        self.rows, self.bar = rows, bar

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        self.bar.update()
        return self.rows.data[index][0], self.rows.conditions[index]


# ------------------------------------------------------------------------------------------ sets of pictures


def sets(work: Work, kept: Kept, features: Chosen | None) -> dict[str, Any]:
    """Distances of the sets, and nearest neighbours, in pixels and in the features."""
    train = _trained_on(work.reference)
    of = [*work.made_of, *work.drawn_of, None if train is None else _digest(train, work.progress)]
    near = {"pixels": kept.of("pixels", of, lambda: _neighbours(*_each(work, train, pixels, "pixels")))}
    if features is None:
        return {"distances": {"skipped": "no features were named"}, "nearest": near}

    def find() -> dict[str, Any]:
        real, drawn, others = _each(work, train, features.does, "features")
        far = {"features": features.name, **_distances(real, drawn, others)}
        return {"distances": far, "nearest": _neighbours(real, drawn, others)}

    found = kept.of("features", [*of, features.name, features.tried], find)
    return {"distances": found["distances"], "nearest": {**near, "features": found["nearest"]}}


def _trained_on(reference: Reference) -> Pictures | None:
    """What a model was trained on, if it is known."""
    train = reference.train
    return None if train is None else Pictures(train, min(MOST_TRAIN, len(train)))  # type: ignore[arg-type]


def _digest(pictures: Pictures, progress: bool) -> str:
    found = hashlib.sha256()
    for index in tqdm(range(len(pictures)), disable=not progress, desc="reading, training", unit="picture"):
        found.update(pictures[index].tobytes())
    return found.hexdigest()


def _each(work: Work, train: Pictures | None, extract: Features, desc: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """The features of real, drawn and training pictures."""
    how: Any = {"batch": work.batch, "progress": work.progress}
    real = features_of(extract, work.rows, desc=f"{desc}, real", **how)
    drawn = features_of(extract, work.drawn, desc=f"{desc}, drawn", **how)
    return real, drawn, None if train is None else features_of(extract, train, desc=f"{desc}, training", **how)


def _distances(real: Tensor, drawn: Tensor, train: Tensor | None) -> dict[str, Any]:
    """How far drawn pictures are from the real ones, and how far as many training pictures are."""

    def both(some: Tensor) -> dict[str, Any]:
        kernel = distances.kernel_distance(real, some)
        return {"frechet": distances.frechet_across(real, some), "kernel": written(kernel)}

    others = None
    if train is not None and len(train) >= len(real):
        others = both(train[:: len(train) // len(real)][: len(real)])
    facts = {"width": real.shape[1], "kernel_pictures": len(real), "frechet_pictures": len(real) // 2}
    return {**facts, "drawn": both(drawn), "train": others}


def _neighbours(real: Tensor, drawn: Tensor, train: Tensor | None) -> dict[str, Any]:
    """How far it is to the nearest training picture, and to the nearest of the same kind (medians)."""
    own = {
        "drawn_to_drawn": _median(distances.nearest(drawn, drawn, same=True)),
        "real_to_real": _median(distances.nearest(real, real, same=True)),
    }
    if train is None:
        return {**own, "skipped": UNKNOWN}
    to_drawn, to_real = distances.nearest(drawn, train), distances.nearest(real, train)
    share = distances.share_smaller(to_drawn, to_real)
    each = {"drawn_to_train": _median(to_drawn), "real_to_train": _median(to_real)}
    return {**own, **each, "drawn_is_nearer": written(share), "train_pictures": len(train)}


def _median(values: Tensor) -> float:
    return float(values.median())


# ------------------------------------------------------------------------------------------ captions


def clip_score(work: Work, kept: Kept, chosen: Chosen | None) -> dict[str, Any]:
    """Of drawn pictures with their captions, and of the real ones, which is what to compare with."""
    if chosen is None:
        return {"skipped": "no CLIP model was named"}

    def of(pictures: Sequence[np.ndarray], desc: str) -> dict[str, float] | None:
        found, size = [], work.batch
        for start in tqdm(range(0, len(pictures), size), disable=not work.progress, desc=desc, unit="batch"):
            some = range(start, min(start + size, len(pictures)))
            found.append(chosen.does(np.stack([pictures[i] for i in some]), [work.rows.conditions[i] for i in some]))
        return written(distances.mean(torch.cat(found)))

    def find() -> dict[str, Any]:
        return {"model": chosen.name, "drawn": of(work.drawn, "CLIP, drawn"), "real": of(work.rows, "CLIP, real")}

    return kept.of("clip", [*work.made_of, *work.drawn_of, chosen.name, chosen.tried], find)


def agreement(work: Work) -> dict[str, Any]:
    """The share of drawn pictures that show what their conditions say, where pictures can be read."""
    agrees = work.reference.agrees
    if agrees is None:
        return {"skipped": "these pictures cannot be read"}
    right = [bool(agrees(work.drawn[i], said)) for i, said in enumerate(work.rows.conditions)]
    share = sum(right) / len(right)
    return {"drawn": share, "margin": margin(share, len(right))}


def written(found: distances.Mean | None) -> dict[str, float] | None:
    """As JSON writes it."""
    return None if found is None else found._asdict()
