"""A mask asked for as DICOM SEG: of a DICOM series, of a NIfTI file that is served as one, and of neither."""

import io
import json
import shutil

import numpy as np
import pydicom
import pytest
from labelserver import ROOT, read_mask, serving, write_studies

from slicecast.dicom.seg import read_seg, referenced_series
from slicecast.volume import read_volume

SERIES = ROOT / "sample-data" / "dicom" / "ct_abdomen_dicom"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A server on a DICOM series and two NIfTI files."""
    folder = tmp_path_factory.mktemp("seg")
    studies = write_studies(folder / "studies")
    shutil.copytree(SERIES, studies / "ct")
    with serving(folder / "app", studies, {"labels": "spleen,liver"}) as client:
        yield client


def ask(client, image, params, *, output="dicom_seg", model="sam2_single", **more):
    query = {"image": image, "output": output}
    return client.post(f"/infer/{model}", params=query, data={"params": json.dumps(params)}, **more)


def seg_of(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    return pydicom.dcmread(io.BytesIO(answer.content))


@pytest.mark.parametrize("image", ["series", "first"])
def test_the_voxels_are_those_of_the_mask(client, image, tmp_path):
    if image == "series":
        image = str(pydicom.dcmread(next(SERIES.glob("*.dcm"))).SeriesInstanceUID)
    params = {"label": "spleen", "foreground": [[12, 10, 8]], "result_extension": ".nrrd"}
    data = seg_of(ask(client, image, params))
    answer = ask(client, image, params, output="image")
    read_mask(answer.content, tmp_path)
    mask = read_volume(tmp_path / "mask.nrrd")
    back, labels = read_seg(data, mask.geometry)
    assert labels == {"spleen": 1} and mask.array.any()
    assert np.array_equal(back, mask.array)
    assert data.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    if image != "first":
        assert referenced_series(data) == image


def test_several_labels_keep_their_names(client):
    image = str(pydicom.dcmread(next(SERIES.glob("*.dcm"))).SeriesInstanceUID)
    data = seg_of(ask(client, image, {"spleen": [[60, 60, 12]], "liver": [[30, 40, 12]]}, model="sam2"))
    assert [item.SegmentLabel for item in data.SegmentSequence] == ["spleen", "liver"]


def test_an_upload_has_no_images_to_refer_to(client, tmp_path):
    sent = write_studies(tmp_path, ("other",)) / "other.nii.gz"
    with sent.open("rb") as stream:
        answer = ask(client, "", {"foreground": [[12, 10, 8]]}, files={"file": ("other.nii.gz", stream)})
    assert answer.status_code == 422
    assert "only an image of the studies" in answer.json()["detail"]
