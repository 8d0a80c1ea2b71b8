"""The same scan, stored in any of 48 orientations, gives the same canonical scan."""

import numpy as np
import pytest
from builders import ORIENTATIONS, grid, stored_as
from hypothesis import given
from hypothesis import strategies as st

from slicecast.errors import GeometryError
from slicecast.volume import Reorientation, Volume, canonicalise

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
