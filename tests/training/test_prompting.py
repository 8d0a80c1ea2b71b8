import numpy as np
import torch

from slicecast.training.prompting import boxes, corrective_clicks, first_clicks, moved, noisy_masks


def square(low: int, high: int, size: int = 64) -> torch.Tensor:
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, low:high, low:high] = True
    return mask


def test_first_clicks_are_positive_and_inside():
    masks = torch.cat([square(10, 20), square(40, 60), square(3, 6)]).repeat(10, 1, 1)
    points, labels = first_clicks(np.random.default_rng(0), masks)
    x, y = points[:, 0].long().T
    assert masks[torch.arange(30), y, x].all()
    assert (labels == 1).all()


def test_corrections_add_what_is_missing_and_remove_what_is_too_much():
    truth, predicted = torch.cat([square(10, 30), square(10, 30)]), torch.cat([square(0, 0), square(10, 60)])
    points, labels = corrective_clicks(predicted, truth)
    assert labels[:, 0].tolist() == [1, 0]
    assert torch.allclose(points[0, 0], torch.tensor([20.0, 20.0]), atol=2)
    assert (points[1, 0] > 30).any()


def test_corrections_of_larger_inputs_hit_the_error_too():
    points, labels = corrective_clicks(square(0, 0, 256), square(100, 140, 256))
    assert labels.item() == 1
    assert torch.allclose(points[0, 0], torch.tensor([120.0, 120.0]), atol=5)


def test_boxes_without_jitter_touch_the_object():
    points, labels = boxes(np.random.default_rng(0), square(10, 30), jitter=0.0)
    assert points[0].tolist() == [[10, 10], [29, 29]]
    assert labels[0].tolist() == [2, 3]


def test_noisy_masks_stay_near_the_truth():
    masks = torch.cat([square(15, 45)] * 20)
    noisy = noisy_masks(np.random.default_rng(0), masks, share=1.0)
    iou = (noisy & masks).flatten(1).sum(1) / (noisy | masks).flatten(1).sum(1)
    assert noisy.flatten(1).any(1).all()
    assert 0.5 < iou.mean() < 0.99


def test_a_share_of_zero_leaves_masks_alone():
    masks = square(15, 45)
    assert torch.equal(noisy_masks(np.random.default_rng(0), masks, share=0.0), masks)


def test_moved_answers_are_shifted_and_the_others_kept():
    logits = torch.full((40, 1, 32, 32), -8.0)
    logits[:, :, 10:20, 12:22] = 8.0
    out = moved(np.random.default_rng(0), logits, share=0.5)
    same = (out == logits).flatten(1).all(dim=1)
    assert 10 < same.sum() < 30
    overlap = ((out > 0) & (logits > 0)).sum((1, 2, 3)) / ((out > 0) | (logits > 0)).sum((1, 2, 3))
    assert (overlap[same] == 1).all()
    assert 0.4 < overlap[~same].mean() < 0.95
    assert torch.equal(moved(np.random.default_rng(0), logits, share=0.0), logits)
