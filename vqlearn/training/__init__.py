"""Learning: codec, denoiser, the run that can be interrupted, and the recipe of the shipped model."""

from vqlearn.training.codec import CodecStage
from vqlearn.training.denoiser import DenoiserStage
from vqlearn.training.recipes import CodecRecipe, DenoiserRecipe
from vqlearn.training.runs import fit
from vqlearn.training.start import initialise
from vqlearn.training.updates import has_fast_bfloat16, learning_rate

__all__ = [
    "CodecRecipe",
    "CodecStage",
    "DenoiserRecipe",
    "DenoiserStage",
    "fit",
    "has_fast_bfloat16",
    "initialise",
    "learning_rate",
]
