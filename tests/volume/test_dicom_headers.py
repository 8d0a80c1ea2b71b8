"""What a DICOM file claims is settled before anything is reserved for it."""

import struct

import numpy as np
import pydicom
import pytest
from dicoms import compress, write_enhanced, write_slices
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from slicecast.errors import VolumeError
from slicecast.volume.dicom_headers import read_header, require_small_unpacked

FRAMES = np.arange(2 * 6 * 5, dtype=np.uint16).reshape(2, 6, 5)
STACK = [(0.0, 0.0, 0.0), (0.0, 0.0, 2.0)]


@pytest.fixture
def file(tmp_path):
    """One slice."""
    return next(write_slices(tmp_path, FRAMES[:1], STACK[:1]).iterdir())


def test_what_is_said(tmp_path, file):
    header = read_header(file)
    assert (header.columns, header.rows, header.frames, header.modality) == (5, 6, 1, "MR")
    assert header.positions_mm.tolist() == [[0, 0, 0]] and header.orientations.shape == (1, 6)
    enhanced = read_header(write_enhanced(tmp_path / "many.dcm", FRAMES, STACK))
    assert enhanced.frames == 2 and enhanced.positions_mm.tolist() == [[0, 0, 0], [0, 0, 2]]


@pytest.mark.parametrize("tag", [b"\x28\x00\x30\x00DS", b"\x10\x00\x10\x00PN"])
def test_a_value_that_claims_to_be_longer_than_the_file(file, tag):
    content = bytearray(file.read_bytes())
    place = content.index(tag) + 4
    content[place : place + 8] = b"OB\0\0" + struct.pack("<I", 0xFFFFFF00)
    file.write_bytes(content)
    with pytest.raises(VolumeError, match="goes beyond its end"):
        read_header(file)


def test_a_piece_of_compressed_pixels_that_claims_too_much(file):
    data = pydicom.dcmread(file)
    compress(data, RLELossless)
    data.save_as(file)
    content = bytearray(file.read_bytes())
    last = content.rindex(b"\xfe\xff\x00\xe0")
    content[last + 4 : last + 8] = struct.pack("<I", 0x7FFFFF00)
    file.write_bytes(content)
    with pytest.raises(VolumeError, match="claims 2147483392 bytes"):
        read_header(file)


def test_more_frames_than_bytes(tmp_path):
    file = write_enhanced(tmp_path / "many.dcm", FRAMES, STACK)
    data = pydicom.dcmread(file)
    data.Rows = 60000
    data.save_as(file)
    with pytest.raises(VolumeError, match="cannot hold pixels of"):
        read_header(file)


def test_other_files(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(VolumeError, match="not a readable DICOM image"):
        read_header(tmp_path / "a.dcm")


def test_a_deflated_file_that_unpacks_without_end(file):
    """A megabyte of it holds a gigabyte."""
    plain = read_header(file)
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(file)
    assert read_header(file).positions_mm.tolist() == plain.positions_mm.tolist()
    with file.open("rb") as stream, pytest.raises(VolumeError, match="unpacks to more than 100 bytes"):
        require_small_unpacked(stream, most=100)
