"""The simulated annotator clicks where the published protocol clicks."""

import numpy as np
import pytest
from builders import ball
from hypothesis import given
from hypothesis.extra import numpy as hnp

from slicecast.errors import PromptError
from slicecast.prompts.simulate import next_click

masks = hnp.arrays(bool, (9, 11))


def square(y0, y1, x0, x1, shape=(20, 24)):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_first_click_is_the_middle_of_the_object():
    truth = square(5, 10, 12, 17)
    click = next_click(truth, np.zeros_like(truth))
    assert click.index == (14, 7)  # x, y
    assert click.positive
    assert click.depth == 3


def test_too_much_gives_a_negative_click():
    truth = square(0, 3, 0, 3)
    click = next_click(truth, truth | square(8, 15, 8, 15))
    assert (click.index, click.positive) == ((11, 11), False)


def test_the_deeper_error_wins_and_a_tie_is_positive():
    missed, excess = square(0, 7, 0, 7), square(10, 15, 10, 15)
    assert next_click(missed, excess).positive
    assert not next_click(excess, missed).positive
    assert next_click(square(0, 5, 0, 5), excess).positive


def test_the_border_counts_as_outside():
    click = next_click(np.ones((7, 9), bool), np.zeros((7, 9), bool))
    assert click.index[1] == 3
    assert click.depth == 4


def test_components_that_touch_diagonally_are_apart():
    truth = square(0, 3, 0, 3) | square(3, 6, 3, 6)
    assert next_click(truth, np.zeros_like(truth)).depth == 2


def test_no_error_no_click():
    truth = square(3, 9, 3, 9)
    assert next_click(truth, truth) is None
    assert next_click(np.zeros((4, 4)), np.zeros((4, 4))) is None


@given(truth=masks, prediction=masks)
def test_a_click_lies_on_an_error_of_its_sign(truth, prediction):
    click = next_click(truth, prediction)
    if click is None:
        assert np.array_equal(truth, prediction)
    else:
        x, y = click.index
        assert truth[y, x] == click.positive
        assert prediction[y, x] != click.positive


def test_3d_click_is_in_ijk_order():
    truth = ball(centre_ijk=(15, 8, 6), radius=4)
    click = next_click(truth, np.zeros_like(truth))
    assert click.index == (15, 8, 6)
    assert click.positive


def test_spacing_decides_what_is_deep():
    flat = np.zeros((12, 12, 30), bool)
    flat[1:4, 1:10, 1:10] = True  # 3 slices thick: 15 mm at 5 mm
    cube = np.zeros_like(flat)
    cube[4:9, 2:7, 20:25] = True
    click = next_click(flat, cube, spacing=(1, 1, 5))
    assert click.positive
    assert click.depth == pytest.approx(5.0)
    assert not next_click(flat, cube).positive


def test_refuses_other_shapes():
    with pytest.raises(PromptError, match="must lie on one grid"):
        next_click(np.zeros((4, 4)), np.zeros((4, 5)))
