"""Finding series in a tree of files, whatever else lies there."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from builders import phantom
from pydicom.uid import RLELossless

from slicecast.dicom.catalogue import DicomTree
from slicecast.errors import VolumeError
from slicecast.volume import read_volume


@pytest.fixture
def dicom(series_of, write_series, tmp_path):
    """A folder with one series."""
    return write_series(series_of(phantom().volume), tmp_path / "tree" / "a")


def tree(tmp_path, **options):
    return DicomTree(tmp_path / "tree", tmp_path / "links", **options)


def change(file, **attributes):
    data = pydicom.dcmread(file)
    for word, value in attributes.items():
        setattr(data, word, value)
    if "SOPInstanceUID" in attributes:
        data.file_meta.MediaStorageSOPInstanceUID = attributes["SOPInstanceUID"]
    data.save_as(file)


def test_a_folder_of_its_own_is_used_as_it_is(dicom, tmp_path):
    (dicom / "notes.txt").write_text("no DICOM")
    (series,) = tree(tmp_path).series()
    assert series.image_id == series.uid and len(series.sop_uids) == 16
    assert series.scan_path() == dicom
    numbers = [series.read(uid, pixels=False).InstanceNumber for uid in series.sop_uids]
    assert numbers == list(range(1, 17))


def test_two_series_in_one_folder_are_told_apart(dicom, tmp_path):
    for file in list(dicom.glob("*.dcm")):
        copy = shutil.copyfile(file, dicom / f"other{file.name}")
        change(copy, SeriesInstanceUID="1.2.3", SOPInstanceUID=f"{pydicom.dcmread(copy).SOPInstanceUID}.9")
    first, second = tree(tmp_path).series()
    for series in (first, second):
        assert np.array_equal(read_volume(series.scan_path()).array, phantom().volume.array)
    assert first.scan_path() != second.scan_path()


def test_requests_at_once_may_make_the_same_folder_of_links(dicom, tmp_path):
    change(shutil.copyfile(next(dicom.glob("*.dcm")), dicom / "other.dcm"), SeriesInstanceUID="1.2.3")
    (uid,) = [series.uid for series in tree(tmp_path).series() if len(series.sop_uids) > 1]
    for number in range(20):
        found = {series.uid: series for series in DicomTree(dicom, tmp_path / f"links{number}").series()}
        together = threading.Barrier(8)

        def path(series=found[uid], together=together):
            together.wait()
            return series.scan_path()

        with ThreadPoolExecutor(8) as threads:
            paths = [future.result() for future in [threads.submit(path) for _ in range(8)]]
        assert len(set(paths)) == 1 and len(list(paths[0].iterdir())) == 16


def test_a_changed_file_is_read_again(dicom, tmp_path):
    found = tree(tmp_path)
    assert len(found.series()) == 1
    change(next(dicom.glob("*.dcm")), SeriesInstanceUID="1.2.3")
    assert len(found.series()) == 2


@pytest.mark.parametrize("uid", ["../../escape", "1.2/3", "..", "x"])
def test_what_is_no_uid_is_not_listed(dicom, tmp_path, uid):
    with pytest.warns(UserWarning, match="UI"):
        for file in dicom.glob("*.dcm"):
            change(file, SeriesInstanceUID=uid)
        assert tree(tmp_path).series() == []


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="has no file that even root cannot read")
def test_a_file_that_cannot_be_read_does_not_hide_the_others(dicom, tmp_path, caplog):
    (dicom / "locked.dcm").symlink_to("/proc/self/mem")
    (series,) = tree(tmp_path, follow_links=True).series()
    assert len(series.sop_uids) == 16 and series.scan_path() == dicom
    assert "locked.dcm cannot be opened" in caplog.text


@pytest.mark.parametrize("several", [{"InstanceNumber": [1, 2]}, {"Modality": ["CT", "MR"]}])
def test_a_file_with_several_values_of_one_does_not_hide_the_others(dicom, tmp_path, caplog, several):
    change(shutil.copyfile(next(dicom.glob("*.dcm")), dicom / "odd.dcm"), **several)
    (series,) = tree(tmp_path).series()
    assert len(series.sop_uids) == 16
    assert f"odd.dcm is not listed: it has several values of {next(iter(several))}" in caplog.text


def test_links_and_hidden_folders_are_left_alone(dicom, tmp_path):
    outside = shutil.move(dicom, tmp_path / "outside")
    (tmp_path / "tree" / "linked").symlink_to(outside)
    shutil.copytree(outside, tmp_path / "tree" / ".hidden")
    assert tree(tmp_path).series() == []
    assert len(tree(tmp_path, follow_links=True).series()) == 1


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_in_a_circle_do_not_end_the_scan(dicom, tmp_path, follow_links):
    (dicom / "circle.dcm").symlink_to(dicom / "circle.dcm")
    (dicom / "folder").symlink_to(dicom / "folder", target_is_directory=True)
    (dicom / "round").symlink_to(tmp_path / "tree", target_is_directory=True)
    assert len(tree(tmp_path, follow_links=follow_links).series()) == 1


def test_compressed_slices_are_read(dicom, tmp_path):
    for file in dicom.glob("*.dcm"):
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.save_as(file)
    (series,) = tree(tmp_path).series()
    assert np.array_equal(read_volume(series.scan_path()).array, phantom().volume.array)


def test_colour_is_served_but_never_annotated(dicom, tmp_path):
    for file in dicom.glob("*.dcm"):
        data = pydicom.dcmread(file)
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
        data.PixelData = bytes(3 * data.Rows * data.Columns)
        data.save_as(file)
    (series,) = tree(tmp_path).series()
    assert series.image_id is None
    with pytest.raises(VolumeError, match="3 numbers per voxel"):
        read_volume(series.scan_path())
