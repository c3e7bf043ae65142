"""Learning: codec, denoiser, the run that can be interrupted, and the recipe of the shipped model.

A stage takes a data set, a recipe and an objective as values, and `fit` runs it.
"""

from vqlearn.training.autoregressive import AutoregressiveStage, TeacherForcing, autoregressive_scene_stage
from vqlearn.training.batches import Rows, Source
from vqlearn.training.codec import CodecStage
from vqlearn.training.conditioned import Task
from vqlearn.training.denoiser import DenoiserStage
from vqlearn.training.detail import Adversary, AdversaryRecipe, FeatureLoss, HiddenStates, PatchDiscriminator
from vqlearn.training.engine import Engine
from vqlearn.training.objectives import Batch, ContinuousTime, CrossEntropy, Objective, PublishedBound
from vqlearn.training.recipes import CodecRecipe, DenoiserRecipe, SceneRecipe, WorldRecipe
from vqlearn.training.runs import fit
from vqlearn.training.scenes import scene_stage
from vqlearn.training.shipped import networks, rival_networks
from vqlearn.training.start import initialise
from vqlearn.training.updates import has_fast_bfloat16, learning_rate

__all__ = [
    "Adversary",
    "AdversaryRecipe",
    "AutoregressiveStage",
    "Batch",
    "CodecRecipe",
    "CodecStage",
    "ContinuousTime",
    "CrossEntropy",
    "DenoiserRecipe",
    "DenoiserStage",
    "Engine",
    "FeatureLoss",
    "HiddenStates",
    "Objective",
    "PatchDiscriminator",
    "PublishedBound",
    "Rows",
    "SceneRecipe",
    "Source",
    "Task",
    "TeacherForcing",
    "WorldRecipe",
    "autoregressive_scene_stage",
    "fit",
    "has_fast_bfloat16",
    "initialise",
    "learning_rate",
    "networks",
    "rival_networks",
    "scene_stage",
]
