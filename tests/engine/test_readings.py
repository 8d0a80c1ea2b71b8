import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tracking import boxed, clicked, disk

from slicecast.engine.fusion import dice
from slicecast.engine.readings import ALIKE, MOST, other_readings
from slicecast.prompts import SlicePrompt

WHOLE, HOLE = (disk((128, 128), centre_xy=(64, 64), radius=radius) for radius in (16, 9))
RING = WHOLE & ~HOLE
SCENE = (0.1 + 0.4 * RING + 0.8 * HOLE + np.random.default_rng(0).normal(0, 0.02, WHOLE.shape)).astype(np.float32)
BOX = boxed(0, 48, 48, 80, 80)


def best(prompt: SlicePrompt, truth: np.ndarray) -> float:
    return max((dice(mask, truth) for mask in other_readings(SCENE, prompt)), default=0.0)


def test_a_box_around_a_ring_offers_the_ring_and_what_it_encloses():
    assert best(BOX, RING) > 0.9 and best(BOX, HOLE) > 0.95


@pytest.mark.parametrize(("at", "truth"), [((64, 52), RING), ((64, 64), HOLE)])
def test_a_click_offers_what_looks_like_its_place(at, truth):
    assert best(clicked(0, at), truth) > 0.9


def test_readings_agree_with_every_click():
    both = SlicePrompt(0, points_xy=np.array([(64, 64)], np.float32), labels=np.array([0]), box_xyxy=BOX.box_xyxy)
    (only,) = other_readings(SCENE, both)
    assert dice(only, RING) > 0.9
    assert other_readings(SCENE, clicked(0, (64, 64), (2, 2), negative=[(64, 52)])) == []


def test_a_slice_of_one_grey_has_no_reading():
    assert other_readings(np.full((128, 128), 0.5, np.float32), clicked(0, (64, 64))) == []
    assert other_readings(np.full((128, 128), 0.5, np.float32), BOX) == []


ALL = boxed(0, 0, 0, 34, 11)


@given(
    image=arrays(np.float32, (12, 35), elements=st.floats(0, 1, width=32)),
    at=st.tuples(st.integers(0, 34), st.integers(0, 11)),
    box=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_picture_readings_are_few_unlike_and_hold_the_click(image, at, box):
    found = other_readings(image, ALL if box else clicked(0, at))
    assert len(found) <= MOST and all(mask.shape == image.shape and mask.dtype == bool for mask in found)
    assert all(dice(a, b) < ALIKE for n, a in enumerate(found) for b in found[:n])
    assert box or all(mask[at[1], at[0]] for mask in found)
