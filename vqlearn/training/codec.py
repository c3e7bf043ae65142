"""Learning the codec, a VQ-VAE, on scenes that are drawn as they are needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vqlearn.data import layouts
from vqlearn.networks.vqvae import CodebookEMA, VQModel
from vqlearn.training.recipes import CodecRecipe
from vqlearn.training.updates import step_generator, update


class CodecStage:
    """Straight-through training of a VQModel with an EMA codebook (van den Oord et al. 2017)."""

    def __init__(self, codec: VQModel, recipe: CodecRecipe, device: str = "cpu", autocast: bool = False):
        self.recipe, self.device, self.autocast = recipe, device, autocast
        self.codec = codec.to(device).train()
        self.ema = CodebookEMA(codec.quantize)
        codec.quantize.requires_grad_(False)
        learned = [p for p in codec.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=recipe.learning_rate, weight_decay=0.0)

    def step(self, number: int) -> dict[str, float]:
        """One update on batch `number`; returns the figures of the log."""
        recipe = self.recipe
        generator = step_generator(recipe.seed, number, self.device)
        images = layouts.pictures(layouts.draw("train", recipe.batch, generator=generator, device=self.device))
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
        update(self.optimizer, loss, number, recipe, self.codec.parameters())
        restarted = 0
        if not polishing:
            restarted = self.ema.update(latents.detach(), codes, generator)
        return {"loss": float(error.detach()), "commitment": float(commitment.detach()),
                "restarted": restarted, "used": len(codes.unique())}  # fmt: skip

    def state_dict(self) -> dict:
        return {
            "codec": self.codec.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.codec.load_state_dict(state["codec"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
