"""What is sent back."""

import json
import math
import tempfile

import numpy as np
import pytest
import SimpleITK as sitk
from builders import phantom

from slicecast.active.calibration import SliceFeatures
from slicecast.inference.results import NextSlice, SegmentResult, SliceConfidence
from slicecast.labelling.tasks.answer import answer_params, mean_confidence, renumber, write_answer
from slicecast.labelling.tasks.request import InferRequest
from slicecast.volume import Geometry


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def result(**changes):
    volume, truth = phantom("oblique")
    fields = {
        "mask": truth.astype(np.uint8) * 2,
        "geometry": volume.geometry,
        "labels": {"spleen": 1, "liver": 2},
        "confidence": (SliceConfidence(3, 0.9), SliceConfidence(4, 0.5)),
        "next_slice": NextSlice(4, "axial", "least sure", 0.5, "worst"),
        "seconds": {"read": 0.25, "encode": 0.5, "propagate": 1.0, "post": 0.125, "total": 2.0},
        "warnings": ("uneven gaps",),
    }
    return SegmentResult(**{**fields, **changes})


def asked(**changes):
    return InferRequest((), {"spleen": 1, "liver": 4}, **changes)


def test_values_are_what_the_client_expects():
    mask = np.array([[[0, 1, 2]]], np.uint8)
    assert renumber(mask, {"spleen": 1, "liver": 2}, {"spleen": 7, "liver": 3}).tolist() == [[[0, 7, 3]]]


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".nii", ".mha"])
@pytest.mark.parametrize("compress", [False, True])
def test_the_mask_lies_on_the_sources_grid(tmp_path, extension, compress):
    answer = write_answer(result(), asked(extension=extension, compress=compress), image=tmp_path / "a.nii.gz")
    image = sitk.ReadImage(str(answer.file))
    assert Geometry.from_image(image).differences(result().geometry) == []
    assert image.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(sitk.GetArrayFromImage(image))) == {0, 4}
    assert answer.params["latencies"]["write"] > 0


@pytest.mark.parametrize(("name", "extension"), [("a.nii.gz", ".nii.gz"), ("a.mha", ".mha"), ("folder", ".nrrd")])
def test_without_a_wish_the_format_is_the_images_own(tmp_path, name, extension):
    assert write_answer(result(), asked(), image=tmp_path / name).file.name.endswith(extension)


def test_params():
    mask = renumber(result().mask, result().labels, asked().values)
    params = answer_params(result(), mask, values=asked().values, seconds={**result().seconds, "write": 0.5})
    voxels = int((mask == 4).sum())
    assert params["label_names"] == {"liver": 4}  # spleen has no voxels, and Slicer counts the values present
    assert params["objects"]["spleen"] == {"value": 1, "voxels": 0, "ml": 0.0}
    assert params["objects"]["liver"]["voxels"] == voxels
    assert params["confidence"] == [{"slice": 3, "value": 0.9}, {"slice": 4, "value": 0.5}]
    assert params["mean_confidence"] == 0.7
    hint = {
        "slice": 4,
        "axis": "axial",
        "reason": "least sure",
        "score": 0.5,
        "strategy": "worst",
    }
    assert params["next_slice"] == hint and params["good_enough"] == "" and params["confidence_kind"] == "raw"
    latencies = params["latencies"]
    assert (latencies["pre"], latencies["infer"], latencies["post"], latencies["total"]) == (0.25, 1.5, 0.125, 2.5)
    assert params["warnings"] == ["uneven gaps"]


def test_features_of_slices_without_a_prompt_are_kept_beside_what_is_sent(tmp_path):
    features = SliceFeatures(0.5, True, 0.7, 0.8, 1.0, 3.0, 0.9)
    judged = result(confidence=(SliceConfidence(3, 0.9), SliceConfidence(4, 0.5, features)), calibrated=True)
    answer = write_answer(judged, asked(), image=tmp_path / "a.nii.gz")
    assert answer.slice_features == {"4": features.to_row()} and answer.params["confidence_kind"] == "calibrated"


def test_what_is_unknown_is_null_because_json_has_no_nan():
    unsure = result(confidence=(SliceConfidence(3, math.nan),), next_slice=None)
    params = answer_params(unsure, unsure.mask, values={"spleen": 1, "liver": 2}, seconds={"write": 0.0})
    assert params["mean_confidence"] is params["next_slice"] is params["confidence"][0]["value"] is None
    json.dumps(params, allow_nan=False)


def test_no_confidence_at_all():
    assert mean_confidence(result(confidence=())) is None
