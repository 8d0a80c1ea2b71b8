"""Volumes are valid from construction on."""

import numpy as np
import pytest

from slicecast.errors import VolumeError
from slicecast.volume import Geometry, Volume


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4)), "is not a volume"),
        (np.zeros((2, 4, 4, 4)), "is not a volume"),
        (np.zeros((0, 4, 4)), "is not a volume"),
        (np.zeros((6, 5, 4), complex), "real numbers"),
        (np.zeros((6, 5, 4), object), "real numbers"),
        (np.zeros((4, 5, 6)), "is not the grid's"),
    ],
)
def test_refuses(array, message):
    with pytest.raises(VolumeError, match=message):
        Volume(array, Geometry((4, 5, 6)))


def test_meta_is_a_copy():
    meta = {"modality": "MR"}
    volume = Volume(np.zeros((6, 5, 4)), Geometry((4, 5, 6)), meta)
    meta["modality"] = "CT"
    assert volume.modality == "MR"
    assert volume.warnings == ()


def test_with_array_keeps_the_rest():
    volume = Volume(np.zeros((6, 5, 4)), Geometry((4, 5, 6)), {"warnings": ("odd",)})
    other = volume.with_array(np.ones((6, 5, 4)))
    assert other.array.all()
    assert other.warnings == ("odd",)
    assert other.geometry == volume.geometry
