"""The voxels tell how an array lies."""

import numpy as np
import pytest
from builders import ORIENTATIONS, phantom

from slicecast.inference.studies import Studies
from slicecast.server.nninteractive.images import ArrayAxes, all_axes, find_image, match
from slicecast.volume import write_volume


@pytest.fixture
def stored(rng) -> np.ndarray:
    return rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16)


@pytest.mark.parametrize("axes", list(all_axes((5, 6, 7)))[::5])
def test_an_array_is_found_in_every_order_and_direction(stored, axes):
    sent = np.ascontiguousarray(axes.to_client(stored)).astype(np.float64)
    spacing = [(3.0, 2.0, 1.0)[axis] for axis in axes.order]
    assert match(sent, spacing, stored, (3.0, 2.0, 1.0)) == axes
    assert (axes.to_stored(sent) == stored).all()
    place = (1, 2, 3)
    bounds = axes.range_kji([(n, n + 1) for n in place])
    assert stored[tuple(low for low, _ in bounds)] == sent[place]


def test_there_are_as_many_ways_as_orientations():
    assert len(set(all_axes((5, 6, 7)))) == len(ORIENTATIONS)


def test_another_scan_or_spacing_is_not_found(stored):
    other = stored.copy()
    other[4, 5, 6] += 100
    assert match(stored, (3.0, 2.0, 1.0), other, (3.0, 2.0, 1.0)) is None
    assert match(stored, (3.0, 2.0, 1.5), stored, (3.0, 2.0, 1.0)) is None
    assert match(stored, (3.0, 2.0, 1.0), stored, (3.0, 2.0, 1.0)) == ArrayAxes((5, 6, 7))


@pytest.mark.parametrize(
    "damage",
    [lambda file: b"", lambda file: file[:100], lambda file: b"\x1c\x02" + file[2:]],
    ids=["empty", "cut", "NIfTI-2"],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_that_cannot_be_read_does_not_hide_an_image(tmp_path, ending, damage):
    volume = phantom().volume
    good, bad = write_volume(tmp_path / f"good{ending}", volume), tmp_path / f"bad{ending}"
    bad.write_bytes(damage(good.read_bytes()))
    found = find_image(volume.array, volume.geometry.spacing_mm[::-1], [("bad", bad), ("good", good)], Studies())
    assert found.image_id == "good"
