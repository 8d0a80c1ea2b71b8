import numpy as np
import pytest
from tracking import clip_of, disk

from slicecast.engine.corrections import decide
from slicecast.engine.ports import ModelPrompt

OBJECT, NEIGHBOUR = disk(centre_xy=(24, 32), radius=8), disk(centre_xy=(44, 32), radius=8)
IMAGE = clip_of((OBJECT | NEIGHBOUR)[None])[0]


def logits(mask: np.ndarray) -> np.ndarray:
    """Return what a network says of a mask, (16, 16)."""
    return np.where(mask.reshape(16, 4, 16, 4).mean(axis=(1, 3)) >= 0.5, 8.0, -8.0).astype(np.float32)


def click(x: float, y: float, label: int) -> ModelPrompt:
    return ModelPrompt(np.array([[x, y]], np.float32), np.array([label], np.int32))


def share(found: np.ndarray, of: np.ndarray) -> float:
    return float((found & of).sum() / of.sum())


def test_a_click_on_a_neighbour_takes_all_of_it_away():
    found = decide(IMAGE, logits(OBJECT | NEIGHBOUR), logits(OBJECT), click(44, 32, 0))
    assert share(found, OBJECT) > 0.85 and share(found, NEIGHBOUR) < 0.05


def test_what_the_network_took_from_the_object_beside_a_negative_click_comes_back():
    """The slice was halved where only the neighbour had to go."""
    left = OBJECT & (np.arange(64) < 22)
    found = decide(IMAGE, logits(OBJECT | NEIGHBOUR), logits(left), click(44, 32, 0))
    assert share(found, OBJECT) > 0.85 and share(found, NEIGHBOUR) < 0.05


def test_what_lies_behind_an_edge_is_not_added():
    found = decide(IMAGE, logits(OBJECT & (np.arange(64) < 20)), logits(OBJECT | NEIGHBOUR), click(28, 32, 1))
    assert share(found, OBJECT) > 0.85 and share(found, NEIGHBOUR) < 0.05


@pytest.mark.parametrize("label", [0, 1])
def test_the_clicked_pixel_is_right_whatever_the_network_says(label):
    both = logits(OBJECT)
    found = decide(IMAGE, both, both, click(24, 32, label))
    assert found[32, 24] == bool(label)
    assert np.array_equal(found[:, 40:], OBJECT[:, 40:])


def test_a_slice_without_edges_is_divided_by_distance():
    flat = np.zeros((64, 64), np.float32)
    found = decide(flat, logits(OBJECT | NEIGHBOUR), logits(OBJECT), click(44, 32, 0))
    assert found[32, 24] and not found[32, 44]
