"""Pictures that a model is measured by: scenes, emoji, a folder, or a data set of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from vqlearn.arguments import shown
from vqlearn.data import emoji, scenes
from vqlearn.data.folder import HELD_OUT, PictureFolder

Rows = Dataset[tuple[Tensor, Any]]
ENDLESS, TRAIN = 10**6, 2000  # pictures that a world has, which makes as many as one likes, and of its training
SPLITS = {"train": "train", "test": "held out"}  # the parts of a folder, by the names that every data set has


@dataclass(frozen=True)
class Reference:
    """What a model is measured by, and what is written of it.

    `data` is a `torch.utils.data.Dataset` of rows (image float `[3, H, W]` in [-1, 1], condition); `train` one of what
    the model was trained on, None where that is `data` itself or unknown. `agrees(picture uint8 [H, W, 3],
    condition)` says whether a picture shows what its condition says, where pictures can be read. `about` are facts of
    the split and of how pictures were scaled.
    """

    name: str
    data: Rows
    train: Rows | None = None
    agrees: Callable[[np.ndarray, Any], bool] | None = None
    about: tuple[tuple[str, Any], ...] = ()


class Listed(Dataset[tuple[Tensor, Any]]):
    """`count` rows, made by a function of their number."""

    def __init__(self, row: Callable[[int], tuple[Tensor, Any]], count: int):
        self.row, self.count = row, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.row(index)


def of_scenes(split: str = "test") -> Reference:
    """The scenes of a split, "train", "test" or "unseen"."""

    def row(split: str, index: int) -> tuple[Tensor, str]:
        scene, caption = scenes.sample(split, index)
        return scenes.to_tensor([scenes.draw(scene)])[0], caption

    return _of_world("scenes", split, row, lambda picture, said: scenes.agreement(picture, said).all)


def of_emoji(split: str = "test") -> Reference:
    """The emoji of a split, "train", "test" or "unseen", at 32 x 32 pixels."""

    def row(split: str, index: int) -> tuple[Tensor, str]:
        picture, caption = emoji.sample(split, index)
        return scenes.to_tensor([picture])[0], caption

    return _of_world("emoji", split, row, lambda picture, said: emoji.agreement(picture, said).all)


def _of_world(
    name: str, split: str, row: Callable[[str, int], tuple[Tensor, str]], agrees: Callable[[np.ndarray, Any], bool]
) -> Reference:
    train = None if split == "train" else Listed(lambda index: row("train", index), TRAIN)
    about = {
        "split": split,
        "rule": f"those of number 0 ... of vqlearn.data.{name}",
        "resize": "none, drawn in this size",
    }
    return Reference(name, Listed(lambda index: row(split, index), ENDLESS), train, agrees, tuple(about.items()))


def of_folder(
    pictures: PictureFolder, split: str = "test", conditions: Sequence[tuple[Any, ...]] | None = None
) -> Reference:
    """The pictures of a folder, those held out ("test") or those of training ("train"), with their first conditions.

    `conditions` are those of each picture as a model reads them, None the folder's own. Raises ValueError for another
    split and for one without pictures.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be 'train' or 'test' for a folder of pictures, got {shown(split)}")
    chosen = {name: pictures.indices(part) for name, part in SPLITS.items()}
    if not chosen[split]:
        raise ValueError(
            f"of the {len(pictures)} pictures in {str(pictures.folder)!r} none is "
            f"{'held out' if split == 'test' else 'to learn from'}; choose the other split, or add pictures"
        )

    def part(indices: list[int]) -> Listed:
        return Listed(lambda number: _row(pictures, indices[number], conditions), len(indices))

    side = "below" if split == "test" else "of at least"
    about = {
        "split": split,
        "rule": f"those whose SHA-256 begins with a byte {side} {HELD_OUT}",
        "resize": f"the square in the middle, averaged over areas to {pictures.side} x {pictures.side} pixels",
        "reads": pictures.reads,
    }
    train = part(chosen["train"]) if split == "test" and chosen["train"] else None
    return Reference(str(pictures.folder), part(chosen[split]), train, None, tuple(about.items()))


def _row(pictures: PictureFolder, index: int, conditions: Sequence[tuple[Any, ...]] | None) -> tuple[Tensor, Any]:
    image, said = pictures[index]
    return image, said if conditions is None else (conditions[index] or (None,))[0]


REFERENCES = {"scenes": of_scenes, "emoji": of_emoji}
