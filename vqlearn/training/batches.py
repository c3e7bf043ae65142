"""Where batches come from: a data set, in an order of the trainer's own, or a source that draws them.

Batch `number` is a function of its number and a seed, so a run that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from vqlearn.arguments import shown, whole
from vqlearn.data.pictures import ROUNDING
from vqlearn.networks.vqvae import VQModel
from vqlearn.training.process import dead_children_unheard

OF_A_ROW = "Caught "  # so torch begins what it says of an error that a row has raised in another process
ALL = slice(None)  # rows of a batch
Read = Callable[[list[Any]], Tensor | None]  # conditions as a data set has them, to what a network is given


class Rows(NamedTuple):
    """Some rows of the data, stacked."""

    x: Tensor  # images, float [B, C, H, W] in [-1, 1], or tokens, int64 [B, L]
    condition: Tensor | None = None  # token ids int64 [B, S], class numbers int64 [B], or None
    notes: Any = None  # what the source knows of them besides, for an objective or task of its own


class Source(ABC):
    """Where batches come from; a data set becomes one by `as_source`."""

    @abstractmethod
    def rows(self, number: int, count: int, generator: Generator) -> Rows:
        """Batch `number`, of `count` rows; equal numbers, counts and generators give equal rows."""

    def part(self, number: int, count: int, generator: Generator, rows: slice) -> Rows:
        """Some `rows` of batch `number`, those that one of several processes evaluates.

        All are made here; a source that can leave the others out overrides this, and still draws for all of them.
        """
        return rows_of(self.rows(number, count, generator), rows)

    def name(self, number: int, row: int) -> str:
        """How a message names a row of batch `number`."""
        return f"row {row} of batch {number}"

    def checked(self, number: int, count: int, generator: Generator, rows: slice = ALL) -> Rows:
        """`rows` of batch `number`, of which there must be as many of everything; raises ValueError."""
        wanted = len(range(count)[rows])
        found = self.rows(number, count, generator) if rows == ALL else self.part(number, count, generator, rows)
        given = [one for one in found[:2] if one is not None] if isinstance(found, Rows) else [found]
        if not all(_is_plain(one) and one.shape[:1] == (wanted,) for one in given) or found.x is None:
            raise ValueError(f"batch {number} of a source must be Rows of {wanted} tensors, got {shown(found)}")
        return found

    @contextmanager
    def named(self, number: int, rows: slice = ALL) -> Iterator[None]:
        """Gives a `RowError` about some `rows` of batch `number` the name of the row, as a ValueError."""
        try:
            yield
        except RowError as error:
            row = (rows.start or 0) + error.row * (rows.step or 1)
            raise ValueError(f"{self.name(number, row)} {error.problem}") from None


def rows_of(value: Any, rows: slice) -> Any:
    """Some rows of tensors and lists with an entry for each row, and of tuples and dicts of them.

    Raises TypeError for what has no rows.
    """
    if value is None:
        return None
    if isinstance(value, Tensor | list):
        return value[rows]
    if isinstance(value, dict):
        return {key: rows_of(one, rows) for key, one in value.items()}
    if isinstance(value, tuple):
        each = [rows_of(one, rows) for one in value]
        return type(value)(*each) if hasattr(value, "_fields") else tuple(each)
    raise TypeError(f"notes to share out must be tensors, lists, or tuples and dicts of them, got {shown(value)}")


class RowError(ValueError):
    """A row of a batch is not what it must be."""

    def __init__(self, row: int, problem: str):
        super().__init__(row, problem)  # both, to come out of another process
        self.row, self.problem = row, problem


def as_source(data: Dataset[Any] | Source, read: Read, *, batch: int, seed: int, workers: int = 0) -> Source:
    """A source as it is, and a data set of (image or tokens, condition) in an order of our own.

    `read` makes of a list of conditions what the network is given. Raises ValueError for an empty data set, TypeError
    for what is none.
    """
    workers = whole("workers", workers, 0)
    if isinstance(data, Source):
        return data
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(f"data must be a data set with a length and rows by number, or a Source, got {shown(data)}")
    return Shuffled(data, read, batch=batch, seed=seed, workers=workers)


class Shuffled(Source):
    """Batches of a map-style data set, epoch after epoch, each in an order that depends on its number and the seed."""

    def __init__(self, data: Dataset[Any], read: Read, *, batch: int, seed: int = 0, workers: int = 0):
        self.data, self.read, self.batch, self.seed, self.workers = data, read, batch, seed, workers
        self.size = len(data)  # type: ignore[arg-type]  # a map-style data set has a length
        if self.size == 0:
            raise ValueError("the data set is empty, it must have at least one row")
        self._order = Order(self.size, batch, seed)
        self._next, self._rows, self._loaded = -1, ALL, iter(())  # type: tuple[int, slice, Iterator[Any]]

    def rows(self, number: int, count: int, generator: Generator) -> Rows:
        """The first `count` rows of batch `number`; the generator is not used.

        Raises ChildProcessError where a process that loads data has died.
        """
        return self.part(number, count, generator, ALL)

    def part(self, number: int, count: int, generator: Generator, rows: slice) -> Rows:
        """Some of them; no others are loaded."""
        if (number, rows) != (self._next, self._rows):
            with dead_children_unheard():
                self._next, self._rows, self._loaded = number, rows, iter(self._loader(number, rows))
        try:
            found = next(self._loaded)
        except Exception as error:
            self._next = -1  # the next batch begins anew
            if not self.workers:
                raise
            if isinstance(error, RuntimeError | OSError | EOFError) and not str(error).startswith(OF_A_ROW):
                raise ChildProcessError("a process that loads data has died, killed or for want of memory") from None
            raise error.with_traceback(None) from None  # torch's frames would keep the loader in a cycle
        self._next += 1
        with self.named(number, rows):
            if isinstance(found, RowError):
                raise found
            x, conditions = found
            kept = len(range(count)[rows])
            return Rows(x[:kept], self.read(conditions[:kept]))

    def name(self, number: int, row: int) -> str:
        """By the index in the data set."""
        return f"item {self.indices(number)[row]} of the data set"

    def _loader(self, first: int, rows: slice) -> DataLoader[Any]:
        order = self._order  # not `self`: the loader of a cycle of references waits five seconds for each process
        indices = (order(number)[rows] for number in itertools.count(first))
        own = Generator().manual_seed(self.seed)  # it would take a number from the global one
        return DataLoader(
            self.data, batch_sampler=_Once(indices), collate_fn=_stacked, num_workers=self.workers, generator=own
        )

    def indices(self, number: int) -> list[int]:
        """The indices of batch `number`."""
        return self._order(number)


class Order:
    """The indices of each batch: every row occurs once in each epoch, in an order of the seed and the epoch."""

    def __init__(self, size: int, batch: int, seed: int):
        self.size, self.batch = size, batch
        self._epoch = functools.lru_cache(maxsize=2)(functools.partial(_permutation, size, seed))

    def __call__(self, number: int) -> list[int]:
        numbers = range(number * self.batch, (number + 1) * self.batch)
        return [self._epoch(n // self.size)[n % self.size] for n in numbers]


def _permutation(size: int, seed: int, epoch: int) -> list[int]:
    generator = Generator().manual_seed(seed * 1_000_003 + epoch)
    found: list[int] = torch.randperm(size, generator=generator).tolist()
    return found


class _Once:
    """An iterator as an iterable, which is what a DataLoader asks for."""

    def __init__(self, lists: Iterator[list[int]]):
        self.lists = lists

    def __iter__(self) -> Iterator[list[int]]:
        return self.lists


def stack(items: Sequence[Any]) -> tuple[Tensor, list[Any]]:
    """Rows (image or tokens, condition) as one tensor and a list; raises RowError for a row that is none."""
    for row, item in enumerate(items):
        if not (isinstance(item, tuple | list) and len(item) == 2 and _is_plain(item[0])):
            raise RowError(row, f"must be (tensor, condition), got {shown(item)}")
        x, first = item[0], items[0][0]
        if x.shape != first.shape or x.dtype != first.dtype or not (x.dtype == torch.int64 or x.is_floating_point()):
            raise RowError(
                row,
                "must be an image, float [C, H, W] in [-1, 1], or tokens, int64 [L], of one shape with the others, "
                f"got {x.dtype} {list(x.shape)} beside {first.dtype} {list(first.shape)}",
            )
    return torch.stack([item[0] for item in items]), [item[1] for item in items]


def _is_plain(x: Any) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided and x.device.type != "meta"


def _stacked(items: Sequence[Any]) -> tuple[Tensor, list[Any]] | RowError:
    """`stack`, with an error as a value: raised in a process of its own, it would come with two tracebacks."""
    try:
        return stack(items)
    except RowError as error:
        return error


def check_within(x: Tensor, least: float, most: float, what: str) -> None:
    """Raises RowError for the first row of `[B, ...]` with a value that is not from `least` to `most`."""
    low, high = x.flatten(1).aminmax(dim=1)
    wrong = ~((low >= least) & (high <= most))  # of NaN, too
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise RowError(row, f"must hold {what}, got values from {low[row]:g} to {high[row]:g}")


def check_image(x: Tensor, codec: VQModel) -> None:
    """Raises RowError for what is no batch of images `[B, C, H, W]` in [-1, 1] that a codec can encode."""
    factor, channels = codec.factor, codec.config["in_channels"]
    whole_patches = [side for side in x.shape[2:] if side and side % factor == 0]
    if not (x.is_floating_point() and x.ndim == 4 and x.shape[1] == channels and len(whole_patches) == 2):
        wanted = f"float [{channels}, H, W] with sides divisible by {factor}"
        raise RowError(0, f"must be an image, {wanted}, got {x.dtype} {list(x.shape[1:])}")
    check_within(x, -1 - ROUNDING, 1 + ROUNDING, "an image in [-1, 1]")
