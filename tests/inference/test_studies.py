import os
from dataclasses import replace

import numpy as np
import pytest
from builders import ORIENTATIONS, ball, grid, scan, stored_as
from hypothesis import given, settings
from hypothesis import strategies as st

from slicecast.errors import ConfigError, VolumeError
from slicecast.inference.studies import Studies, open_study
from slicecast.volume import SliceAxis, read_volume, write_volume

VOLUME = scan(ball())


class Reader:
    """Counts what is read."""

    def __init__(self):
        self.paths = []

    def __call__(self, path):
        self.paths.append(path.name)
        return read_volume(path)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{n}.nii.gz" for n in range(3)]
    for n, path in enumerate(paths):
        write_volume(path, scan(ball(), seed=n))
    return paths


def test_a_volume_is_read_once(files):
    reader = Reader()
    studies = Studies(read=reader)
    assert studies.open(files[0]) is studies.open(files[0]) and reader.paths == ["0.nii.gz"]


def test_a_file_that_changed_is_read_again(files):
    studies = Studies()
    before = studies.open(files[0])
    write_volume(files[0], scan(ball(radius=3.0)))
    os.utime(files[0], ns=(1, 1))
    assert studies.open(files[0]).digest != before.digest


def test_only_the_last_few_are_kept(files):
    reader = Reader()
    studies = Studies(read=reader, max_volumes=2)
    for path in [files[0], files[1], files[0], files[2], files[0], files[1]]:
        studies.open(path)
    assert reader.paths == ["0.nii.gz", "1.nii.gz", "2.nii.gz", "1.nii.gz"]


def test_their_bytes_are_bounded_but_one_always_stays(files):
    reader = Reader()
    studies = Studies(read=reader, max_bytes=1)
    for path in [files[0], files[0], files[1], files[0]]:
        studies.open(path)
    assert reader.paths == ["0.nii.gz", "1.nii.gz", "0.nii.gz"]


def test_a_missing_file_is_the_readers_error(tmp_path):
    with pytest.raises(VolumeError):
        Studies().open(tmp_path / "nowhere.nii.gz")


@settings(max_examples=12)
@given(st.sampled_from(ORIENTATIONS))
def test_the_stored_orientation_does_not_change_the_study(orientation):
    stored = open_study(stored_as(VOLUME, *orientation))
    plain = open_study(VOLUME)
    assert stored.digest == plain.digest and (stored.volume.array == plain.volume.array).all()


def test_other_voxels_or_spacing_are_another_content():
    other = VOLUME.with_array(VOLUME.array + 1)
    stretched = scan(ball(), grid(spacing_mm=(1, 1, 2)))
    assert len({open_study(v).digest for v in (VOLUME, other, stretched)}) == 3


@pytest.mark.parametrize(
    ("axis", "count", "shape", "spacing"),
    [
        (SliceAxis.AXIAL, 16, (20, 24), (0.5, 0.6)),
        (SliceAxis.CORONAL, 20, (16, 24), (0.5, 4.0)),
        (SliceAxis.SAGITTAL, 24, (16, 20), (0.6, 4.0)),
    ],
)
def test_frames_are_windowed_slices(axis, count, shape, spacing):
    study = open_study(scan(ball(), grid(spacing_mm=(0.5, 0.6, 4.0))))
    frames = study.frames(axis, study.window("20:120"))
    assert (frames.count, frames.shape_hw) == (count, shape) and frames.spacing_xy_mm == pytest.approx(spacing)
    plane = frames.read(8)
    assert plane.dtype == np.float32 and 0.0 <= plane.min() < 0.1 and 0.9 < plane.max() <= 1.0


def test_window_and_axis_are_part_of_the_frames_name():
    study = open_study(VOLUME)
    names = {
        study.frames(axis, study.window(window)).key for axis in SliceAxis for window in ("auto", "20:120", "0:120")
    }
    assert len(names) == 9


def test_two_windows_of_one_name_are_not_mixed_up():
    study = open_study(VOLUME)
    window = study.window("20:120")
    other = replace(window, high=window.high + 1)
    assert study.frames(SliceAxis.AXIAL, window).key != study.frames(SliceAxis.AXIAL, other).key


def test_an_unknown_window_is_refused():
    with pytest.raises(ConfigError, match="sunny"):
        open_study(VOLUME).window("sunny")
