"""Networks under the names of diffusers: loaded and saved by themselves, counted, and called with its keywords."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import torch
from torch import nn

from vqlearn.arguments import shown
from vqlearn.compatibility import Configured, Folder, Output, absent, check_saving, unneeded

ATTENTION = "attention is torch's scaled_dot_product_attention, which chooses the fastest and smallest way itself"
ONE_DEVICE = "a network stands on one device, `to` moves it"
NETWORKS = {
    "compile_repeated_blocks": "pipe.compile() makes one program of the whole denoiser",
    "dequantize": "weights are kept in floating point, none are quantised",
    "enable_gradient_checkpointing": "training keeps all activations; a smaller batch takes less memory",
    "enable_group_offload": ONE_DEVICE,
    "enable_layerwise_casting": "a network has one dtype: choose it by torch_dtype, or by `to`",
    "enable_parallelism": "training on several devices runs one process on each, `torchrun -m vqlearn train`",
    "register_to_config": "the configuration says how the network was built; make another one with from_config",
}
KERNELS = dict.fromkeys(
    (
        "enable_xformers_memory_efficient_attention", "disable_xformers_memory_efficient_attention",
        "set_use_memory_efficient_attention_xformers", "enable_npu_flash_attention", "disable_npu_flash_attention",
        "set_use_npu_flash_attention", "enable_xla_flash_attention", "disable_xla_flash_attention",
        "set_use_xla_flash_attention", "set_attention_backend", "reset_attention_backend",
    ),
    ATTENTION,
)  # fmt: skip


@unneeded(KERNELS)
@absent(NETWORKS)
class Model(Configured, nn.Module):
    """A network that is loaded and saved by itself, and the questions of diffusers that every network answers."""

    is_gradient_checkpointing = False
    config_class: Any

    @classmethod
    def from_pretrained(cls, name: Folder, *, subfolder: str | None = None, **options: Any) -> Self:
        """The network of a folder or of a model's `subfolder`, in evaluation mode; raises CheckpointError (an OSError).

        `name` is a folder, a model of the hub, or the name of a shipped one, and `options` are those of
        `VQDiffusionPipeline.from_pretrained`.
        """
        from vqlearn.checkpoints.parts import load_part

        return load_part(cls, name, subfolder, **options)

    def save_pretrained(self, folder: Folder, **options: Any) -> None:
        """Write `config.json` and the weights, as safetensors."""
        from vqlearn.checkpoints.parts import save_part

        check_saving(**options)
        save_part(self, folder)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights are."""
        left_out = {id(one.weight) for one in self.modules() if exclude_embeddings and isinstance(one, nn.Embedding)}
        counted = (one for one in self.parameters() if one.requires_grad or not only_trainable)
        return sum(one.numel() for one in counted if id(one) not in left_out)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the weights, with `return_buffers` of all tensors."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def disable_gradient_checkpointing(self) -> None:
        """Nothing is to be done: there is none."""

    def __getattr__(self, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            return self._setting(name)

    @classmethod
    def _unknown(cls, sentence: str) -> None:
        raise ValueError(f"{sentence}; what changes a network is never left out")

    @classmethod
    def _settings(cls) -> Iterable[str]:
        known: Any = cls.config_class
        return {*known.__dataclass_fields__} - {"_class_name"} | {*known.ignored}


class _Sample(NamedTuple):
    sample: torch.Tensor


class Transformer2DModelOutput(Output, _Sample):
    """log p(x_0 | x_t), class-first `[B, K, L]`."""


THEIRS = {"hidden_states", "encoder_hidden_states", "class_labels", "return_dict"}  # what diffusers' call is known by
UNREAD = {"added_cond_kwargs", "cross_attention_kwargs", "attention_mask", "encoder_attention_mask"}


class DenoisingModel(Model):
    """A network that is called with diffusers' keywords too: `network(x_t, encoder_hidden_states=text, timestep=t)`.

    Then it answers as diffusers', with an output whose `sample` is log p(x_0 | x_t), class-first, float32 or float64.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.keys() & (THEIRS | UNREAD):
            return super().__call__(*args, **kwargs)
        if unread := [name for name in UNREAD if kwargs.pop(name, None) is not None]:
            raise ValueError(f"{unread[0]} must be None: every token attends to every other and to all of the text")
        given = dict(zip(("hidden_states", "encoder_hidden_states", "timestep"), args, strict=False)) | kwargs
        x_t, t, condition = (given.get(name) for name in ("hidden_states", "timestep", "encoder_hidden_states"))
        condition = given.get("class_labels") if condition is None else condition
        if not isinstance(x_t, torch.Tensor) or x_t.ndim != 2 or x_t.is_floating_point():
            raise ValueError(f"hidden_states must be tokens, int64 [B, L], got {shown(x_t)}")
        if t is None or not (condition is None or isinstance(condition, torch.Tensor)):
            raise ValueError(f"need a timestep and a condition that is a tensor, got {shown(t)} and {shown(condition)}")
        logits = super().__call__(x_t, condition, torch.as_tensor(t, device=x_t.device))
        log_p = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).transpose(1, 2)
        return Transformer2DModelOutput(log_p) if given.get("return_dict", True) else (log_p,)
