import numpy as np
import pytest
import torch

from slicecast.engine.ports import Bank, ModelPrompt, PromptJob
from slicecast.models import sam2_forward as steps
from slicecast.models.sam2_forward import BankBatch, Features, Memory

SIZE = 64


@pytest.fixture(scope="module")
def frames():
    return torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def encoded(nano, frames):
    with torch.no_grad():
        return steps.encode(nano, frames)


def at(encoded, *rows):
    return Features(tuple(m[list(rows)] for m in encoded.maps))


def square(batch=1):
    mask = torch.zeros(batch, 1, SIZE, SIZE)
    mask[:, :, 16:40, 20:44] = 1
    return mask


@pytest.fixture
def start(nano, encoded):
    """A mask prompt on slice 0, and what it leaves."""
    with torch.no_grad():
        step = steps.prompt_with_mask(nano, at(encoded, 0), square())
        return step, steps.remember(nano, at(encoded, 0), step, prompted=True)


def test_slices_are_encoded_into_a_pyramid(encoded):
    assert encoded.sizes == [(16, 16), (8, 8), (4, 4)]
    assert [tuple(t.shape[:2]) for t in encoded.tokens()] == [(256, 4), (64, 4), (16, 4)]


def test_encoding_a_batch_equals_encoding_each(nano, frames, encoded):
    with torch.no_grad():
        alone = steps.encode(nano, frames[2:3])
    assert all(torch.allclose(one, many[2:3], atol=1e-5) for one, many in zip(alone.maps, encoded.maps, strict=True))


def test_a_mask_is_taken_as_it_is(start):
    step, memory = start
    assert step.logits.shape == (1, 1, 16, 16) and step.predicted_iou.item() == 1.0
    assert step.object_score.item() > 0
    assert ((step.logits > 0) == (square()[:, :, ::4, ::4] > 0)).float().mean() > 0.95
    assert memory.features.shape[-2:] == (4, 4) and memory.pointer.shape[0] == 1


def test_memory_changes_what_is_tracked(nano, encoded, start):
    _, memory = start
    other = Memory(memory.features * 0, memory.pointer * 0)
    with torch.no_grad():
        seen, blank = (
            steps.track(nano, at(encoded, 1), BankBatch({0: m}, {}), time=1, num_slices=4) for m in (memory, other)
        )
    assert not torch.allclose(seen.candidates, blank.candidates)


def test_a_correction_uses_memory_and_the_earlier_answer(nano, encoded, start):
    step, memory = start
    points, labels = torch.tensor([[[30.0, 30.0]]]), torch.tensor([[steps.POSITIVE]], dtype=torch.int32)

    def answer(**given):
        with torch.no_grad():
            return steps.prompt_with_points(nano, at(encoded, 1), points, labels, **given).candidates[:, :1]

    bank = BankBatch({0: memory}, {})
    answers = [answer(), answer(bank=bank, time=1), answer(bank=bank, time=1, dense=step.logits)]
    assert not torch.allclose(answers[0], answers[1]) and not torch.allclose(answers[1], answers[2])


def test_the_carried_mask_is_clamped(nano, encoded, start):
    step, memory = start

    def answer(previous_mask):
        with torch.no_grad():
            bank = BankBatch({0: memory}, {})
            return steps.track(nano, at(encoded, 1), bank, time=1, num_slices=4, previous_mask=previous_mask)

    plain, carried, extreme = answer(None), answer(step.logits * 100), answer(step.logits * 1e6)
    assert not torch.allclose(plain.candidates, carried.candidates)
    assert torch.equal(carried.candidates, extreme.candidates)


def test_gradients_reach_every_part_of_the_network(nano, frames):
    for parameter in nano.parameters():
        parameter.grad = None
    features = steps.encode(nano, frames[:2])
    first = steps.prompt_with_mask(nano, at(features, 0), square())
    bank = BankBatch({0: steps.remember(nano, at(features, 0), first, prompted=True)}, {})
    step = steps.track(nano, at(features, 1), bank, time=1, num_slices=4)
    (step.candidates.mean() + step.candidate_ious.mean() + step.object_score.mean()).backward()
    touched = {name.split(".")[0] for name, p in nano.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"image_encoder", "memory_encoder", "memory_attention", "sam_mask_decoder"} <= touched
    nano.zero_grad(set_to_none=True)


def test_training_keeps_the_rules_for_choosing_memory(nano):
    prepared = steps.prepare_for_training(nano)
    assert prepared.memory_attention.training and not prepared.training
    nano.eval()


def draw(points, labels, **given):
    return steps.draw_prompts(
        torch.tensor([points], dtype=torch.float32), torch.tensor([labels]), mask_size=16, image_size=SIZE, **given
    )[0, 0]


def test_clicks_are_drawn_where_they_are():
    sheet = draw([[21.5, 41.5], [53.5, 9.5]], [steps.POSITIVE, steps.NEGATIVE])
    y, x = torch.nonzero(sheet == steps.CLICK_LOGIT).float().mean(dim=0).tolist()
    assert (x, y) == (5.0, 10.0)
    y, x = torch.nonzero(sheet == -steps.CLICK_LOGIT).float().mean(dim=0).tolist()
    assert (x, y) == (13.0, 2.0)
    assert sheet[15, 0] == steps.NO_CLICK_LOGIT


def test_a_box_is_drawn_as_a_rectangle():
    sheet = draw([[9.5, 17.5], [33.5, 49.5]], [steps.BOX_TOP_LEFT, steps.BOX_BOTTOM_RIGHT])
    inside = sheet == steps.BOX_INSIDE_LOGIT
    assert inside[4:13, 2:9].all() and inside.sum() == 9 * 7
    assert (sheet[~inside] == steps.BOX_OUTSIDE_LOGIT).all()


def test_padding_draws_nothing_and_earlier_answers_are_drawn_over():
    previous = torch.full((1, 1, 16, 16), -100.0)
    assert (draw([[30.0, 30.0]], [steps.PAD], previous=previous) == -steps.MASK_PROMPT_LIMIT).all()
    sheet = draw([[29.5, 29.5]], [steps.POSITIVE], previous=previous)
    assert sheet[7, 7] == steps.CLICK_LOGIT and sheet[0, 0] == -steps.MASK_PROMPT_LIMIT


def remembered(value: float) -> steps.Remembered:
    memory = Memory(torch.full((1, 4, 2, 2), value), torch.full((1, 8), value))
    return steps.Remembered(memory, torch.full((1, 1, 4, 4), value))


def bank(first: float, *others: float) -> Bank:
    made = Bank(((0, remembered(first)),))
    for value in others:
        made = made.push(remembered(value), keep=6)
    return made


def test_banks_are_stacked_entry_by_entry():
    stacked = steps.stack_banks([bank(1, 2, 3), bank(4, 5, 6)])
    assert {t: m.pointer[:, 0].tolist() for t, m in stacked.anchors.items()} == {0: [1, 4]}
    assert {t: m.pointer[:, 0].tolist() for t, m in stacked.recent.items()} == {1: [2, 5], 2: [3, 6]}


def test_the_carry_is_the_slice_walked_last_or_the_anchor():
    assert steps.last_logits([bank(1), bank(2, 7)])[:, 0, 0, 0].tolist() == [1, 7]


def test_banks_of_one_batch_have_walked_equally_far():
    assert steps.bank_signature(bank(1, 2)) == steps.bank_signature(bank(3, 4))
    assert steps.bank_signature(bank(1, 2)) != steps.bank_signature(bank(1))


def test_a_box_comes_first_as_two_labelled_corners():
    xy, box = np.array([[5, 6]], dtype=np.float32), np.array([1, 2, 8, 9], dtype=np.float32)
    prompt = ModelPrompt(xy, np.array([0], dtype=np.int32), box_xyxy=box)
    points, labels = steps.stack_points([prompt], torch.device("cpu"))
    assert points.tolist() == [[[1, 2], [8, 9], [5, 6]]]
    assert labels.tolist() == [[steps.BOX_TOP_LEFT, steps.BOX_BOTTOM_RIGHT, 0]]


def test_prompts_that_differ_in_kind_are_asked_apart():
    none, label = np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int32)
    mask = PromptJob(None, ModelPrompt(none, label, mask=np.ones((4, 4), dtype=bool)))
    click = PromptJob(None, ModelPrompt(np.zeros((1, 2), dtype=np.float32), np.ones(1, dtype=np.int32)))
    assert steps.prompt_signature(mask) != steps.prompt_signature(click)
