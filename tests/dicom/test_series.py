"""Volumes as DICOM series: exact geometry and numbers in all orientations, right-handed for viewers."""

import shutil
import subprocess

import numpy as np
import pytest
from builders import ORIENTATIONS, phantom, stored_as

from slicecast.dicom.series import encoding_of, series_volume, stored_values
from slicecast.volume import Geometry, Volume, canonicalise, read_volume

EXACT_MM = 1e-4


@pytest.mark.parametrize(("permutation", "flips"), ORIENTATIONS[::5])
def test_every_voxel_stays_where_it_is(series_of, write_series, tmp_path, permutation, flips):
    volume = stored_as(phantom("oblique").volume, permutation, flips)
    series = series_of(volume)
    back = read_volume(write_series(series, tmp_path / "dicom"))
    assert np.linalg.det(back.geometry.direction_matrix) > 0
    assert np.array_equal(canonicalise(back)[0].array, canonicalise(volume)[0].array)
    corners = [(0, 0, 0), np.subtract(back.geometry.size_ijk, 1)]
    shown = read_volume(series.scan_path())
    assert np.abs(back.geometry.index_to_world(corners) - shown.geometry.index_to_world(corners)).max() < EXACT_MM
    assert np.array_equal(back.array, shown.array), "an index means the same to the viewer and to the server"


@pytest.mark.parametrize(("permutation", "flips"), ORIENTATIONS[::5])
def test_slices_stand_upright_and_stay_slices(permutation, flips):
    volume = stored_as(phantom("oblique").volume, permutation, flips)
    encoding = encoding_of(volume)
    along = [int(np.abs(axis).argmax()) for axis in encoding.geometry.direction_matrix.T]
    signs = [int(np.sign(axis[a])) for a, axis in zip(along, encoding.geometry.direction_matrix.T, strict=True)]
    assert along[2] == int(np.abs(volume.geometry.direction_matrix[:, 2]).argmax())
    shown = {0: ([1, 2], [1, -1]), 1: ([0, 2], [1, -1]), 2: ([0, 1], [1, 1])}[along[2]]
    assert (along[:2], signs[:2]) == shown, "left or back on the right, back or feet below"
    assert np.linalg.det(encoding.geometry.direction_matrix) > 0
    assert encoding.turned == bool(volume.geometry.differences(encoding.geometry))


def test_what_is_upright_already_is_left_alone(sphere):
    turned = stored_as(sphere, (0, 1, 2), (True, True, False))
    assert not encoding_of(sphere).turned and encoding_of(sphere).geometry == sphere.geometry
    assert np.array_equal(series_volume(turned, encoding_of(turned)).array, sphere.array)


@pytest.mark.parametrize(
    ("numbers", "tolerance"),
    [
        (np.linspace(-1024, 3071, 60).round().astype(np.int16), 0),
        (np.linspace(0, 65535, 60).round().astype(np.uint16), 0),
        (np.linspace(-70000, 131072, 60).round().astype(np.int32), 2),
        (np.linspace(-3.5, 8.25, 60, dtype=np.float32), 12 / 65535),
        (np.full(60, 4.5, np.float32), 1e-6),
    ],
)
def test_numbers_come_back(series_of, write_series, tmp_path, numbers, tolerance):
    volume = Volume(numbers.reshape(3, 4, 5), Geometry((5, 4, 3)))
    back = read_volume(write_series(series_of(volume), tmp_path / "dicom"))
    assert np.abs(back.array.astype(float) - volume.array.astype(float)).max() <= tolerance
    assert stored_values(volume, encoding_of(volume)).dtype.itemsize == 2


def test_modality_and_window(sphere):
    hounsfield = sphere.with_array(np.where(sphere.array > 70, 60, -1000).astype(np.int16))
    ct = encoding_of(hounsfield)
    assert (ct.modality, ct.low, ct.high) == ("CT", -160.0, 240.0)
    assert encoding_of(sphere).modality == "MR"
    assert encoding_of(sphere, modality="CT").modality == "CT"


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize("low", [-1000, 20])
def test_a_validator_finds_no_error(series_of, sphere, tmp_path, low):
    volume = sphere.with_array(np.where(sphere.array > 70, 60, low).astype(np.int16))
    series = series_of(volume)
    file = tmp_path / "one.dcm"
    series.read(series.sop_uids[0]).save_as(file, write_like_original=False)
    said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False).stderr
    errors = [line for line in said.splitlines() if line.startswith("Error")]
    assert errors == []
