"""The tokens of a folder's pictures: made once by a codec, kept on disk, and read from there by every update."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator
from tqdm.auto import tqdm

from vqlearn.data.folder import PictureFolder
from vqlearn.data.store import RowStore
from vqlearn.networks.vqvae import VQModel
from vqlearn.training.batches import ALL, Order, Read, Rows, Source

AT_ONCE = 64  # pictures that are encoded before their tokens are written


class Tokens(NamedTuple):
    """The tokens of N pictures: those of picture i are `rows[places[i]]`."""

    rows: np.ndarray  # [at least N, L], mapped into memory
    places: np.ndarray  # int64 [N]


def codec_digest(codec: VQModel) -> str:
    """A SHA-256 of a codec's settings and weights, by which its tokens are known."""
    found = hashlib.sha256(json.dumps(dict(codec.config), sort_keys=True, default=str).encode())
    for name, tensor in sorted(codec.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {[*plain.shape]}".encode())
        found.update(plain.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def tokens_of(
    codec: VQModel, pictures: PictureFolder, cache: Path, *, device: str = "cpu", progress: bool = False
) -> Tokens:
    """The tokens that a codec makes of all pictures; those that are in `cache`, whole and of this codec, stay.

    Two bytes a token, four for a codec of more than 65536 codes. Raises OSError where the cache cannot be written.
    """
    made = {"codec": codec_digest(codec), "pictures": pictures.made}
    length = (pictures.side // codec.factor) ** 2
    store = RowStore(cache, "tokens", (length,), np.uint16 if codec.num_tokens <= 2**16 else np.int32, made)
    todo = [i for i, digest in enumerate(pictures.digests) if digest not in store]
    store.check_space(len(todo))
    codec.to(device).eval()
    with tqdm(total=len(todo), disable=not (progress and todo), desc="tokens") as bar:
        for start in range(0, len(todo), AT_ONCE):
            some = todo[start : start + AT_ONCE]
            images = torch.stack([pictures[i][0] for i in some]).to(device)
            store.add([pictures.digests[i] for i in some], codec.encode(images).cpu().numpy())
            bar.update(len(some))
    return Tokens(store.mapped(), store.at(pictures.digests))


class TokenRows(Source):
    """Tokens of some pictures, each once in an epoch, with one of the conditions that it has, drawn anew each time.

    `conditions[i]` are the captions of picture i, or the number of its class, or none; `read` makes of a list of them
    what a network is given; `names[i]` is how a message names the picture.
    """

    def __init__(
        self,
        tokens: Tokens,
        indices: Sequence[int],
        conditions: Sequence[tuple[Any, ...]],
        names: Sequence[str],
        read: Read,
        *,
        batch: int,
        seed: int,
    ):
        self.tokens, self.indices_of_all, self.conditions, self.names = tokens, indices, conditions, names
        self.read = read
        self.order = Order(len(indices), batch, seed)

    def rows(self, number: int, count: int, generator: Generator) -> Rows:
        """The first `count` rows of batch `number`."""
        return self.part(number, count, generator, ALL)

    def part(self, number: int, count: int, generator: Generator, rows: slice) -> Rows:
        """Some of them; no others are read."""
        chosen = self._chosen(number)[:count][rows]
        x = torch.from_numpy(self.tokens.rows[self.tokens.places[chosen]].astype(np.int64))
        u = torch.rand(count, generator=generator, device=generator.device)[rows].tolist()
        said = [self.conditions[i] or (None,) for i in chosen]
        return Rows(x, self.read([one[int(share * len(one))] for one, share in zip(said, u, strict=True)]))

    def name(self, number: int, row: int) -> str:
        """By the name of the file."""
        return self.names[self._chosen(number)[row]]

    def _chosen(self, number: int) -> list[int]:
        return [self.indices_of_all[i] for i in self.order(number)]
