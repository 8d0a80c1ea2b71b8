"""DICOM SEG: what is written comes back, here, in highdicom and in pydicom-seg; a validator is content."""

import shutil
import subprocess
import warnings

import highdicom
import numpy as np
import pydicom
import pytest
from builders import phantom, stored_as

from slicecast.dicom.seg import SegNames, read_seg, referenced_series, term_for, write_seg
from slicecast.errors import ConfigError, GeometryError, VolumeError
from slicecast.volume import Geometry, read_volume

LABELS = {"kidney_left": 3, "liver": 7, "something of ours": 9}
NAMES = SegNames(LABELS, "1.2", "1.2.3.4")
NUMBERS = np.array([0, 0, 0, 1, 0, 0, 0, 2, 0, 3], np.uint8)
"""What SEG calls the values 3, 7 and 9."""

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pydicom_seg = pytest.importorskip("pydicom_seg")


@pytest.fixture(params=["sphere", "oblique", "left-handed"])
def annotated(request, series_of, labels_of):
    """A series, its grid, and a mask of it."""
    volume = phantom("oblique" if request.param == "oblique" else "sphere").volume
    if request.param == "left-handed":
        volume = stored_as(volume, (0, 1, 2), (False, False, True))
    series = series_of(volume)
    shown = read_volume(series.scan_path())
    return series, shown.geometry, labels_of(shown)


def saved(data, tmp_path):
    file = tmp_path / "seg.dcm"
    data.save_as(file)
    return file


def test_voxels_come_back(annotated, tmp_path):
    series, grid, mask = annotated
    file = saved(write_seg(mask, grid, series, NAMES), tmp_path)
    back, labels = read_seg(pydicom.dcmread(file), grid)
    assert np.array_equal(back, NUMBERS[mask])
    assert labels == {"kidney_left": 1, "liver": 2, "something of ours": 3}
    assert referenced_series(pydicom.dcmread(file)) == series.uid


def test_names_keep_every_letter(annotated, tmp_path):
    series, grid, mask = annotated
    data = write_seg(mask, grid, series, SegNames({"ł 肝臓": 3, "b": 7, "c": 9}, "1.2", "1.2.3.4"))
    assert list(read_seg(pydicom.dcmread(saved(data, tmp_path)), grid)[1]) == ["ł 肝臓", "b", "c"]


def test_voxels_come_back_in_highdicom(annotated, tmp_path):
    series, grid, mask = annotated
    file = saved(write_seg(mask, grid, series, NAMES), tmp_path)
    seg = highdicom.seg.segread(file)
    normal = grid.direction_matrix[:, 2]
    headers = [series.read(uid, pixels=False) for uid in series.sop_uids]
    ordered = sorted(headers, key=lambda h: float(np.dot(np.array(h.ImagePositionPatient, float), normal)))
    uids = [header.SOPInstanceUID for header in ordered]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    assert np.array_equal(found, NUMBERS[mask])


def test_voxels_come_back_in_pydicom_seg(annotated, tmp_path):
    series, grid, mask = annotated
    file = saved(write_seg(mask, grid, series, NAMES), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = pydicom_seg.MultiClassReader().read(pydicom.dcmread(file))
    # it keeps the slices between the first and the last that hold something
    used = np.flatnonzero(mask.any(axis=(1, 2)))
    assert np.array_equal(result.data, NUMBERS[mask][used[0] : used[-1] + 1])
    assert np.allclose(result.origin, grid.index_to_world((0, 0, used[0])), atol=1e-3)


def test_what_is_said_about_a_segment(annotated):
    series, grid, mask = annotated
    first, second, third = write_seg(mask, grid, series, NAMES).SegmentSequence
    assert first.SegmentLabel == "kidney_left" and first.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "64033007"
    modifier = first.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert modifier.CodeMeaning == "Left"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Slicecast", "1.2")
    assert second.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"
    assert third.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert len({item.TrackingUID for item in (first, second, third)}) == 3


def test_an_empty_mask_is_a_result(annotated, tmp_path):
    series, grid, mask = annotated
    data = write_seg(np.zeros_like(mask), grid, series, NAMES)
    back, labels = read_seg(pydicom.dcmread(saved(data, tmp_path)), grid)
    assert not back.any() and len(labels) == 3


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize("empty", [False, True])
def test_a_validator_finds_no_error(annotated, tmp_path, empty):
    series, grid, mask = annotated
    file = saved(write_seg(mask * (not empty), grid, series, NAMES), tmp_path)
    said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False).stderr
    assert "Segmentation" in said
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_what_cannot_be_written(annotated):
    series, grid, mask = annotated
    with pytest.raises(VolumeError, match=r"values \[7\] have no name"):
        write_seg(mask, grid, series, SegNames({"a": 3}, "1", "1.2"))
    with pytest.raises(GeometryError, match="16 images, the mask 15 slices"):
        write_seg(mask[1:], Geometry((24, 20, 15)), series, NAMES)


def test_a_seg_of_another_grid_is_refused(annotated):
    series, grid, mask = annotated
    data = write_seg(mask, grid, series, NAMES)
    moved = Geometry(grid.size_ijk, grid.spacing_mm, (0.0, 0.0, 7.77), grid.direction)
    with pytest.raises(GeometryError, match="mm from"):
        read_seg(data, moved)
    with pytest.raises(GeometryError, match="pixels"):
        read_seg(data, Geometry((9, 9, 9)))


def test_a_segment_that_no_label_has_room_for_is_refused(annotated):
    series, grid, mask = annotated
    data = write_seg(mask, grid, series, NAMES)
    for groups in data.PerFrameFunctionalGroupsSequence:  # as 8 bits, segment 1
        groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 257
    with pytest.raises(VolumeError, match="holds segment 257"):
        read_seg(data, grid)


def transposed(shared):
    orientation = shared.PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [orientation.ImageOrientationPatient[n] for n in (3, 4, 5, 0, 1, 2)]


def widened(shared):
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.8]


@pytest.mark.parametrize("change", [transposed, widened])
def test_a_seg_whose_pixels_lie_elsewhere_is_refused_though_it_begins_at_the_same_place(annotated, change):
    series, grid, mask = annotated
    data = write_seg(mask, grid, series, NAMES)
    change(data.SharedFunctionalGroupsSequence[0])
    with pytest.raises(GeometryError, match="mm from"):
        read_seg(data, grid)


@pytest.mark.parametrize("lost", ["PerFrameFunctionalGroupsSequence", "SegmentSequence", "PixelData", "Rows"])
def test_a_damaged_seg_gets_a_sentence(annotated, lost):
    series, grid, mask = annotated
    data = write_seg(mask, grid, series, NAMES)
    delattr(data, lost)
    with pytest.raises(VolumeError, match=r"cannot be read .*Export it again"):
        read_seg(data, grid)


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("Spleen", "78961009", None),
        ("kidney_left", "64033007", "Left"),
        ("Right Kidney", "64033007", "Right"),
        ("left ventricle", "87878005", None),
        ("tumour", "108369006", None),
        ("our own", "85756007", None),
    ],
)
def test_names(name, code, side):
    term = term_for(name)
    assert term.type[0] == code
    assert (term.side[2] if term.side else None) == side


def test_a_wrong_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "terminology.yaml").write_text("default: {category: [1, SCT], type: [1, SCT, x]}\nstructures: []\n")
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path))
    with pytest.raises(ConfigError, match="write \\[value, scheme, meaning\\]"):
        term_for("x")
