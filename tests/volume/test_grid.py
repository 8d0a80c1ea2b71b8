"""Grids: validation, index and world, orientation letters, differences."""

import numpy as np
import pytest
import SimpleITK as sitk
from builders import ORIENTATIONS, grid, stored_as
from hypothesis import given
from hypothesis import strategies as st

from slicecast.errors import GeometryError, VolumeError
from slicecast.volume import Geometry, Reorientation, Volume, canonicalise

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
        ("spacing_mm", (1, 1, 1e-38), "more than 1000 times another"),
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


TURNS = {
    "straight": (0, 0, 0),
    "oblique": (12, -8, 20),
    "steep": (40, 30, -44),
    "tie about z": (0, 0, 45),
    "tie about x": (45, 0, 0),
    "tie about two axes": (45, 45, 0),
    "upside down": (180, 0, 90),
}


def numbered(turn_deg=(0, 0, 0)):
    """A volume in which every voxel has its own number."""
    geometry = grid((4, 5, 6), spacing_mm=(1, 2, 3), turn_deg=turn_deg)
    return Volume(np.arange(120).reshape(6, 5, 4), geometry)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
def test_48_orientations_are_one_scan(turn):
    volume = numbered(turn)
    expected, _ = canonicalise(volume)
    for permutation, flips in ORIENTATIONS:
        found, _ = canonicalise(stored_as(volume, permutation, flips))
        assert np.array_equal(found.array, expected.array)
        assert found.geometry.differences(expected.geometry) == []
        assert found.geometry.axcodes == "LPS"


@given(orientation=st.sampled_from(ORIENTATIONS), turn=st.tuples(*[st.floats(-180, 180)] * 3), data=st.data())
def test_indices_keep_their_place_in_the_patient(orientation, turn, data):
    stored = stored_as(numbered(turn), *orientation)
    _, reorientation = canonicalise(stored)
    points = data.draw(st.lists(st.tuples(*[st.integers(0, n - 1) for n in stored.geometry.size_ijk]), min_size=1))
    moved = reorientation.to_canonical_ijk(points)
    world = stored.geometry.index_to_world(points)
    assert np.allclose(reorientation.geometry.index_to_world(moved), world)
    assert np.array_equal(reorientation.to_source_ijk(moved), points)
    assert moved.dtype.kind == "i"


@pytest.mark.parametrize(("permutation", "flips"), ORIENTATIONS)
def test_arrays_return_to_their_storage(permutation, flips):
    stored = stored_as(numbered(), permutation, flips)
    canonical, reorientation = canonicalise(stored)
    assert np.array_equal(reorientation.to_source_array(canonical.array), stored.array)
    assert np.shares_memory(canonical.array, stored.array)


def test_canonical_stays_as_it_is():
    reorientation = Reorientation.of(numbered((5, -4, 3)).geometry)
    assert reorientation.permutation == (0, 1, 2)
    assert reorientation.flips == (False, False, False)


def test_slice_numbers_follow_the_flip():
    reorientation = Reorientation.of(stored_as(numbered(), (2, 1, 0), (True, False, False)).geometry)
    assert reorientation.to_canonical_slice(2, 0) == 5
    assert reorientation.to_source_slice(2, 5) == 0
    assert reorientation.to_canonical_slice(1, 3) == 3


def test_points_may_be_single_and_fractional():
    reorientation = Reorientation.of(stored_as(numbered(), (0, 1, 2), (True, False, False)).geometry)
    assert reorientation.to_canonical_ijk((0.5, 1, 2)).tolist() == [2.5, 1, 2]


def test_refuses_an_array_of_another_grid():
    reorientation = Reorientation.of(numbered().geometry)
    with pytest.raises(GeometryError, match="does not fit the source grid"):
        reorientation.to_canonical_array(np.zeros((4, 5, 6)))
    with pytest.raises(GeometryError, match="does not fit the source grid"):
        reorientation.to_source_array(np.zeros((4, 5, 6)))


@pytest.mark.parametrize("permutation, flips", ORIENTATIONS[::5])
@pytest.mark.parametrize("axis", range(3))
def test_a_plane_turns_as_its_volume_does(permutation, flips, axis):
    geometry = grid()
    reorientation = Reorientation(geometry, permutation, flips)
    stored = np.arange(np.prod(geometry.shape_kji)).reshape(geometry.shape_kji)
    canonical = reorientation.to_canonical_array(stored)
    along = permutation[axis]
    for number in (0, 3):
        plane = np.take(canonical, number, axis=2 - axis)
        wanted = np.take(stored, reorientation.to_source_slice(axis, number), axis=2 - along)
        assert (reorientation.to_source_plane(axis, plane) == wanted).all()
