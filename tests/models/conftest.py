"""Networks with seeded random weights, small enough to run in tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base

from slicecast.models.sam2_build import VIDEO_PREDICTOR, build_sam2

HIERA_T = "configs/sam2.1/sam2.1_hiera_t.yaml"
NANO = Path(__file__).parents[2] / "configs" / "sam2_nano.yaml"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small lose more by waiting for other threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def hiera() -> SAM2Base:
    """SAM 2.1 tiny at 128 px, as sam2's own video predictor."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_sam2(HIERA_T, image_size=128, target=VIDEO_PREDICTOR)
    model.fill_hole_area = 0
    return model


@pytest.fixture(scope="session")
def nano() -> SAM2Base:
    """The bundled model's architecture at 64 px."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_sam2(NANO, image_size=64)
