"""The bundled weights keep what their card says: on generated clips that training never saw, and on the sample data."""

import pytest

from slicecast.models.registry import bundled_spec
from slicecast.models.sam2_build import build_sam2
from slicecast.models.weights import load_state_dict
from slicecast_lab.evaluation.promote import FLOOR_CASES, PROMPTS, dice_by_prompt, sample_cases
from slicecast_lab.generated.batches import BatchSpec
from slicecast_lab.training.validate import make_validator


@pytest.fixture(scope="module")
def numbers():
    spec = bundled_spec()
    model = build_sam2(spec.architecture, image_size=spec.image_size)
    model.load_state_dict({name: tensor.float() for name, tensor in load_state_dict(spec).items()})
    return make_validator(BatchSpec(frames=40, slices=(5,), size_px=spec.image_size), seed=77, count=1)(model)


@pytest.mark.parametrize(("prompt", "least"), [("mask", 0.55), ("box", 0.45), ("click", 0.3), ("clicks4", 0.4)])
def test_bundled_weights_keep_their_iou(numbers, prompt, least):
    assert numbers[prompt] > least


def test_the_object_score_tells_slices_without_the_object(numbers):
    assert numbers["presence_auc"] > 0.65


@pytest.fixture(scope="module")
def sample_dice():
    cases = [files for files in sample_cases() if files.id in FLOOR_CASES]
    assert len(cases) == len(FLOOR_CASES)
    scores = dice_by_prompt(bundled_spec(), cases, device="cpu")
    return {prompt: sum(values) / len(values) for prompt, values in scores.items()}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_bundled_weights_reach_their_stated_dice_on_the_sample_data(sample_dice, prompt):
    """The floors are in configs/models.yaml; they rise with better weights, and never fall."""
    assert sample_dice[prompt] >= bundled_spec().floors[prompt]
