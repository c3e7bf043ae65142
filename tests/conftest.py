"""What several test files share: the data folder, and the shipped pipeline, loaded once."""

from pathlib import Path

import pytest
import torch


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


@pytest.fixture
def seeded():
    """A fresh generator for each call: `seeded(7)`."""
    return lambda seed: torch.Generator().manual_seed(seed)
