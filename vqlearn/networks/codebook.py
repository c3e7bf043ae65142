"""The codebook of a VQ-VAE: the nearest code of each latent, and how the codes learn (van den Oord et al. 2017)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


class Codebook(nn.Module):
    """K vectors. A latent's code is the closest one in Euclidean distance, or, for a Gumbel codec, its largest logit.

    With `num_tokens` only so many of the codes are in use, `kept` `[num_tokens]` in rising order: token i is code
    kept[i], and a code that is not kept becomes token 0 (as in the published mappings of 8192 to 2887 codes). The
    public code draws a Gumbel codec's code at random from the softmax of its logits; this takes the most likely one.
    """

    kept: Tensor

    def __init__(self, num_codes: int, dim: int, gumbel: bool = False, num_tokens: int | None = None):
        super().__init__()
        self.embedding = nn.Embedding(num_codes, dim)
        nn.init.uniform_(self.embedding.weight, -1 / num_codes, 1 / num_codes)
        if gumbel:
            self.proj = nn.Conv2d(dim, num_codes, 1)
        if num_tokens is not None:
            self.register_buffer("kept", torch.arange(num_tokens))

    def wrong(self) -> str:
        """What is wrong with the codes that are kept, in words; "" for nothing."""
        if not hasattr(self, "kept"):
            return ""
        kept, count = self.kept, len(self.embedding.weight)
        rising = bool((kept.diff() > 0).all()) and 0 <= int(kept[0]) and int(kept[-1]) < count
        return "" if rising else f"the codes that are kept must rise, from 0 to {count - 1}"

    def codes(self, latents: Tensor) -> Tensor:
        """`[B, D, h, w]` -> int64 `[B, h, w]`."""
        if hasattr(self, "proj"):
            return self.proj(latents).argmax(1)
        wide = torch.promote_types(latents.dtype, torch.float32)  # half precision would mistake near ones
        flat, book = latents.permute(0, 2, 3, 1).to(wide), self.embedding.weight.to(wide)  # [B, h, w, D], [K, D]
        # |z - e|^2 without |z|^2, which does not change the order
        return (book.pow(2).sum(-1) - 2 * flat @ book.T).argmin(-1)

    def tokens(self, codes: Tensor) -> Tensor:
        """Tokens of codes, of any shape."""
        if not hasattr(self, "kept"):
            return codes
        at = torch.searchsorted(self.kept, codes).clamp(max=len(self.kept) - 1)
        return torch.where(self.kept[at] == codes, at, 0)

    def vectors(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens, `[...]` -> `[..., D]`."""
        return self.embedding(self.kept[tokens] if hasattr(self, "kept") else tokens)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """The vectors of tokens in any form, as `shape` (B, h, w, D) says: `[B, D, h, w]`; diffusers' name."""
        return self.vectors(indices.reshape(shape[:3])).permute(0, 3, 1, 2)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        """As diffusers': quantised latents, the commitment loss, and (None, None, codes in one row)."""
        quantized, codes = self.straight_through(latents)
        nearest = self.embedding(codes).permute(0, 3, 1, 2)
        loss = (nearest.detach() - latents).pow(2).mean() + 0.25 * (nearest - latents.detach()).pow(2).mean()
        return quantized, loss, (None, None, codes.flatten())

    def straight_through(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest vectors, passing the gradient to `latents` unchanged, and the codes `[B, h, w]`."""
        codes = self.codes(latents)
        quantized = self.embedding(codes).permute(0, 3, 1, 2)
        return latents + (quantized - latents).detach(), codes


class CodebookEMA:
    """Moves a codebook to the running mean of the latents assigned to it (van den Oord et al. 2017, appendix A.1).

    A code used less than `dead` times per batch on average restarts at a latent of the batch, drawn in
    proportion to its squared distance from its code (as k-means++ seeds), so codes go where they are missing.
    The running sums live here and not in the model, whose tensors stay those of the published layout. With `learned`
    each code begins as the mean of one latent; a new codebook has none, so that its codes restart among the latents.
    """

    def __init__(self, codebook: Codebook, decay: float = 0.95, dead: float = 0.05, *, learned: bool = False):
        self.codebook, self.decay, self.dead = codebook, decay, dead
        weight = codebook.embedding.weight
        self.counts = torch.full((len(weight),), float(learned), device=weight.device)
        self.sums = weight.detach().clone()

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor, generator: Generator | None = None) -> int:
        """One step on latents `[B, D, h, w]` and their codes `[B, h, w]`; returns how many codes restarted."""
        flat, codes = latents.permute(0, 2, 3, 1).flatten(0, 2).float(), codes.flatten()
        sums = torch.zeros_like(self.sums).index_add_(0, codes, flat)
        self.counts.lerp_(codes.bincount(minlength=len(self.counts)).float(), 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = (self.counts < self.dead).nonzero()[:, 0]
        if len(dead):
            error = (flat - self.codebook.embedding.weight[codes]).pow(2).sum(-1) + 1e-12
            where = "cpu" if generator is None else generator.device  # torch draws where its generator is
            chosen = torch.multinomial(error.to(where), min(len(dead), len(error)), generator=generator).to(flat.device)
            dead = dead[: len(chosen)]
            self.counts[dead], self.sums[dead] = 1.0, flat[chosen]
        self.codebook.embedding.weight.copy_(self.sums / self.counts.clamp(min=1e-6)[:, None])
        return len(dead)

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])
