"""Text as the denoiser sees it: CLIP tokens, unit-normalised hidden states, and the learned null text."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


class LearnedClassifierFreeSamplingEmbeddings(nn.Module):
    """The null text of classifier-free guidance, `[length, hidden_size]`, learned (Tang et al. 2022, section 4.1).

    With `learnable=False` there is no tensor and the null text is the encoded empty prompt.
    """

    def __init__(self, learnable: bool, hidden_size: int | None = None, length: int | None = None):
        super().__init__()
        if learnable and not (hidden_size and length):
            raise ValueError(f"learnable embeddings need hidden_size and length, got {hidden_size} and {length}")
        self.config = {
            "_class_name": "LearnedClassifierFreeSamplingEmbeddings",
            "learnable": learnable,
            "hidden_size": hidden_size,
            "length": length,
        }
        self.learnable = learnable
        self.embeddings: Any = nn.Parameter(torch.zeros(length or 0, hidden_size or 0)) if learnable else None


def encode_ids(text_encoder: CLIPTextModel, input_ids: Tensor) -> Tensor:
    """Last hidden states of token ids, each scaled to unit length: `[B, S]` -> `[B, S, D]`.

    No attention mask: padding is encoded and attended to, as the published model was trained.
    """
    hidden = text_encoder(input_ids)[0]
    return hidden / hidden.norm(dim=-1, keepdim=True)


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> tuple[Tensor, list[str]]:
    """Token ids `[B, S]`, padded to the model's length, and for each prompt the text that was cut off ("" if none).

    A cut prompt keeps its end token.
    """
    length = tokenizer.model_max_length
    ids = tokenizer(prompts, padding="max_length", max_length=length, truncation=True)["input_ids"]
    full = tokenizer(prompts, truncation=False, verbose=False)["input_ids"]
    cut = [tokenizer.decode(row[length - 1 : -1]).strip() if len(row) > length else "" for row in full]
    return torch.tensor(ids), cut


def clip_tokenizer(merges: list[tuple[str, str]], *, max_length: int) -> CLIPTokenizer:
    """CLIP's tokenizer (byte-level BPE) for some merges, padding with "!", id 0, as the published model does.

    The vocabulary is CLIP's: 256 bytes, the same at a word's end, the merges, start and end token.
    """
    from transformers import CLIPTokenizer

    alphabet = _byte_alphabet()
    tokens = alphabet + [char + "</w>" for char in alphabet] + ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token="!", model_max_length=max_length)


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in CLIP's order ("!" first)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]


def word_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until every given word is one token (Sennrich et al. 2016).

    Other text still encodes, byte by byte.
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in sorted(set(words))]
    merges = []
    while any(len(word) > 1 for word in spelled):
        counts = Counter(pair for word in spelled for pair in itertools.pairwise(word))
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        spelled = [_merge(word, best) for word in spelled]
    return merges


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out
