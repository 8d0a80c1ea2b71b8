"""DICOM series: order, gaps, tilt, folders that do not hold exactly one, and headers that claim too much."""

import contextlib
import shutil
import struct

import numpy as np
import pydicom
import pytest
from builders import grid
from dicoms import compress, write_enhanced, write_slices
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from slicecast.errors import VolumeError
from slicecast.volume import read_volume
from slicecast.volume.dicom import read_header, require_small_unpacked

FRAMES = np.arange(4 * 6 * 5, dtype=np.uint16).reshape(4, 6, 5) * 17
"""Of four slices, all voxels different."""
STACK = [(10.0, 20.0, 3.0 * n) for n in range(4)]


def write_series(folder, heights, *, rows=6, **attributes):
    """Write CT slices; all pixels of each hold its number in HU."""
    frames = np.broadcast_to(1024 + np.arange(len(heights))[:, None, None], (len(heights), rows, 5))
    positions = [(10.0, 20.0, z_mm) for z_mm in heights]
    return write_slices(folder, frames, positions, modality="CT", RescaleIntercept=-1024, RescaleSlope=1, **attributes)


@contextlib.contextmanager
def changed(file):
    """Change a file's attributes in the block."""
    data = pydicom.dcmread(file)
    yield data
    data.save_as(file)


def test_slices_are_sorted_by_position(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct", [0, 3, 6, 9]))
    assert volume.array[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert volume.array.dtype == np.int16
    assert volume.geometry.spacing_mm == pytest.approx((0.25, 0.5, 3))
    assert volume.geometry.origin_mm == (10, 20, 0)
    assert volume.modality == "CT"
    assert volume.meta["series_uid"] == "1.2.3.4"
    assert volume.warnings == ()


@pytest.mark.parametrize("heights", [[0, 3, 6, 12], [0, 1, 4, 8]])
def test_missing_and_uneven_slices_are_said(tmp_path, heights, capfd):
    volume = read_volume(write_series(tmp_path / "ct", heights))
    (warning,) = volume.warnings
    assert "unevenly spaced" in warning
    assert f"{max(np.diff(heights)):.2f} mm apart" in warning
    assert capfd.readouterr().err == ""


def test_rounded_positions_are_even(tmp_path):
    assert read_volume(write_series(tmp_path / "ct", [0, 2.5001, 4.9999, 7.5])).warnings == ()


def test_a_tilted_gantry_is_said(tmp_path):
    (warning,) = read_volume(write_slices(tmp_path, FRAMES, [(0, n, 4 * n) for n in range(4)])).warnings
    assert "tilted by 14.0 degrees" in warning


def test_two_slices_at_one_place_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", [0, 3, 6])
    write_series(folder, [3])
    with pytest.raises(VolumeError, match="same position"):
        read_volume(folder)


def test_slices_of_several_directions_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", [0, 3, 6])
    with changed(next(folder.iterdir())) as data:
        data.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
    with pytest.raises(VolumeError, match="different directions"):
        read_volume(folder)


def test_slices_without_position_are_said(tmp_path):
    for file in write_series(tmp_path, [0, 3]).iterdir():
        with changed(file) as data:
            del data.ImagePositionPatient, data.ImageOrientationPatient
    (warning,) = read_volume(tmp_path).warnings
    assert "do not say where they lie" in warning


def test_several_series_are_listed(tmp_path):
    folder = write_series(tmp_path, [0, 1, 2], SeriesInstanceUID="1.2.3.5", Modality="MR")
    write_series(folder, [0, 3], SeriesDescription="series 1.2.3.4")
    with pytest.raises(VolumeError, match=r"holds 2 DICOM series: CT series 1.2.3.4, 2 files .*; MR .*, 3 files"):
        read_volume(folder)


def test_a_folder_without_series_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(VolumeError, match="holds no DICOM image series"):
        read_volume(tmp_path)


def test_slices_of_different_size_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", [0, 3])
    write_series(folder, [6], rows=8)
    with pytest.raises(VolumeError, match=r"cannot be stacked|holds 2 DICOM series"):
        read_volume(folder)


def test_one_slice_file_is_a_thin_volume(tmp_path):
    (file,) = write_series(tmp_path, [4]).iterdir()
    volume = read_volume(file)
    assert volume.array.shape == (1, 6, 5)
    assert volume.modality == "CT"


def test_no_patient_data_is_kept(tmp_path):
    folder = write_series(tmp_path / "ct", [0, 3])
    for file in folder.iterdir():
        with changed(file) as data:
            data.PatientName, data.PatientID = "Doe^Jane", "4711"
    assert not {"Doe", "4711"} & set(str(dict(read_volume(folder).meta)).replace("^", " ").split())


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=["RLE", "JPEG 2000", "JPEG-LS"])
@pytest.mark.parametrize("several_frames", [False, True])
def test_compressed(tmp_path, syntax, several_frames):
    frames = np.arange(4 * 24 * 20, dtype=np.uint16).reshape(4, 24, 20)
    if several_frames:
        files = [write_enhanced(tmp_path / "one.dcm", frames, STACK)]
    else:
        files = list(write_slices(tmp_path, frames, STACK).iterdir())
    before = read_volume(tmp_path)
    for file in files:
        with changed(file) as data:
            compress(data, syntax)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, before.array) and len(np.unique(volume.array)) == frames.size
    assert volume.geometry == before.geometry and volume.warnings == before.warnings == ()


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]], ids=["upwards", "downwards", "mixed"])
def test_enhanced_multi_frame(tmp_path, modality, order):
    """Frames lie where they say, in whatever order they are stored, and have the scale that they say."""
    write_enhanced(tmp_path / "one.dcm", FRAMES[order], [STACK[n] for n in order], modality=modality)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, FRAMES.astype(int) * 2 - 10)
    assert volume.geometry.origin_mm == (10, 20, 0) and volume.geometry.spacing_mm == pytest.approx((0.25, 0.5, 3))
    assert volume.modality == modality and volume.warnings == ()
    assert read_volume(tmp_path / "one.dcm").geometry == volume.geometry


def test_enhanced_multi_frame_with_a_gap(tmp_path):
    write_enhanced(tmp_path / "one.dcm", FRAMES, [(0, 0, z) for z in (0, 3, 6, 12)])
    (warning,) = read_volume(tmp_path).warnings
    assert "unevenly spaced (3.00 to 6.00 mm" in warning


@pytest.mark.parametrize(
    ("positions", "slopes", "message"),
    [(STACK, [1.0, 2.0, 1.0, 1.0], "scales of their own"), ([*STACK[:2], *STACK[:2]], None, "same position")],
)
def test_refused_enhanced_multi_frames(tmp_path, positions, slopes, message):
    write_enhanced(tmp_path / "one.dcm", FRAMES, positions, slopes=slopes)
    with pytest.raises(VolumeError, match=message):
        read_volume(tmp_path)


@pytest.mark.parametrize("enhanced", [False, True])
def test_oblique(tmp_path, enhanced):
    turned = grid((5, 6, 4), spacing_mm=(0.25, 0.5, 2.0), turn_deg=(12, -8, 20))
    orientation = turned.direction_matrix.T[:2].ravel().tolist()
    positions = [turned.index_to_world((0, 0, k)) for k in range(4)]
    if enhanced:
        write_enhanced(tmp_path / "one.dcm", FRAMES, positions, orientation=orientation)
    else:
        write_slices(tmp_path, FRAMES, positions, orientation=orientation)
    volume = read_volume(tmp_path)
    corners = [(0, 0, 0), (4, 0, 0), (0, 5, 0), (4, 5, 3)]
    assert np.allclose(volume.geometry.index_to_world(corners), turned.index_to_world(corners), atol=1e-4)
    assert volume.warnings == () and volume.array[3, 5, 4] == volume.array.max()


TWO = [*STACK, *STACK]
TWICE = np.concatenate([FRAMES, FRAMES + 1])


@pytest.mark.parametrize(
    ("word", "values"),
    [("EchoNumbers", [1] * 4 + [2] * 4), ("TemporalPositionIdentifier", [1] * 4 + [2] * 4),
     ("AcquisitionTime", ["101500"] * 4 + ["101700"] * 4)],
)  # fmt: skip
def test_several_volumes_in_one_series(tmp_path, word, values):
    """Refused, with what tells them apart and what to do."""
    write_slices(tmp_path, TWICE, TWO, **{word: values})
    with pytest.raises(VolumeError) as caught:
        read_volume(tmp_path)
    said = f"2 volumes, told apart by {word}: {values[0]} (4 files), {values[-1]} (4 files). Keep the files of one"
    assert said in str(caught.value)


def test_copies_of_slices(tmp_path):
    write_slices(tmp_path, TWICE, TWO)
    with pytest.raises(VolumeError, match="remove files that are there twice"):
        read_volume(tmp_path)


@pytest.mark.parametrize("photometric", ["PALETTE COLOR", "YBR_FULL", "RGB"])
def test_colour(tmp_path, photometric):
    write_slices(tmp_path, FRAMES, STACK, PhotometricInterpretation=photometric)
    with pytest.raises(VolumeError, match="in colour"):
        read_volume(tmp_path)


def test_what_is_no_image(tmp_path):
    for file in write_slices(tmp_path, FRAMES, STACK).iterdir():
        with changed(file) as data:
            del data.PixelData, data.Rows
    with pytest.raises(VolumeError, match="holds no DICOM image series"):
        read_volume(tmp_path)
    with pytest.raises(VolumeError, match="holds no image, such as a report"):
        read_volume(next(tmp_path.iterdir()))


def test_a_damaged_slice_is_named(tmp_path):
    """To leave it out would be a hole in the scan."""
    files = sorted(write_slices(tmp_path, FRAMES, STACK).iterdir())
    files[1].write_bytes(files[1].read_bytes()[:500])
    with pytest.raises(VolumeError, match=files[1].name):
        read_volume(tmp_path)


@pytest.mark.data
def test_uneven_tilted_head(real_data):
    warnings = read_volume(real_data / "dicom" / "ct_head_uneven_gaps_tilt").warnings
    assert "1.08 to 7.00 mm" in warnings[0]
    assert "18.5 degrees" in warnings[1]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "slices"),
    [("mr_head_vs_seg", 40), ("mr_hippocampus_crop_a", 32), ("mr_hippocampus_crop_b", 35), ("mr_prostate_oblique", 19)],
)
def test_real_series(real_data, name, slices):
    volume = read_volume(real_data / "dicom" / name)
    assert volume.geometry.size_ijk[2] == slices
    assert volume.modality == "MR"
    assert volume.warnings == ()


@pytest.mark.data
def test_a_real_series_with_a_slice_removed(real_data, tmp_path):
    source = real_data / "dicom" / "mr_prostate_oblique"
    order = sorted(
        source.iterdir(), key=lambda path: int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber)
    )
    for path in [*order[:8], *order[9:]]:
        shutil.copy(path, tmp_path / path.name)
    (warning,) = read_volume(tmp_path).warnings
    assert "unevenly spaced (3.00 to 6.00 mm" in warning


PAIR_FRAMES = np.arange(2 * 6 * 5, dtype=np.uint16).reshape(2, 6, 5)
PAIR = [(0.0, 0.0, 0.0), (0.0, 0.0, 2.0)]


@pytest.fixture
def file(tmp_path):
    """One slice."""
    return next(write_slices(tmp_path, PAIR_FRAMES[:1], PAIR[:1]).iterdir())


def test_what_is_said(tmp_path, file):
    header = read_header(file)
    assert (header.columns, header.rows, header.frames, header.modality) == (5, 6, 1, "MR")
    assert header.positions_mm.tolist() == [[0, 0, 0]] and header.orientations.shape == (1, 6)
    enhanced = read_header(write_enhanced(tmp_path / "many.dcm", PAIR_FRAMES, PAIR))
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
    with changed(file) as data:
        compress(data, RLELossless)
    content = bytearray(file.read_bytes())
    last = content.rindex(b"\xfe\xff\x00\xe0")
    content[last + 4 : last + 8] = struct.pack("<I", 0x7FFFFF00)
    file.write_bytes(content)
    with pytest.raises(VolumeError, match="claims 2147483392 bytes"):
        read_header(file)


def test_more_frames_than_bytes(tmp_path):
    file = write_enhanced(tmp_path / "many.dcm", PAIR_FRAMES, PAIR)
    with changed(file) as data:
        data.Rows = 60000
    with pytest.raises(VolumeError, match="cannot hold pixels of"):
        read_header(file)


def test_other_files(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(VolumeError, match="not a readable DICOM image"):
        read_header(tmp_path / "a.dcm")


def test_a_deflated_file_that_unpacks_without_end(file):
    """A megabyte of it holds a gigabyte."""
    plain = read_header(file)
    with changed(file) as data:
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert read_header(file).positions_mm.tolist() == plain.positions_mm.tolist()
    with file.open("rb") as stream, pytest.raises(VolumeError, match="unpacks to more than 100 bytes"):
        require_small_unpacked(stream, most=100)
