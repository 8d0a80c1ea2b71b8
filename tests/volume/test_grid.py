"""Grids: validation, index and world, orientation letters, differences."""

import numpy as np
import pytest
import SimpleITK as sitk
from builders import ORIENTATIONS, grid
from hypothesis import given
from hypothesis import strategies as st

from slicecast.errors import GeometryError, VolumeError
from slicecast.volume import Geometry, Volume

angles = st.tuples(*[st.floats(-180, 180)] * 3)
spacings = st.tuples(*[st.floats(0.05, 20.0)] * 3)
indices = st.lists(st.tuples(*[st.floats(-50, 600)] * 3), min_size=1, max_size=5)


@given(turn=angles, spacing=spacings, points=indices)
def test_index_to_world_and_back(turn, spacing, points):
    geometry = grid(spacing_mm=spacing, turn_deg=turn)
    assert np.allclose(geometry.world_to_index(geometry.index_to_world(points)), points, atol=1e-6)


@given(turn=angles, spacing=spacings, points=indices)
def test_agrees_with_simpleitk(turn, spacing, points):
    geometry = grid((3, 4, 5), spacing_mm=spacing, turn_deg=turn)
    image = geometry.to_image(np.zeros((5, 4, 3), np.uint8))
    expected = [image.TransformContinuousIndexToPhysicalPoint(point) for point in points]
    assert np.allclose(geometry.index_to_world(points), expected, atol=1e-6)
    assert Geometry.from_image(image).differences(geometry) == []


def test_a_hand_worked_point():
    direction = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # i runs to posterior, j to the right
    geometry = Geometry((10, 10, 10), (2, 3, 4), (100, 200, 300), direction)
    assert geometry.index_to_world((1, 1, 1)).tolist() == [97, 202, 304]
    assert geometry.axcodes == "PRS"


@pytest.mark.parametrize(("permutation", "flips"), ORIENTATIONS)
def test_axcodes_agree_with_simpleitk(permutation, flips):
    direction = np.eye(3)[:, list(permutation)] * np.where(flips, -1.0, 1.0)
    expected = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction.ravel().tolist())
    assert Geometry((2, 3, 4), direction=direction).axcodes == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size_ijk", (0, 5, 5), "at least 1"),
        ("size_ijk", (5, 5), "3 finite numbers"),
        ("size_ijk", (5.5, 5, 5), "whole number"),
        ("spacing_mm", (1, 0, 1), "above 0"),
        ("spacing_mm", (1, -1, 1), "above 0"),
        ("spacing_mm", (1, float("nan"), 1), "finite"),
        ("origin_mm", (float("inf"), 0, 0), "finite"),
        ("origin_mm", ("a", 0, 0), "numbers only"),
        ("direction", [[1, 0.3, 0], [0, 1, 0], [0, 0, 1]], "right angles"),
        ("direction", np.zeros((3, 3)), "right angles"),
        ("direction", np.eye(3) * 2, "unit vectors"),
        ("direction", np.eye(2), "9 finite numbers"),
    ],
)
def test_refuses(field, value, message):
    with pytest.raises(GeometryError, match=message):
        Geometry(**{"size_ijk": (5, 5, 5), field: value})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size_ijk": (24, 20, 17)}, "size"),
        ({"spacing_mm": (1, 1, 1.1)}, "spacing"),
        ({"origin_mm": (0, 0, 1)}, "origin"),
        ({"direction": [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]}, "direction"),
    ],
)
def test_differences_name_the_field(change, word):
    (found,) = Geometry((24, 20, 16)).differences(Geometry(**{"size_ijk": (24, 20, 16), **change}))
    assert found.startswith(word)


def test_differences_forgive_rounding():
    own = Geometry((4, 4, 4), origin_mm=(100.0, 0, 0))
    assert own.differences(Geometry((4, 4, 4), (1.0001, 1, 1), (100.005, 0, 0))) == []


def test_contains():
    geometry = Geometry((4, 5, 6))
    assert geometry.contains([(0, 0, 0), (3, 4, 5), (4, 0, 0), (0, -1, 0)]).tolist() == [True, True, False, False]


def test_is_hashable_and_equal_by_value():
    assert Geometry((4, 5, 6)) in {Geometry((4, 5, 6), direction=np.eye(3))}


def test_to_image_refuses_another_shape():
    with pytest.raises(GeometryError, match=r"\(4, 5, 6\) does not fit"):
        Geometry((4, 5, 6)).to_image(np.zeros((4, 5, 6)))


def test_voxel_volume():
    assert Geometry((4, 5, 6), (2, 5, 10)).voxel_volume_ml == pytest.approx(0.1)


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
def test_refuses_arrays(array, message):
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
