"""What cannot be a scan is found by its headers and length."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from builders import ball, scan
from dicoms import write_slices

from slicecast.errors import VolumeError
from slicecast.volume import examine, write_volume
from slicecast.volume.examine import check_scan


@pytest.fixture
def no_voxels(monkeypatch):
    """Whoever reads voxels fails."""

    def refuse(path, **options):
        raise AssertionError(f"{path} was read completely")

    monkeypatch.setattr(examine, "read_volume", refuse)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_whole_file_is_not_read(tmp_path, no_voxels, ending):
    check_scan(write_volume(tmp_path / f"a{ending}", scan(ball())))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_whole_uncompressed_file_is_not_read(tmp_path, no_voxels, ending):
    check_scan(write_volume(tmp_path / f"a{ending}", scan(ball()), compress=False))


def test_a_whole_series_is_not_read(tmp_path, no_voxels):
    check_scan(write_slices(tmp_path / "s", np.zeros((4, 6, 8)), [(0, 0, k) for k in range(4)]))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("compress", [True, False])
def test_a_file_that_is_cut_off(tmp_path, ending, compress):
    file = write_volume(tmp_path / f"a{ending}", scan(ball()), compress=compress)
    check_scan(file)
    file.write_bytes(file.read_bytes()[:-900])
    with pytest.raises(VolumeError, match="cut off"):
        check_scan(file)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_other_dimensions(tmp_path, ending):
    for shape, message in (((5, 4, 3, 2), "holds 5 volumes"), ((4, 3), "2D image")):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros(shape, np.int16), isVector=False), str(tmp_path / f"a{ending}"))
        with pytest.raises(VolumeError, match=message):
            check_scan(tmp_path / f"a{ending}")


def test_what_is_no_scan_at_all(tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"garbage" * 99))
    two = bytearray(write_volume(tmp_path / "two.nii", scan(ball())).read_bytes())
    two[:4] = (540).to_bytes(4, "little")
    (tmp_path / "two.nii").write_bytes(two)
    (tmp_path / "folder").mkdir()
    names = {"empty.nii.gz": "0 bytes", "text.nii.gz": "not a NIfTI", "two.nii": "NIfTI-2", "none.nii": "no file"}
    for name, message in {**names, "folder": "no DICOM"}.items():
        with pytest.raises(VolumeError, match=message):
            check_scan(tmp_path / name)


def test_a_file_in_two_gzip_parts_is_read(tmp_path):
    file = write_volume(tmp_path / "a.nii.gz", scan(ball()))
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    check_scan(file)
