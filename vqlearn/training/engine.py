"""How an update is computed: what saves memory or time, and changes nothing but the rounding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from vqlearn.arguments import whole
from vqlearn.training import processes


@dataclass(frozen=True)
class Engine:
    """`accumulate` parts of a batch are evaluated one after the other, and their gradients added up.

    With `checkpointing` (of activations) each layer is evaluated once more in the backward pass, which then needs only
    what goes into it. With `compile` each layer is a program that `torch.compile` makes in the first update. Raises
    ValueError for a number of parts below 1.
    """

    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "accumulate", whole("accumulate", self.accumulate, 1))

    def check(self, batch: int) -> None:
        """Raises ValueError for a batch whose rows all processes cannot share out in so many equal parts."""
        own = len(range(batch)[processes.own(batch)])
        if own % self.accumulate:
            raise ValueError(f"accumulate must divide the {own} rows of a batch in a process, got {self.accumulate}")

    def prepare(self, transformer: Any) -> None:
        """Make the layers of a network so that they are evaluated in this way."""
        for block in transformer.transformer_blocks:
            if self.checkpointing:
                for name in called(block, transformer):
                    setattr(block, name, partial(checkpoint, getattr(block, name), use_reentrant=False))
            if self.compile:
                block.compile()


def called(block: Any, transformer: Any) -> tuple[str, ...]:
    """By which methods a network evaluates a layer: a denoiser evaluates its first one in two halves."""
    halves = hasattr(block, "look") and block is transformer.transformer_blocks[0]
    return ("look", "read") if halves else ("forward",)
