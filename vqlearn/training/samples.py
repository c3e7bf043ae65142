"""Pictures of fixed prompts, drawn every so often while a denoiser learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vqlearn.pipeline import VQDiffusionPipeline
from vqlearn.training import processes
from vqlearn.training.denoiser import DenoiserStage

IN_A_ROW, LARGE, STEPS = 4, 128, 25


class Sampled:
    """A stage that draws its prompts with the averaged weights, as `folder/000500.png` after update 500.

    The draws have a generator of their own, so the weights are those of the stage alone. `prompts` are those of a call
    of the pipeline, none for no pictures, and `call` its other arguments. Raises ValueError for a prompt that the
    pipeline does not read.
    """

    def __init__(self, stage: DenoiserStage, prompts: Sequence[Any], folder: Path, every: int, **call: Any):
        self.prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if self.prompts:
            stage.pipe.conditions.prompts(self.prompts)  # now, and not after many updates
        self.stage, self.folder, self.every, self.call = stage, folder, every, call

    def step(self, number: int) -> dict[str, float]:
        """One update of the stage, after some of which pictures are drawn."""
        figures = self.stage.step(number)
        if (number + 1) % self.every == 0 or number + 1 == self.stage.recipe.steps:
            images = self.drawn()
            if images:
                self.folder.mkdir(parents=True, exist_ok=True)
                grid(images).save(self.folder / f"{number + 1:06}.png")
        return figures

    def drawn(self) -> list[Image.Image]:
        """A picture for each prompt, by the averaged weights, the same for the same weights.

        Of several processes the first draws; the others have none.
        """
        pipe, mean = self.stage.pipe, self.stage.mean_networks()
        if processes.rank() or not self.prompts:
            return []
        learned: Any = {"text_encoder": mean.text_encoder, "transformer": mean.eval().transformer}
        if mean.null_text is not None:
            learned["learned_classifier_free_sampling_embeddings"] = mean.null_text
        average = VQDiffusionPipeline(**{**pipe.components, **learned})
        average.defaults = pipe.defaults
        average.set_progress_bar_config(disable=True)
        average.to(self.stage.device)
        steps = min(STEPS, pipe.schedule.num_steps)
        generator = torch.Generator().manual_seed(0)
        images: list[Image.Image] = average(self.prompts, steps, generator=generator, **self.call).images
        if self.stage.sharded:
            mean.to("cpu")
        return images

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)


def grid(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size side by side, small ones enlarged by a whole factor."""
    width, height = images[0].size
    factor = max(1, LARGE // width)
    columns = min(IN_A_ROW, len(images))
    rows = -(-len(images) // columns)
    found = Image.new("RGB", (columns * (width * factor + 4) - 4, rows * (height * factor + 4) - 4), "white")
    for number, image in enumerate(images):
        place = (number % columns * (width * factor + 4), number // columns * (height * factor + 4))
        found.paste(image.resize((width * factor, height * factor), Image.Resampling.NEAREST), place)
    return found
