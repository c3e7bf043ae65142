"""What several test files share: the data folder, the shipped pipeline, loaded once, and how hypothesis runs."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: spinning costs minutes on a busy machine

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # a slow machine is no failure


@pytest.fixture(scope="session")
def data() -> Path:
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def shipped():
    """The pipeline of the package; tests must leave it as it is."""
    from vqlearn import VQDiffusionPipeline

    pipe = VQDiffusionPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def shallow():
    """The same pipeline with two of the network's six layers: a call is the same, at less than half its cost."""
    from shallow import first_layers

    from vqlearn import VQDiffusionPipeline

    pipe = VQDiffusionPipeline.from_pretrained()
    pipe.transformer = first_layers(pipe.transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def site_folder(tmp_path_factory) -> Path:
    """The whole site of the course; tests must leave it as it is."""
    from vqlearn.course import copying, site

    folder = tmp_path_factory.mktemp("site") / "pages"
    site.build(folder, copying.notebooks())
    return folder


@pytest.fixture
def seeded():
    """A fresh generator for each call: `seeded(7)`."""
    return lambda seed: torch.Generator().manual_seed(seed)
