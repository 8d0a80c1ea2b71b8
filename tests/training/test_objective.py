import math

import pytest
import torch

from slicecast.models.sam2_forward import Step
from slicecast.training.objective import (
    ClipObjective,
    LossWeights,
    PromptMix,
    iou,
    mask_loss,
    predict,
    propagation_loss,
)
from slicecast.training.propagation import Prediction


def test_the_same_batch_always_costs_the_same(tiny_model, tiny_batch):
    objective = ClipObjective(tiny_model, PromptMix(), LossWeights(), seed=3)
    with torch.no_grad():
        assert objective(tiny_batch).total == objective(tiny_batch).total


def test_predicting_leaves_no_gradients(tiny_model, tiny_batch):
    out = predict(tiny_model, tiny_batch, "click", corrections=1)
    assert not any(p.raw.requires_grad for p in out)
    assert len(out) == 4


WEIGHTS = LossWeights()


def disk(radius: float, size: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (x - size / 2) ** 2 + (y - size / 2) ** 2 < radius**2


def prediction(logits, truth, *, score: float = 5.0, ious: float = 1.0, given: bool = False) -> Prediction:
    tracks, candidates = logits.shape[:2]
    step = Step(
        candidates=logits,
        candidate_ious=torch.full((tracks, candidates), ious),
        logits=logits[:, :1],
        predicted_iou=torch.full((tracks,), ious),
        pointer=torch.zeros(tracks, 8),
        object_score=torch.full((tracks, 1), score),
    )
    return Prediction(step, logits, torch.full((tracks, 1), score), truth, 1, given=given)


def logits_of(mask: torch.Tensor, strength: float = 12.0) -> torch.Tensor:
    small = torch.nn.functional.avg_pool2d(mask[None, None].float(), 4)
    return strength * (2 * small - 1)


def test_a_right_answer_costs_little_and_a_wrong_one_much():
    truth = disk(20)[None]
    right = propagation_loss([prediction(logits_of(truth[0]), truth)], WEIGHTS)
    wrong = propagation_loss([prediction(logits_of(~truth[0]), truth)], WEIGHTS)
    assert right.mask < 0.3
    assert wrong.mask > 3


def test_the_best_of_three_masks_counts():
    truth = disk(20)[None]
    three = torch.cat([logits_of(~truth[0]), logits_of(truth[0]), logits_of(disk(5))], dim=1)
    one = logits_of(truth[0])
    best, only = (propagation_loss([prediction(logits, truth)], WEIGHTS) for logits in (three, one))
    assert best.mask == only.mask


def test_the_balanced_entropy_of_undecided_logits_is_log_two_whatever_the_size():
    for radius in (6, 25):
        truth = disk(radius)[None, None].float()
        dice_free = mask_loss(torch.zeros_like(truth), truth, balance=1.0) - mask_loss(
            torch.zeros_like(truth), truth, balance=0.0
        )
        assert dice_free.item() == pytest.approx(math.log(2) * (1 - 4), abs=1e-4)


def test_absent_objects_are_judged_by_score_and_empty_masks_only():
    nothing = torch.zeros(1, 64, 64, dtype=torch.bool)
    loss = propagation_loss([prediction(torch.full((1, 3, 16, 16), -9.0), nothing, score=-8.0)], WEIGHTS)
    assert loss.mask == 0
    assert loss.absent < 1e-3
    assert loss.score < 1e-3
    assert propagation_loss([prediction(torch.full((1, 3, 16, 16), 3.0), nothing, score=8.0)], WEIGHTS).total > 3


def test_of_a_mask_prompt_only_the_score_counts():
    truth = disk(20)[None]
    loss = propagation_loss([prediction(logits_of(~truth[0]), truth, given=True)], WEIGHTS)
    assert loss.mask == loss.iou == 0
    assert loss.score > 0


def test_iou_of_two_empty_masks_is_one():
    empty = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert iou(empty, empty).item() == 1
    assert iou(~empty, empty).item() == 0
