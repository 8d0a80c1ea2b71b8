from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slicecast.models import sam2_forward as steps
from slicecast.models.sam2_build import build_sam2
from slicecast.models.sam2_forward import BankBatch, Features, Memory

NANO = Path(__file__).parents[2] / "configs" / "sam2_nano.yaml"
SIZE = 64


@pytest.fixture(scope="module")
def spatial(nano):
    model = build_sam2(NANO, image_size=SIZE, pointers=False)
    model.load_state_dict(nano.state_dict())
    return model


@pytest.fixture(scope="module")
def features(spatial):
    with torch.no_grad():
        return steps.encode(spatial, torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def memory(spatial, features):
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[:, :, 16:40, 20:44] = 1
    with torch.no_grad():
        return steps.remember(spatial, features, steps.prompt_with_mask(spatial, features, mask), prompted=True)


def tracked(model, features: Features, memory: Memory) -> torch.Tensor:
    with torch.no_grad():
        return steps.track(model, features, BankBatch({0: memory}, {1: memory}), time=2, num_slices=8).candidates


def test_pointers_change_nothing_and_maps_do(spatial, nano, features, memory):
    other = replace(memory, pointer=memory.pointer + 1)
    blank = replace(memory, features=torch.zeros_like(memory.features))
    answer = tracked(spatial, features, memory)
    assert torch.equal(answer, tracked(spatial, features, other))
    assert not torch.allclose(answer, tracked(spatial, features, blank))
    assert not torch.allclose(tracked(nano, features, memory), tracked(nano, features, other))


def test_memory_kept_in_bfloat16_is_taken(spatial, features, memory):
    stored = replace(memory, features=memory.features.to(torch.bfloat16))
    promoted = replace(memory, features=stored.features.float())
    answer = tracked(spatial, features, stored)
    assert answer.dtype == torch.float32
    assert torch.allclose(answer, tracked(spatial, features, promoted), atol=1e-5)
