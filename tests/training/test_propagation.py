import numpy as np
import pytest
import torch

from slicecast.training.propagation import (
    BOX,
    CLICK,
    KINDS,
    MASK,
    DecoderTap,
    Group,
    Plan,
    boxes,
    corrective_clicks,
    first_clicks,
    moved,
    noisy_masks,
    propagate,
    tapped,
)


def predictions(model, batch, groups, **options):
    settings = {"rng": np.random.default_rng(0), "by_truth": True, **options}
    return propagate(model, batch.images, groups, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_one_prediction_a_slice(tiny_model, tiny_batch, kind):
    group = Group(kind, tiny_batch.frames, tiny_batch.masks)
    with torch.no_grad():
        out = predictions(tiny_model, tiny_batch, [group])
    assert [p.time for p in out] == [0, 1, 2]
    assert out[0].given == (kind == MASK)
    for p in out:
        assert p.step.logits.shape == (len(tiny_batch.frames), 1, 16, 16)
        assert torch.equal(p.truth, tiny_batch.masks[:, p.time])


def test_corrections_add_predictions_of_the_first_slice(tiny_model, tiny_batch):
    group = Group(CLICK, tiny_batch.frames, tiny_batch.masks, corrections=2)
    with torch.no_grad():
        out = predictions(tiny_model, tiny_batch, [group])
    assert [p.time for p in out] == [0, 0, 0, 1, 2]


def test_groups_are_tracked_together(tiny_model, tiny_batch):
    half = len(tiny_batch.frames) // 2
    groups = [
        Group(MASK, tiny_batch.frames[:half], tiny_batch.masks[:half]),
        Group(BOX, tiny_batch.frames[half:], tiny_batch.masks[half:]),
    ]
    with torch.no_grad():
        out = predictions(tiny_model, tiny_batch, groups)
    assert [len(p.truth) for p in out] == [half, half, 2 * half, 2 * half]


def test_the_last_slice_can_be_corrected_with_its_memory(tiny_model, tiny_batch):
    group = Group(MASK, tiny_batch.frames, tiny_batch.masks)
    with torch.no_grad():
        out = predictions(tiny_model, tiny_batch, [group], plan=Plan(correct_last=True))
    assert [p.time for p in out] == [0, 1, 2, 2]
    assert not torch.equal(out[-1].step.logits, out[-2].step.logits)


def test_clicks_at_once_are_not_drawn_over_an_answer(tiny_model, tiny_batch):
    def second_click(at_once):
        group = Group(CLICK, tiny_batch.frames, tiny_batch.masks, corrections=1, at_once=at_once)
        return predictions(tiny_model, tiny_batch, [group])[1].raw

    with torch.no_grad():
        assert not torch.equal(second_click(True), second_click(False))


def test_a_far_anchor_is_not_tracked(tiny_model, tiny_batch):
    group = Group(MASK, tiny_batch.frames, tiny_batch.masks)
    with torch.no_grad():
        out = predictions(tiny_model, tiny_batch, [group], plan=Plan(far_anchor=True))
    assert [p.time for p in out] == [0, 1]


def test_a_gap_changes_what_the_network_sees_of_its_memory(tiny_model, tiny_batch):
    group = Group(MASK, tiny_batch.frames, tiny_batch.masks)
    with torch.no_grad():
        near, far = (predictions(tiny_model, tiny_batch, [group], plan=Plan(gap=gap)) for gap in (0, 20))
    assert [p.time for p in far] == [0, 21, 22]
    assert torch.equal(near[0].step.logits, far[0].step.logits)
    assert not torch.equal(near[1].raw, far[1].raw)


def test_a_teacher_hands_on_the_truth(tiny_model, tiny_batch):
    group = Group(BOX, tiny_batch.frames, tiny_batch.masks)
    with torch.no_grad():
        alone, taught = (predictions(tiny_model, tiny_batch, [group], plan=Plan(teacher=share)) for share in (0.0, 1.0))
    assert torch.equal(alone[0].raw, taught[0].raw)
    assert not torch.equal(alone[1].raw, taught[1].raw)


def test_a_withheld_answer_changes_only_what_is_tracked(tiny_model, tiny_batch):
    group = Group(MASK, tiny_batch.frames, tiny_batch.masks)
    with torch.no_grad():
        given, withheld = (predictions(tiny_model, tiny_batch, [group], plan=Plan(withheld=w)) for w in (False, True))
    assert torch.equal(given[0].step.logits, withheld[0].step.logits)
    assert not torch.equal(given[1].raw, withheld[1].raw)


def test_gradients_reach_every_part_of_the_network(tiny_model, tiny_batch):
    out = predictions(tiny_model, tiny_batch, [Group(CLICK, tiny_batch.frames, tiny_batch.masks)])
    sum(p.raw.square().mean() + p.score.mean() for p in out).backward()
    parts = "image_encoder memory_attention memory_encoder sam_mask_decoder sam_prompt_encoder obj_ptr_proj"
    for part in parts.split():
        gradients = [p.grad.abs().sum() for p in getattr(tiny_model, part).parameters() if p.grad is not None]
        assert sum(gradients) > 0, part


def test_training_never_wipes_the_mask_of_a_present_object():
    tap = DecoderTap(present=torch.tensor([True, False]))
    score = torch.tensor([[-3.0], [-3.0]])
    answer = (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1), torch.zeros(2, 1, 8), score)
    *_, passed_on = tap.hook(torch.nn.Identity(), (), answer)
    assert passed_on[0] > 0 > passed_on[1]
    assert torch.equal(tap.score, score)


def test_the_gate_leaves_no_hook_behind(tiny_model):
    with tapped(tiny_model):
        assert tiny_model.sam_mask_decoder._forward_hooks
    assert not tiny_model.sam_mask_decoder._forward_hooks


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
