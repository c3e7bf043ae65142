"""vqlearn: learn, run and research VQ-Diffusion, discrete diffusion over the tokens of an image.

Names are imported when they are first used, so `import vqlearn` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqlearn.autoregression import AutoregressivePipeline as AutoregressivePipeline
    from vqlearn.checkpoints.reading import CheckpointError as CheckpointError
    from vqlearn.guidance import guide as guide
    from vqlearn.guidance import keep_known as keep_known
    from vqlearn.guidance import top_k as top_k
    from vqlearn.guidance import truncate as truncate
    from vqlearn.keeping import Keeping as Keeping
    from vqlearn.networks.autoregressive import AutoregressiveTransformer as AutoregressiveTransformer
    from vqlearn.networks.text import LearnedClassifierFreeSamplingEmbeddings as LearnedClassifierFreeSamplingEmbeddings
    from vqlearn.networks.transformer import Transformer2DModel as Transformer2DModel
    from vqlearn.networks.vqvae import VQModel as VQModel
    from vqlearn.objective import evidence_bound as evidence_bound
    from vqlearn.objective import training_loss as training_loss
    from vqlearn.pipeline import ImagePipelineOutput as ImagePipelineOutput
    from vqlearn.pipeline import VQDiffusionPipeline as VQDiffusionPipeline
    from vqlearn.reverse import Sampler as Sampler
    from vqlearn.samplers import SAMPLERS as SAMPLERS
    from vqlearn.sampling import ancestral as ancestral
    from vqlearn.sampling import strided_times as strided_times
    from vqlearn.schedule import MaskReplaceSchedule as MaskReplaceSchedule
    from vqlearn.scheduler import VQDiffusionScheduler as VQDiffusionScheduler
    from vqlearn.scheduler import VQDiffusionSchedulerOutput as VQDiffusionSchedulerOutput
    from vqlearn.transition import p_sample_step as p_sample_step
    from vqlearn.transition import q_log_probs as q_log_probs
    from vqlearn.transition import q_posterior as q_posterior
    from vqlearn.transition import q_sample as q_sample
    from vqlearn.transition import transition_matrix as transition_matrix

__version__ = "0.1.0"

_HOME = {
    "MaskReplaceSchedule": "schedule",
    "transition_matrix": "transition",
    "q_log_probs": "transition",
    "q_sample": "transition",
    "q_posterior": "transition",
    "p_sample_step": "transition",
    "training_loss": "objective",
    "evidence_bound": "objective",
    "SAMPLERS": "samplers",
    "Sampler": "reverse",
    "ancestral": "sampling",
    "guide": "guidance",
    "top_k": "guidance",
    "keep_known": "guidance",
    "Keeping": "keeping",
    "strided_times": "sampling",
    "truncate": "guidance",
    "VQModel": "networks.vqvae",
    "Transformer2DModel": "networks.transformer",
    "LearnedClassifierFreeSamplingEmbeddings": "networks.text",
    "VQDiffusionScheduler": "scheduler",
    "VQDiffusionSchedulerOutput": "scheduler",
    "VQDiffusionPipeline": "pipeline",
    "AutoregressivePipeline": "autoregression",
    "AutoregressiveTransformer": "networks.autoregressive",
    "CheckpointError": "checkpoints.reading",
    "ImagePipelineOutput": "pipeline",
}
_MODULES = {
    "scenes": "data.scenes",
    "emoji": "data.emoji",
    "plots": "course.plots",
    "checks": "course.checks",
    "widgets": "course.widgets",
    "exact": "exactness",
    "exactness": "exactness",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"vqlearn.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"vqlearn.{_MODULES[name]}")
    raise AttributeError(f"module 'vqlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_MODULES])
