"""The sample data are complete, small, consistent, and made by their generator."""

import json

import numpy as np
import pydicom
import pytest

from slicecast.config import project_dir
from slicecast.volume import Geometry, Volume, canonicalise, read_volume
from slicecast_lab.generated import sample_ct, sample_mr
from slicecast_lab.generated.sample_data import DICOM_CASE, LABELS, cases, write_dicom_series, write_sample_data

FOLDER = project_dir("sample-data")
NAMES = [case.name for case in cases()]


def scan_path(name):
    return FOLDER / "dicom" / name if name == DICOM_CASE else FOLDER / "studies" / f"{name}.nii.gz"


@pytest.mark.parametrize("case", cases(), ids=NAMES)
def test_scan_and_truth_fit(case):
    scan, truth = read_volume(scan_path(case.name)), read_volume(FOLDER / "truth" / f"{case.name}.nii.gz")
    assert scan.geometry.differences(truth.geometry) == []
    assert scan.geometry.axcodes == case.axcodes
    assert canonicalise(scan)[1].geometry.differences(case.geometry) == []
    assert scan.warnings == ()
    assert set(np.unique(truth.array)) - {0} <= set(LABELS.values())
    assert len(np.unique(truth.array)) >= 5


def test_the_folder_is_small():
    shipped = ("*", "studies/*.nii.gz", "truth/*.nii.gz", "dicom/*/*.dcm")
    files = [path for pattern in shipped for path in FOLDER.glob(pattern) if path.is_file()]
    assert len(files) >= 4 + 4 + 5 + 24
    assert sum(path.stat().st_size for path in files) < 6_000_000


def test_the_description_names_every_label_and_case():
    description = json.loads((FOLDER / "dataset.json").read_text())
    assert description["labels"] == LABELS
    assert sorted(description["modality"]) == sorted(NAMES)
    assert description["licence"] == "CC0-1.0"
    assert "CC0" in (FOLDER / "LICENSE").read_text() or "Creative Commons" in (FOLDER / "LICENSE").read_text()


def test_organs_have_their_density():
    scan, truth = read_volume(scan_path("ct_abdomen_a")), read_volume(FOLDER / "truth" / "ct_abdomen_a.nii.gz")
    medians = {name: np.median(scan.array[truth.array == number]) for name, number in sample_ct.LABELS.items()}
    assert medians["liver_lesion"] < 80 < medians["liver"] < 125 < medians["kidney_left"] < 200
    assert scan.array.min() < -900


@pytest.mark.parametrize("draw", [sample_ct.abdomen, sample_mr.head])
def test_same_seed_same_scan(draw):
    geometry = Geometry((40, 40, 8), (8, 8, 12), (-160, -160, -40))
    build = sample_ct.Torso() if draw is sample_ct.abdomen else sample_mr.Head()
    first, again, other = (draw(geometry, build, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_a_dicom_series_is_read_back(tmp_path):
    array = np.arange(-60, 60).reshape(6, 5, 4).astype(np.int16)
    volume = Volume(array, Geometry((4, 5, 6), (1.5, 2.5, 4), (-3, 7, 11)))
    write_dicom_series(tmp_path / "series", volume, name="test")
    found = read_volume(tmp_path / "series")
    assert np.array_equal(found.array, array)
    assert found.geometry.differences(volume.geometry) == []
    assert found.modality == "CT"


def test_dicom_files_have_what_viewers_need():
    data = pydicom.dcmread(sorted((FOLDER / "dicom" / DICOM_CASE).iterdir())[0])
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "RescaleType"):
        assert data[keyword].value
    assert data.SOPInstanceUID.is_valid
    assert "Generated" in str(data.PatientName)


@pytest.mark.slow
def test_the_generator_makes_these_files(tmp_path):
    write_sample_data(tmp_path)
    for made in (tmp_path / "studies").iterdir():
        expected, found = read_volume(FOLDER / "studies" / made.name), read_volume(made)
        assert np.abs(found.array.astype(float) - expected.array).mean() < 0.01 * np.std(expected.array)
