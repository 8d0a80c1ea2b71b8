"""Fixtures of a network small enough to train in a test."""

import pytest
import torch

from slicecast_lab.generated.batches import BatchSpec, GeneratedBatches
from slicecast_lab.training.nano import NanoSettings, fresh_model, settings_from

TINY = {
    "architecture": "sam2_nano.yaml",
    "seed": 1,
    "image_size": 64,
    "workers": 0,
    "threads": 1,
    "processes": 1,
    "loop": {"steps": 20, "warmup_steps": 5, "checkpoint_every": 10, "validate_every": 100},
    "clips": {"frames": 3, "slices": [3], "native_px": [28, 64]},
    "validation": {"batches": 0, "frames": 6, "slices": [3]},
    "prompts": {},
    "loss": {},
}


@pytest.fixture(scope="session")
def tiny_settings() -> NanoSettings:
    return settings_from(TINY, where="the test")


@pytest.fixture(scope="session")
def tiny_batch(tiny_settings):
    return GeneratedBatches(BatchSpec(frames=9, slices=(3,), size_px=64), seed=5)[0]


@pytest.fixture
def tiny_model(tiny_settings):
    return fresh_model(tiny_settings)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, so that runs can be compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
