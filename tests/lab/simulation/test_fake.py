import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking import clip_of, disk

from slicecast.engine.ports import Bank, ModelPrompt, PromptJob, TrackJob
from slicecast_lab.simulation.fake import STRIDE, FakePredictor

SIZE = 64
TRUTH = disk(radius=14)
PREDICTOR = FakePredictor(image_size=SIZE)
PICTURE, DARKER, EMPTY = PREDICTOR.encode(
    np.stack([clip_of(TRUTH[None], grey=g)[0] for g in (0.7, 0.6)] + [np.zeros((SIZE, SIZE), np.float32)])
)
CELLS = TRUTH[::STRIDE, ::STRIDE]


def said(*positive, negative=(), **given):
    points = np.array([*positive, *negative], np.float32).reshape(-1, 2)
    return ModelPrompt(points, np.array([1] * len(positive) + [0] * len(negative), np.int32), **given)


def seen(prompt, **given):
    return PREDICTOR.prompt([PromptJob(given.pop("on", PICTURE), prompt, **given)], num_slices=3)[0]


def overlap(logits):
    mask = logits > 0
    return 2 * (mask & CELLS).sum() / (mask.sum() + CELLS.sum())


@pytest.mark.parametrize(
    "prompt",
    [said((32, 32)), said(box_xyxy=np.array([18, 18, 46, 46], np.float32)), said(mask=TRUTH)],
    ids=["click", "box", "mask"],
)
def test_each_kind_of_prompt_finds_the_object(prompt):
    found = seen(prompt)
    assert found.logits.shape == (SIZE // STRIDE,) * 2 and found.logits.dtype == np.float32
    assert overlap(found.logits) > 0.85 and found.object_score > 0 and 0 < found.predicted_iou <= 1


def test_a_negative_click_is_left_out():
    found = seen(said((32, 32), negative=[(42, 32)]))
    assert found.logits[8, 10] < 0 < found.logits[8, 8]


def test_nothing_said_finds_nothing():
    assert seen(said()).object_score < 0


def test_a_correction_uses_the_earlier_answer():
    previous = np.full((16, 16), -5.0, np.float32)
    previous[0, 0] = 5.0
    assert seen(said((32, 32)), previous=previous).logits[0, 0] > 0 > seen(said((32, 32))).logits[0, 0]


def test_a_correction_uses_the_bank():
    bright, dark = (Bank(((0, seen(said((32, 32)), on=on).memory),)) for on in (PICTURE, EMPTY))
    assert not np.array_equal(*(seen(said((32, 32)), bank=bank).logits for bank in (bright, dark)))


def test_tracking_follows_and_notices_the_end():
    bank = Bank(((0, seen(said((32, 32))).memory),))
    here, gone = PREDICTOR.track([TrackJob(DARKER, bank), TrackJob(EMPTY, bank)], num_slices=3)
    assert overlap(here.logits) > 0.85 and here.object_score > 0
    assert gone.object_score < 0 and not (gone.logits > 0).any() and gone.predicted_iou == 0
    back = PREDICTOR.track([TrackJob(PICTURE, bank.push(gone.memory, keep=2))], num_slices=3)[0]
    assert back.object_score > 0  # where it was is remembered over a gap


prompts = st.builds(
    lambda xy, negative: said(xy, negative=negative),
    st.tuples(st.floats(0, 63), st.floats(0, 63)),
    st.lists(st.tuples(st.floats(0, 63), st.floats(0, 63)), max_size=2),
)


@settings(max_examples=25)
@given(st.lists(prompts, min_size=1, max_size=5))
def test_answers_do_not_depend_on_the_batch(batch):
    jobs = [PromptJob(PICTURE, prompt) for prompt in batch]
    together = PREDICTOR.prompt(jobs, num_slices=3)
    tracked = PREDICTOR.track([TrackJob(DARKER, Bank(((0, o.memory),))) for o in together], num_slices=3)
    for job, one, next_one in zip(jobs, together, tracked, strict=True):
        alone = PREDICTOR.prompt([job], num_slices=3)[0]
        assert np.array_equal(alone.logits, one.logits) and alone.object_score == one.object_score
        after = PREDICTOR.track([TrackJob(DARKER, Bank(((0, alone.memory),)))], num_slices=3)[0]
        assert np.array_equal(after.logits, next_one.logits)
