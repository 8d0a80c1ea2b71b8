import numpy as np
import torch

from slicecast.engine.ports import Bank, ModelPrompt, PromptJob
from slicecast.models import sam2_batch
from slicecast.models import sam2_forward as steps
from slicecast.models.sam2_forward import Memory


def remembered(value: float) -> sam2_batch.Remembered:
    memory = Memory(torch.full((1, 4, 2, 2), value), torch.full((1, 8), value))
    return sam2_batch.Remembered(memory, torch.full((1, 1, 4, 4), value))


def bank(first: float, *others: float) -> Bank:
    made = Bank(((0, remembered(first)),))
    for value in others:
        made = made.push(remembered(value), keep=6)
    return made


def test_banks_are_stacked_entry_by_entry():
    stacked = sam2_batch.stack_banks([bank(1, 2, 3), bank(4, 5, 6)])
    assert {t: m.pointer[:, 0].tolist() for t, m in stacked.anchors.items()} == {0: [1, 4]}
    assert {t: m.pointer[:, 0].tolist() for t, m in stacked.recent.items()} == {1: [2, 5], 2: [3, 6]}


def test_the_carry_is_the_slice_walked_last_or_the_anchor():
    assert sam2_batch.last_logits([bank(1), bank(2, 7)])[:, 0, 0, 0].tolist() == [1, 7]


def test_banks_of_one_batch_have_walked_equally_far():
    assert sam2_batch.bank_signature(bank(1, 2)) == sam2_batch.bank_signature(bank(3, 4))
    assert sam2_batch.bank_signature(bank(1, 2)) != sam2_batch.bank_signature(bank(1))


def test_a_box_comes_first_as_two_labelled_corners():
    xy, box = np.array([[5, 6]], dtype=np.float32), np.array([1, 2, 8, 9], dtype=np.float32)
    prompt = ModelPrompt(xy, np.array([0], dtype=np.int32), box_xyxy=box)
    points, labels = sam2_batch.stack_points([prompt], torch.device("cpu"))
    assert points.tolist() == [[[1, 2], [8, 9], [5, 6]]]
    assert labels.tolist() == [[steps.BOX_TOP_LEFT, steps.BOX_BOTTOM_RIGHT, 0]]


def test_prompts_that_differ_in_kind_are_asked_apart():
    none, label = np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int32)
    mask = PromptJob(None, ModelPrompt(none, label, mask=np.ones((4, 4), dtype=bool)))
    click = PromptJob(None, ModelPrompt(np.zeros((1, 2), dtype=np.float32), np.ones(1, dtype=np.int32)))
    assert sam2_batch.prompt_signature(mask) != sam2_batch.prompt_signature(click)
