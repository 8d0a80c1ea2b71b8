import math

import pytest
import torch

from slicecast_lab.generated.batches import BatchSpec
from slicecast_lab.training.validate import PROMPTS, auc, make_validator


def test_auc_of_perfect_reversed_and_missing_classes():
    scores = torch.tensor([0.1, 0.4, 0.6, 0.9])
    right = torch.tensor([False, False, True, True])
    assert auc(scores, right) == 1
    assert auc(-scores, right) == 0
    assert auc(scores, torch.tensor([False, True, False, True])) == pytest.approx(0.75)
    assert math.isnan(auc(scores, torch.ones(4, dtype=torch.bool)))


def test_an_untrained_network_gets_a_number_for_every_prompt(tiny_model):
    validator = make_validator(BatchSpec(frames=12, slices=(4,), size_px=64), seed=9, count=1)
    numbers = validator(tiny_model)
    assert set(PROMPTS) <= set(numbers)
    assert all(0 <= numbers[name] <= 1 for name in PROMPTS)
    assert 0.5 < validator.copy_iou() < 1
