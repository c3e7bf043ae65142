"""What a denoiser is conditioned on: a text, a class or nothing, each one object with the same two methods.

`prompts(prompt)` makes a list of what a call was given, and names what is wrong with it; `read(prompts)` makes of that
list what the network reads, with its null form for guidance.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqlearn.arguments import shown, whole
from vqlearn.data.text import plain
from vqlearn.networks.autoregressive import AutoregressiveTransformer
from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings, encode_ids, sentence, signs, tokenize
from vqlearn.networks.transformer import Condition, Transformer2DModel
from vqlearn.remarks import remark

LISTED = 100  # known words at most that a remark lists

Prompt = str | int | Sequence[str | int | None] | Tensor | None


@dataclass(frozen=True)
class Reading:
    """What the network reads for `rows` pictures, and its null form for as many (None if there is no guidance)."""

    rows: int
    given: Condition
    null: Condition = None

    @functools.cached_property
    def both(self) -> Condition:
        """For one batch of both branches: the null condition of each row, then the condition of each."""
        return _join(self.null, self.given)

    def times(self, copies: int) -> Reading:
        """Each row `copies` times in turn."""
        repeat = functools.partial(torch.repeat_interleave, repeats=copies, dim=0)
        return self if copies == 1 else Reading(self.rows * copies, _each(self.given, repeat), _each(self.null, repeat))

    def part(self, begin: int, end: int) -> Reading:
        """Rows begin ... end - 1."""
        if (begin, end) == (0, self.rows):
            return self
        return Reading(end - begin, _each(self.given, lambda x: x[begin:end]), _each(self.null, lambda x: x[begin:end]))


def _each(condition: Condition, change: Any) -> Condition:
    if isinstance(condition, list):
        return [(change(keys), change(values)) for keys, values in condition]
    return None if condition is None else change(condition)


def _join(first: Condition, second: Condition) -> Condition:
    if isinstance(first, list) and isinstance(second, list):
        return [(torch.cat([a, c]), torch.cat([b, d])) for (a, b), (c, d) in zip(first, second, strict=True)]
    return torch.cat([first, second]) if isinstance(first, Tensor) and isinstance(second, Tensor) else None


@dataclass(frozen=True)
class Nothing:
    """For a model that reads no prompt: `rows` of None."""

    def prompts(self, prompt: Prompt) -> list[None]:
        """None, once or several times; raises ValueError for anything else."""
        several = _several(prompt)
        if any(one is not None for one in several):
            raise ValueError(f"this model reads no prompt, leave it out; got {shown(prompt)}")
        return several or [None]

    def read(self, prompts: Any, *, guided: bool, negative: Any = None) -> Reading:
        """Nothing, for each row; raises ValueError where there is to be guidance."""
        if negative is not None:
            raise ValueError("negative_prompt is for models that read text")
        if guided:
            raise ValueError("guidance_scale must be 1 for a model that reads neither text nor class")
        return Reading(len(prompts), None)


@dataclass(frozen=True)
class Classes:
    """For a model of `count` classes, with their names; class number `count` is the null class."""

    count: int
    names: Sequence[str]
    device: torch.device

    def prompts(self, prompt: Prompt) -> list[int]:
        """The numbers of classes that are given by number or name; raises ValueError."""
        several = _several(prompt)
        if not several:
            raise ValueError(f"prompt must be a class (its number or name) or a non-empty list of them, got {prompt!r}")
        return [self.number(one) for one in several]

    def read(self, prompts: Any, *, guided: bool, negative: Any = None) -> Reading:
        """Class numbers int64 `[B]`, and the null class as often."""
        if negative is not None:
            raise ValueError("negative_prompt is for models that read text")
        given = torch.tensor(prompts, device=self.device)
        return Reading(len(given), given, torch.full_like(given, self.count) if guided else None)

    def number(self, label: Any) -> int:
        """The number of a class given by number or by one of its names; raises ValueError for none or several."""
        if isinstance(label, str) and list(self.names).count(label) == 1:  # such as "10", for the third of them
            return list(self.names).index(label)
        if isinstance(label, str) and not label.isdecimal():
            return self._named(label)
        try:
            return whole("prompt", int(label) if isinstance(label, str) else label, 0, self.count - 1)
        except ValueError:
            wanted = f"a number from 0 to {self.count - 1} or a name"
            raise ValueError(f"prompt must be a class, {wanted}, got {shown(label)}") from None

    def _named(self, label: str) -> int:
        wanted = plain(label).lower()
        found = [i for i, name in enumerate(self.names) if wanted in (name.lower(), *name.lower().split(", "))]
        if len(found) == 1:
            return found[0]
        near = found or [i for i, name in enumerate(self.names) if wanted and wanted in name.lower()]
        hint = ", ".join(f"{i} {self.names[i]!r}" for i in near[:8]) or f"give a number from 0 to {self.count - 1}"
        what = f"names {len(found)} classes" if found else "names no class of this model"
        raise ValueError(f"prompt {shown(label)} {what}: {hint}")


@dataclass(frozen=True)
class Texts:
    """For a model that reads text: tokenizer, text encoder, null text, and the words that it knows if they are few."""

    tokenizer: Any
    text_encoder: Any
    null_text: LearnedClassifierFreeSamplingEmbeddings
    transformer: Transformer2DModel | AutoregressiveTransformer
    words: Sequence[str] | None = None

    def prompts(self, prompt: Prompt) -> Any:
        """A list of texts, or prompt embeddings `[B, S, D]` as they are; raises ValueError."""
        if isinstance(prompt, Tensor):
            width = self.transformer.config["cross_attention_dim"]
            if prompt.ndim != 3 or prompt.shape[-1] != width or not prompt.is_floating_point() or not prompt.numel():
                raise ValueError(
                    f"prompt embeddings must be floating point [B, S, {width}], got {prompt.dtype} {list(prompt.shape)}"
                )
            return prompt.to(self.transformer.out.weight)
        several = _several(prompt)
        if not several or not all(isinstance(text, str) for text in several):
            raise ValueError(f"prompt must be a string or a non-empty list of strings, got {shown(prompt)}")
        return [sentence(text) for text in several]

    def read(self, prompts: Any, *, guided: bool, negative: Any = None) -> Reading:
        """Every block's keys and values of the texts, and of the null text or the negative prompts."""
        text = prompts if isinstance(prompts, Tensor) else self.encode(prompts)
        negatives = self._negatives(negative, len(text))
        nothing = self._null(negatives, len(text)) if guided else None
        if nothing is not None and nothing.shape != text.shape:
            raise ValueError(
                f"prompt embeddings must be {list(nothing.shape)} as those of the null text, got {list(text.shape)}"
            )
        null = None if nothing is None else self.transformer.remember(nothing)
        return Reading(len(text), self.transformer.remember(text), null)

    def encode(self, prompts: str | list[str]) -> Tensor:
        """Unit-normalised hidden states of prompts, `[B, S, D]`; warns of a prompt too long and of unknown words."""
        if self.tokenizer is None or self.text_encoder is None:
            raise ValueError("this pipeline has no text encoder or no tokenizer: give prompt embeddings [B, S, D]")
        prompts = [plain(text) for text in _several(prompts)]
        if not prompts:
            raise ValueError("prompt must be a string or a non-empty list of strings, got []")
        ids, cut = tokenize(self.tokenizer, prompts)
        for text in filter(None, cut):
            remark(f"the prompt is longer than {ids.shape[1]} tokens; this part was cut off: {text!r}", stacklevel=3)
        if unknown := self.unknown(prompts):
            known = [word for word in self.words or () if word.isalnum()]
            listed = f": {', '.join(known)}" if len(known) <= LISTED else f" {len(known)} others"
            remark(f"this model has never seen {', '.join(map(repr, unknown))}; it knows{listed}", stacklevel=3)
        place = next(self.text_encoder.parameters()).device
        return encode_ids(self.text_encoder, ids.to(place)).to(self.transformer.out.weight)

    def unknown(self, prompts: list[str]) -> list[str]:
        """Words and other signs that a model with a closed vocabulary does not know, in order; [] for an open one."""
        return [] if self.words is None else [sign for sign in signs(" ".join(prompts)) if sign not in self.words]

    def null(self) -> Tensor:
        """The null text of guidance, `[1, S, D]`: learned, or the encoded empty prompt."""
        if not self.null_text.learnable:
            return self.encode("")
        null: Tensor = self.null_text.embeddings[None].to(self.transformer.out.weight)
        return null

    def _negatives(self, negative: Any, count: int) -> list[str] | None:
        """Negative prompts, one per prompt; raises ValueError."""
        if negative is None:
            return None
        texts = [negative] * count if isinstance(negative, str) else _several(negative)
        if len(texts) != count or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"negative_prompt must be a string or a list of {count} strings (one per prompt), got {shown(negative)}"
            )
        return texts

    def _null(self, negatives: list[str] | None, count: int) -> Tensor:
        """The text of the null branch, `[count, S, D]`: negative prompts, or the model's null text."""
        return self.null().expand(count, -1, -1) if negatives is None else self.encode(negatives)


def _several(prompt: Any) -> list[Any]:
    return list(prompt) if isinstance(prompt, list | tuple) else [prompt]


Conditions = Texts | Classes | Nothing
