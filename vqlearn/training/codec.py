"""Learning the codec, a VQ-VAE, on any data set of images."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from vqlearn.arguments import whole
from vqlearn.checkpoints.parts import check_placement
from vqlearn.networks.codebook import CodebookEMA
from vqlearn.networks.vqvae import VQModel
from vqlearn.training import processes
from vqlearn.training.batches import Source, as_source, check_image
from vqlearn.training.checkpoint import check_form
from vqlearn.training.recipes import CodecRecipe
from vqlearn.training.updates import load_optimizer, of_kind, step_generator, update


class CodecStage:
    """Straight-through training of a VQModel with an EMA codebook (van den Oord et al. 2017).

    `data` is a `torch.utils.data.Dataset` of (image, anything): float `[C, H, W]` in [-1, 1]. Or it is a `Source`.
    `learned` is for a codec that has learned before: its codes keep their places at first. Raises ValueError for a
    codec that assigns codes in another way (by logits, or with only some codes in use); it is used as it is.
    """

    def __init__(
        self,
        codec: VQModel,
        data: Dataset[Any] | Source,
        recipe: CodecRecipe | None = None,
        *,
        device: str = "cpu",
        autocast: bool = False,
        workers: int = 0,
        learned: bool = False,
    ):
        self.recipe = recipe = CodecRecipe() if recipe is None else recipe
        of_kind("recipe", recipe, CodecRecipe)
        of_kind("codec", codec, VQModel)
        if codec.config.quantizer != "nearest" or codec.config.num_tokens is not None:
            raise ValueError("a codec with a Gumbel quantizer, or some of whose codes are left out, is used as it is")
        check_placement(str(device))
        self.device, self.autocast = device, autocast
        self.source = as_source(data, lambda _: None, batch=recipe.batch, seed=recipe.seed, workers=workers)
        self.codec = codec.to(device).train()
        self.ema = CodebookEMA(codec.quantize, learned=learned)
        codec.quantize.requires_grad_(False)
        moved = [p for p in codec.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(moved, lr=recipe.learning_rate, weight_decay=0.0)

    def step(self, number: int) -> dict[str, float]:
        """One update on batch `number`; returns the figures of the log.

        Raises ValueError for rows that the codec cannot encode, FloatingPointError before an update that is not finite.
        """
        number = whole("number", number, 0)
        recipe, generator = self.recipe, step_generator(self.recipe.seed, number, self.device)
        own = processes.own(recipe.batch)
        with self.source.named(number, own):
            images = self.source.checked(number, recipe.batch, generator, own).x
            check_image(images, self.codec)
        images = images.to(self.device, torch.float32)
        polishing = number >= recipe.steps * (1 - recipe.polish)
        with torch.set_grad_enabled(not polishing):
            latents = self.codec.latents(images)
            quantized, codes = self.codec.quantize.straight_through(latents)
            commitment = F.mse_loss(latents, quantized.detach())
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self.autocast):
            pictures = self.codec.decode_latents(quantized).float()
        error = F.mse_loss(pictures, images) + F.l1_loss(pictures, images)
        self.optimizer.zero_grad(set_to_none=True)
        loss = error + recipe.commitment * commitment
        loss.backward()
        processes.average_gradients(self.codec.parameters())
        figures = [float(one.detach()) for one in (loss, error, commitment)]
        total, *means = processes.means(figures)
        update(self.optimizer, total, number, recipe, self.codec.parameters())
        codes, restarted = processes.gathered(codes), 0
        if not polishing:
            restarted = self.ema.update(processes.gathered(latents.detach()), codes, generator)
            processes.broadcast([self.codec.quantize.embedding.weight, self.ema.counts, self.ema.sums])
        return {"loss": means[0], "commitment": means[1], "restarted": restarted, "used": len(codes.unique())}

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must have in common with a run that goes on from it."""
        return asdict(self.recipe)

    def state_dict(self) -> dict[str, Any]:
        """Weights, the codebook's running sums and the optimizer's state."""
        return {
            "codec": self.codec.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; a state of another form raises."""
        check_form({**state, "optimizer": None}, {**self.state_dict(), "optimizer": None})
        self.codec.load_state_dict(state["codec"])
        self.ema.load_state_dict(state["ema"])
        load_optimizer(self.optimizer, state["optimizer"])
