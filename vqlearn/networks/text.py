"""Text as the denoiser sees it: plain prompts, CLIP tokens, unit-normalised hidden states, the learned null text."""

from __future__ import annotations

import functools
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vqlearn.arguments import whole
from vqlearn.data.text import plain

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


class LearnedClassifierFreeSamplingEmbeddings(nn.Module):
    """The null text of classifier-free guidance, `[length, hidden_size]`, learned (Tang et al. 2022, section 3.1).

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


_SIGN = re.compile(r"[^\W_]+|[^\w\s\u200c\u200d\ufe0e\ufe0f]|_")


def sentence(text: str) -> str:
    """A `plain` prompt that says something; raises ValueError where nothing is left."""
    said = plain(text)
    if not said:
        raise ValueError("prompt must not be empty; guidance_scale=0 draws pictures without a text")
    return said


def signs(text: str) -> list[str]:
    """The words of a text in lower case, and every other sign by itself, each once.

    >>> signs("A red circle, a RED square!")
    ['a', 'red', 'circle', ',', 'square', '!']
    """
    return list(dict.fromkeys(_SIGN.findall(text.lower())))


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> tuple[Tensor, list[str]]:
    """Token ids `[B, S]`, padded to the model's length, and for each prompt the text that was cut off ("" if none).

    A cut prompt keeps its end token. The tokenizer may be shared: its settings are neither read nor changed.
    """
    length, start, end = tokenizer.model_max_length, tokenizer.bos_token_id, tokenizer.eos_token_id
    rows, cut = [], []
    for found in tokenizer.backend_tokenizer.encode_batch(prompts, add_special_tokens=False):
        parts = (found, *found.overflowing)  # somebody may have set it to cut and to pad
        tokens = [token for part in parts for token, real in zip(part.ids, part.attention_mask, strict=True) if real]
        kept, rest = tokens[: length - 2], tokens[length - 2 :]
        rows.append([start, *kept, end, *[tokenizer.pad_token_id] * (length - 2 - len(kept))])
        cut.append(tokenizer.decode(rest).strip() if rest else "")
    ids = torch.tensor(rows, dtype=torch.int64).reshape(-1, length)
    return ids, cut


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
    return list(_stand_ins().values())


@functools.cache
def _stand_ins() -> dict[int, str]:
    """Each byte's stand-in: itself where it can be printed, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def word_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until every given word is one token (Sennrich et al. 2016).

    Other text still encodes, byte by byte.
    """
    spelled = [_spelled(word) for word in sorted(set(words))]
    merges = []
    while any(len(word) > 1 for word in spelled):
        counts = Counter(pair for word in spelled for pair in itertools.pairwise(word))
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        spelled = [_merge(word, best) for word in spelled]
    return merges


def _spelled(word: str) -> list[str]:
    """The bytes of a word, in UTF-8 and CLIP's lower case, by their stand-ins; the last one ends the word."""
    letters = [_stand_ins()[byte] for byte in unicodedata.normalize("NFC", word).lower().encode()]
    return [*letters[:-1], *(letter + "</w>" for letter in letters[-1:])]


def learned_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    """At most `count` byte-pair merges, those that occur most often in some texts, split into words as CLIP does.

    Every text encodes with them; a frequent word is one token, a rare or unknown one is spelled in parts. Raises
    ValueError for a count below 1.

    >>> learned_merges(["a red pear", "a bear"], 3)
    [('a', 'r</w>'), ('e', 'ar</w>'), ('b', 'ear</w>')]
    """
    from tokenizers import Tokenizer, models, trainers

    reading = clip_tokenizer([], max_length=2).backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = reading.normalizer, reading.pre_tokenizer
    letters = _byte_alphabet()
    last = [letter + "</w>" for letter in letters]  # known before it begins, or equal counts would fall as they like
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(letters) + whole("count", count), initial_alphabet=letters, special_tokens=last,
        end_of_word_suffix="</w>", show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(first, second) for first, second in merges][:count]


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out
