"""How an update is computed: what saves memory or time, and changes nothing but the rounding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from vqlearn.arguments import whole


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
