"""A header cannot lead to other files, nor claim more than can be held."""

import gzip
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from builders import phantom

from slicecast.errors import ReadingFull, VolumeError
from slicecast.volume import Geometry, Volume, read_volume, write_volume
from slicecast.volume.headers import READING, VoxelBudget, claim, require_size

NRRD = "NRRD0005\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n{}\n\n"
MHA = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {}\n"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is not the sender's to read, in a folder beside that of the images."""
    (tmp_path / "images").mkdir()
    file = tmp_path / "secret.raw"
    file.write_bytes(bytes(range(64)))
    return file


@pytest.mark.parametrize("line", ["data file: {}", "datafile: {}", "Data File: {}", "data file: ../{}", "DATAFILE:{}"])
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
def test_nrrd_that_names_another_file(secret, ending, line):
    named = line.format(secret.name if "../" in line else secret)
    file = secret.parent / "images" / f"scan{ending}"
    file.write_text(NRRD.format(named))
    with pytest.raises(VolumeError, match="voxels lie in"):
        read_volume(file)


@pytest.mark.parametrize("name", ["{}", "../secret.raw", "LIST", "slice%03d.raw 1 4 1"])
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_metaimage_that_names_another_file(secret, ending, name):
    file = secret.parent / "images" / f"scan{ending}"
    file.write_text(MHA.format(name.format(secret)) + f"{secret}\n" * 4)
    with pytest.raises(VolumeError):
        read_volume(file)


def test_a_link_beside_a_header_does_not_lead_out(secret):
    folder = secret.parent / "images"
    (folder / "beside.raw").symlink_to(secret)
    (folder / "scan.nhdr").write_text(NRRD.format("data file: beside.raw"))
    with pytest.raises(VolumeError, match="only one file beside it"):
        read_volume(folder / "scan.nhdr")


@pytest.mark.parametrize(("ending", "text"), [(".nhdr", NRRD.format("data file: beside.raw")),
                                              (".mhd", MHA.format("beside.raw"))])  # fmt: skip
def test_a_header_with_its_own_voxels_beside_it(tmp_path, ending, text):
    (tmp_path / "beside.raw").write_bytes(bytes(range(64)))
    (tmp_path / f"scan{ending}").write_text(text)
    assert read_volume(tmp_path / f"scan{ending}").array.ravel().tolist() == list(range(64))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_more_voxels_than_allowed(tmp_path, ending):
    file = write_volume(tmp_path / f"scan{ending}", Volume(np.zeros((4, 5, 6), np.uint8), Geometry((6, 5, 4))))
    assert read_volume(file, max_voxels=120).array.shape == (4, 5, 6)
    with pytest.raises(VolumeError, match="6 x 5 x 4 voxels; at most 119"):
        read_volume(file, max_voxels=119)


def test_a_claim_of_terabytes_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "scan.nrrd").write_text(NRRD.replace("4 4 4", "60000 60000 60000").format("endian: little"))
    with pytest.raises(VolumeError, match="at most"):
        read_volume(tmp_path / "scan.nrrd")
    with pytest.raises(VolumeError, match="at most 8 are read"):
        require_size((3, 3), "it", max_voxels=8)


def test_what_follows_the_voxels_is_not_unpacked(tmp_path):
    """A gzip bomb behind a small volume costs nothing: only what the header claims is read."""
    file = tmp_path / "scan.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 2, 2), np.uint8)), str(file))
    with gzip.open(file, "ab") as stream:
        stream.write(bytes(1 << 20))
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"no gzip at all" * 100)  # whoever unpacks everything stumbles over this
    assert size < file.stat().st_size
    assert read_volume(file).array.shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [(108, "<f", float("nan")), (108, "<f", 3e38), (108, "<f", -1.0), (72, "<h", -8), (72, "<h", 32767)],
)
def test_nifti_headers_that_lie(tmp_path, place, form, value):
    file = write_volume(tmp_path / "scan.nii", Volume(np.zeros((2, 2, 2), np.uint8), Geometry((2, 2, 2))))
    content = bytearray(file.read_bytes())
    struct.pack_into(form, content, place, value)
    file.write_bytes(content)
    with pytest.raises(VolumeError, match="Export it again"):
        read_volume(file)


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("NDims = 3", "NDims = -1"),  # ends the process in ITK
        ("NDims = 3", "NDims = 99999999999"),
        ("NDims = 3", "NDims = 3\nNDims = -1"),
        ("DimSize = 24 20 16", "DimSize = 24 20"),
        ("DimSize = 24 20 16", "DimSize = 24 20 -16"),
        ("ElementType = MET_SHORT", "ElementType = MET_STRING"),
        ("ElementSpacing = 1 1 1", "ElementSpacing = 1 1 1 1"),
        ("ElementSpacing = 1 1 1", "ElementSpacing = 1 nan 1"),
        ("NDims = 3", ""),
        ("NDims = 3", "NDims = 3\nElementNumberOfChannels = -1"),
        ("NDims = 3", "NDims = 3\nComment = " + "x" * 5000),
    ],
)
def test_a_damaged_meta_image_is_refused_before_itk_sees_it(tmp_path, line, other):
    path = write_volume(tmp_path / "a.mha", phantom().volume, compress=False)
    assert read_volume(path).geometry.size_ijk == (24, 20, 16)
    content = path.read_bytes()
    assert line.encode() in content
    path.write_bytes(content.replace(line.encode(), other.encode()).replace(b"\n\n", b"\n"))
    with pytest.raises(VolumeError, match="damaged"):
        read_volume(path)


def test_what_does_not_fit_beside_others_is_refused_with_a_time_to_come_back():
    budget = VoxelBudget(10 << 20, wait_s=0.0)
    budget.take(6 << 20)
    with pytest.raises(ReadingFull, match=r"6 million voxels.* 5 million more") as caught:
        budget.take(5 << 20)
    assert caught.value.status == 503 and "Retry-After" in caught.value.headers
    budget.take(4 << 20)
    budget.give(6 << 20)
    budget.take(6 << 20)


def test_one_volume_alone_may_be_larger():
    VoxelBudget(1, wait_s=0.0).take(100)


def test_it_waits_for_others():
    budget = VoxelBudget(10, wait_s=30.0)
    budget.take(10)
    threading.Timer(0.05, budget.give, [10]).start()
    budget.take(10)


def test_room_is_taken_once_and_given_back_after_errors():
    budget = VoxelBudget(10, wait_s=0.0)
    with pytest.raises(ZeroDivisionError), budget.reading():
        claim(8)
        claim(8)
        raise ZeroDivisionError
    budget.take(10)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_every_reader_counts(tmp_path, monkeypatch, ending):
    path = write_volume(tmp_path / f"scan{ending}", phantom().volume)
    monkeypatch.setattr(READING, "most", 1)
    monkeypatch.setattr(READING, "_wait_s", 0.0)
    read_volume(path)
    READING.take(1)
    try:
        with pytest.raises(ReadingFull):
            read_volume(path)
    finally:
        READING.give(1)
    read_volume(path)
