"""vqlearn: learn, run and research VQ-Diffusion, discrete diffusion over the tokens of an image.

Names are imported when they are first used, so `import vqlearn` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqlearn.conditioning import LearnedClassifierFreeSamplingEmbeddings as LearnedClassifierFreeSamplingEmbeddings
    from vqlearn.diffusion import evidence_bound as evidence_bound
    from vqlearn.diffusion import training_loss as training_loss
    from vqlearn.guidance import guide as guide
    from vqlearn.guidance import keep_known as keep_known
    from vqlearn.guidance import top_k as top_k
    from vqlearn.guidance import truncate as truncate
    from vqlearn.pipeline import ImagePipelineOutput as ImagePipelineOutput
    from vqlearn.pipeline import VQDiffusionPipeline as VQDiffusionPipeline
    from vqlearn.sampling import ancestral as ancestral
    from vqlearn.sampling import strided_times as strided_times
    from vqlearn.schedule import MaskReplaceSchedule as MaskReplaceSchedule
    from vqlearn.scheduler import VQDiffusionScheduler as VQDiffusionScheduler
    from vqlearn.scheduler import VQDiffusionSchedulerOutput as VQDiffusionSchedulerOutput
    from vqlearn.transformer import Transformer2DModel as Transformer2DModel
    from vqlearn.transition import p_sample_step as p_sample_step
    from vqlearn.transition import q_log_probs as q_log_probs
    from vqlearn.transition import q_posterior as q_posterior
    from vqlearn.transition import q_sample as q_sample
    from vqlearn.transition import transition_matrix as transition_matrix
    from vqlearn.vqvae import VQModel as VQModel
    from vqlearn.weights import CheckpointError as CheckpointError

__version__ = "0.1.0"

_HOME = {
    "MaskReplaceSchedule": "schedule",
    "transition_matrix": "transition",
    "q_log_probs": "transition",
    "q_sample": "transition",
    "q_posterior": "transition",
    "p_sample_step": "transition",
    "training_loss": "diffusion",
    "evidence_bound": "diffusion",
    "ancestral": "sampling",
    "guide": "guidance",
    "top_k": "guidance",
    "keep_known": "guidance",
    "strided_times": "sampling",
    "truncate": "guidance",
    "VQModel": "vqvae",
    "Transformer2DModel": "transformer",
    "LearnedClassifierFreeSamplingEmbeddings": "conditioning",
    "VQDiffusionScheduler": "scheduler",
    "VQDiffusionSchedulerOutput": "scheduler",
    "VQDiffusionPipeline": "pipeline",
    "CheckpointError": "weights",
    "ImagePipelineOutput": "pipeline",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"vqlearn.{_HOME[name]}"), name)
    raise AttributeError(f"module 'vqlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
