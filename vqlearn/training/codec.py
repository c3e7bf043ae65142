"""Learning the codec, a VQ-VAE, on any data set of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.data import Dataset

from vqlearn.arguments import whole
from vqlearn.checkpoints.parts import check_placement
from vqlearn.networks.codebook import CodebookEMA
from vqlearn.networks.vqvae import VQModel
from vqlearn.training import processes
from vqlearn.training.batches import Source, as_source, check_image
from vqlearn.training.checkpoint import check_form
from vqlearn.training.detail import Adversary
from vqlearn.training.recipes import CodecRecipe
from vqlearn.training.updates import load_optimizer, of_kind, step_generator, update


class CodecStage:
    """Straight-through training of a VQModel with an EMA codebook (van den Oord et al. 2017).

    `data` is a `torch.utils.data.Dataset` of (image, anything): float `[C, H, W]` in [-1, 1]. Or it is a `Source`.
    `learned` is for a codec that has learned before: its codes keep their places at first. The loss is the squared and
    the absolute error of the pixels and the commitment, plus `term(images, decoded)`, a scalar of one's own such as a
    `FeatureLoss`, plus what an `adversary` says. Raises ValueError for a codec that assigns codes in another way (by
    logits, or with only some codes in use); it is used as it is.
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
        term: Callable[[Tensor, Tensor], Tensor] | None = None,
        adversary: Adversary | None = None,
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
        self.term, self.adversary = term, None if adversary is None else adversary.to(str(device))
        self.ema = CodebookEMA(codec.quantize, learned=learned)
        codec.quantize.requires_grad_(False)
        self.learning = [p for p in codec.parameters() if p.requires_grad]
        self.learners = processes.replicated(self.learning)
        self.optimizer = torch.optim.AdamW(self.learning, lr=recipe.learning_rate, weight_decay=0.0)

    def step(self, number: int) -> dict[str, float]:
        """One update on batch `number`; returns the figures of the log.

        Raises ValueError for rows that the codec cannot encode, FloatingPointError before an update that is not finite.
        """
        number = whole("number", number, 0)
        recipe, generator = self.recipe, step_generator(self.recipe.seed, number, self.device)
        images = self._images(number, generator)
        polishing = number >= recipe.steps * (1 - recipe.polish)
        self.optimizer.zero_grad(set_to_none=True)
        loss, found = processes.learn(self.learners, self._evaluated, number, images, polishing)
        pictures, latents, codes, *figures = found
        total, *means = processes.means([float(one) for one in (loss, *figures)])
        update(self.optimizer, total, number, recipe, self.learning)
        codes, restarted = processes.gathered(codes), 0
        if not polishing:
            restarted = self.ema.update(processes.gathered(latents), codes, generator)
            processes.broadcast([self.codec.quantize.embedding.weight, self.ema.counts, self.ema.sums])
        found = {"loss": means[0], "commitment": means[1], "restarted": restarted, "used": len(codes.unique())}
        return found | (self.adversary.update(number, images, pictures) if self.adversary is not None else {})

    def _evaluated(self, number: int, images: Tensor, polishing: bool) -> tuple[Tensor, list[Tensor]]:
        """All that is minimised; and decoded pictures, latents, codes, the pictures' error and the commitment."""
        with torch.set_grad_enabled(not polishing):
            latents = self.codec.latents(images)
            quantized, codes = self.codec.quantize.straight_through(latents)
            commitment = F.mse_loss(latents, quantized.detach())
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self.autocast):
            pictures = self.codec.decode_latents(quantized).float()
        error, loss = self._losses(number, images, pictures, commitment)
        return loss, [one.detach() for one in (pictures, latents, codes, error, commitment)]

    def _images(self, number: int, generator: Generator) -> Tensor:
        """This process's part of batch `number`."""
        own = processes.own(self.recipe.batch)
        with self.source.named(number, own):
            images = self.source.checked(number, self.recipe.batch, generator, own).x
            check_image(images, self.codec)
        return images.to(self.device, torch.float32)

    def _losses(self, number: int, images: Tensor, pictures: Tensor, commitment: Tensor) -> tuple[Tensor, Tensor]:
        """That of the decoded pictures, and all that is minimised."""
        error = F.mse_loss(pictures, images) + F.l1_loss(pictures, images)
        if self.term is not None:
            error = error + self.term(images, pictures)
        loss = error + self.recipe.commitment * commitment
        if self.adversary is not None:
            loss = loss + self.adversary.loss(number, error, pictures, self.codec.decoder.conv_out.weight)
        return error, loss

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must have in common with a run that goes on from it."""
        more = {} if self.adversary is None else {"adversary": asdict(self.adversary.recipe)}
        return asdict(self.recipe) | more

    def state_dict(self) -> dict[str, Any]:
        """Weights, the codebook's running sums, the optimizer's state, and the adversary's where there is one."""
        found = {
            "codec": self.codec.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        return found if self.adversary is None else {**found, "adversary": self.adversary.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; a state of another form raises."""
        check_form(_form(state), _form(self.state_dict()))
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
        self.codec.load_state_dict(state["codec"])
        self.ema.load_state_dict(state["ema"])
        load_optimizer(self.optimizer, state["optimizer"])


def _form(state: dict[str, Any]) -> dict[str, Any]:
    """A state without what other loaders check."""
    return {name: None if name in ("optimizer", "adversary") else value for name, value in state.items()}
