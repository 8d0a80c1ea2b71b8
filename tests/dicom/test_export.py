"""Labels of a folder as files of every kind."""

import json
from datetime import datetime

import numpy as np
import pydicom
import pytest
from builders import phantom
from skimage.draw import polygon2mask

from slicecast.dicom.export import FORMATS, export_labels, stored_labels
from slicecast.errors import InputError, NotFound
from slicecast.volume import read_volume, write_mask, write_volume

NOW = datetime(2024, 8, 5, 12)


@pytest.fixture
def studies(tmp_path):
    """A folder with one labelled image, `case`, as MONAI Label leaves it."""
    folder = tmp_path / "studies"
    (folder / "labels" / "final").mkdir(parents=True)
    volume, truth = phantom("oblique")
    write_volume(folder / "case.nii.gz", volume)
    write_mask(folder / "labels" / "final" / "case.nrrd", truth, volume.geometry)
    label = {"ext": ".nrrd", "info": {"label_info": [{"name": "ball", "idx": 1}]}}
    index = {"objects": {"case": {"image": {"ext": ".nii.gz", "info": {}}, "labels": {"final": label}}}}
    (folder / "datastore_v2.json").write_text(json.dumps(index))
    return folder


def refuse(label, error):
    raise error


def exported(studies, tmp_path, kind):
    labels = stored_labels(studies)
    done = export_labels(studies, labels, tmp_path / "out", kind=kind, work=tmp_path / "work", now=NOW, skip=refuse)
    ((label, path),) = list(done)
    assert label.image_id == "case" and path.name == f"case{FORMATS[kind]}"
    return path


@pytest.mark.parametrize("kind", ["nifti", "nrrd"])
def test_as_a_volume(studies, tmp_path, kind):
    assert np.array_equal(read_volume(exported(studies, tmp_path, kind)).array > 0, phantom("oblique").truth)


def test_as_dicom_seg(studies, tmp_path):
    seg = pydicom.dcmread(exported(studies, tmp_path, "dicom-seg"))
    assert seg.SegmentSequence[0].SegmentLabel == "ball"
    assert np.count_nonzero(seg.pixel_array) == np.count_nonzero(phantom("oblique").truth)


def test_as_rtstruct(studies, tmp_path):
    data = pydicom.dcmread(exported(studies, tmp_path, "rtstruct"))
    assert data.StructureSetROISequence[0].ROIName == "ball"
    volume, truth = phantom("oblique")
    drawn = np.zeros_like(truth)
    for contour in data.ROIContourSequence[0].ContourSequence:
        points = volume.geometry.world_to_index(np.array(contour.ContourData, float).reshape(-1, 3))
        assert np.ptp(points[:, 2]) < 1e-3, "a contour lies in one slice"
        k = round(float(points[0, 2]))
        drawn[k] ^= polygon2mask(truth.shape[1:], points[:, 1::-1])
    assert np.array_equal(drawn, truth)


def test_what_is_missing(studies, tmp_path):
    with pytest.raises(InputError, match=r"datastore_v2\.json"):
        stored_labels(tmp_path)
    with pytest.raises(InputError, match="Unknown format"):
        list(export_labels(studies, [], tmp_path, kind="png", work=tmp_path, now=NOW, skip=refuse))
    (studies / "labels" / "final" / "case.nrrd").unlink()
    with pytest.raises(NotFound, match="is gone"):
        exported(studies, tmp_path, "nrrd")
