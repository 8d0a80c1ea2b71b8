"""Scans for benchmarks of speed."""

import numpy as np
import pytest
from builders import phantom

from slicecast.errors import ConfigError
from slicecast.volume import read_volume
from slicecast_lab.benchmarks import speed_scans
from slicecast_lab.benchmarks.speed_scans import PLACES, few_slices, short_ones, target_of, write_scan


def slab(low: int, high: int, *, slices: int = 60) -> np.ndarray:
    """Return a block that spans slices [low, high)."""
    mask = np.zeros((slices, 20, 20), dtype=bool)
    mask[low:high, 4:16, 3:14] = True
    return mask


def test_clicks_lie_deep_in_the_object_at_the_given_places():
    mask = slab(20, 31)
    target = target_of(mask)
    assert target.slices == (20, 31)
    assert [k for _, _, k in target.clicks] == [20 + round(share * 10) for share in PLACES]
    assert all(mask[k, j - 3 : j + 4, i - 3 : i + 4].all() for i, j, k in target.clicks)


def test_objects_are_short_and_the_nearest_to_the_middle_comes_first():
    near, far, long, flat = slab(24, 36), slab(2, 18), slab(10, 40), slab(28, 30)
    given = [far, long, near, flat]
    assert [id(mask) for mask in short_ones(iter(given))] == [id(near), id(far)]
    assert [id(mask) for mask in short_ones(iter(given), then_long=True)] == [id(near), id(far), id(long)]


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """A phantom among the scans."""
    volume, truth = phantom("sphere")
    monkeypatch.setitem(speed_scans.SCANS, "sphere", lambda: ("a sphere", (volume, [truth])))
    return write_scan("sphere", tmp_path)


def test_a_written_scan_is_windowed_and_shorter_ones_are_cut_out_of_it(scan, tmp_path):
    whole = read_volume(scan.image).array
    assert whole.dtype == np.int16 and whole.min() >= 0 and whole.max() <= 255
    assert whole.shape[0] == scan.slices
    short = few_slices(scan, 3, tmp_path)
    cut = read_volume(short.image).array
    assert cut.shape == (3, *whole.shape[1:]) and any((cut == whole[k : k + 3]).all() for k in range(scan.slices - 2))
    assert {k for _, _, k in short.objects[0].clicks} == {0, 1, 2}
    with pytest.raises(ConfigError, match="slices were asked for"):
        few_slices(scan, scan.slices + 1, tmp_path)
