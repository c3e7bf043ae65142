"""How well pictures go with their captions, by a CLIP model that has learned both elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vqlearn.evaluation.features import fetched, pooled, why


class ClipScore:
    """100 times the cosine of the angle between a picture and its caption in the space of a CLIP model, or 0 below.

    Hessel et al. 2021, with 100 in place of 2.5, as is usual for pictures that are drawn. `model` is a folder or a name
    on the hub of transformers' `CLIPModel`, with its tokenizer and image processor. Raises ValueError where there is
    none.
    """

    def __init__(self, model: str, device: str = "cpu"):
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        folder = fetched(model)
        try:
            self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.model = CLIPModel.from_pretrained(folder).eval().to(device)
        except Exception as error:  # of a folder of any kind
            raise ValueError(
                f"{model!r} is no CLIP model of transformers ({why(error)}); it takes model, tokenizer and image "
                "processor"
            ) from None
        if len(self.tokenizer) <= len(self.tokenizer.all_special_tokens):  # what transformers makes of no files
            raise ValueError(f"{model!r} has no tokenizer, which a CLIP score takes")
        self.name, self.device = model, device

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray, captions: Sequence[str]) -> Tensor:
        """Of pictures uint8 `[N, H, W, 3]` and as many captions, float `[N]`; a long caption is cut."""
        images = self.processor(images=list(pictures), return_tensors="pt").to(self.device)
        most = self.model.config.text_config.max_position_embeddings
        how = {"padding": True, "truncation": True, "max_length": most, "return_tensors": "pt"}
        texts = self.tokenizer(list(captions), **how).to(self.device)
        seen = pooled(self.model.get_image_features(**images))
        said = pooled(self.model.get_text_features(**texts))
        return 100 * torch.cosine_similarity(seen, said).clamp(min=0).cpu()
