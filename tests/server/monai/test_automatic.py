"""What Slicer asks for after Next Sample."""

import json

import pytest
import SimpleITK as sitk
from labelserver import read_mask
from requests_toolbelt.multipart.decoder import MultipartDecoder


def ask(client, image):
    answer = client.post(f"/infer/?image={image}", files={"params": (None, '{"result_extension": ".nrrd"}')})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("multipart/form-data")
    params, mask = MultipartDecoder.from_response(answer).parts
    return json.loads(params.content), mask.content


@pytest.fixture
def image(studies):
    return sitk.ReadImage(str(studies / "first.nii.gz"))


def test_without_a_pre_annotation_slicer_gets_an_empty_mask_and_no_error(client, image, tmp_path):
    params, content = ask(client, "first")
    assert params["label_names"] == {"spleen": 1, "liver": 2, "kidney": 3}
    assert "no automatic model" in params["warnings"][0]
    mask = read_mask(content, tmp_path)
    assert mask.GetSize() == image.GetSize() and not sitk.GetArrayFromImage(mask).any()
    assert mask.GetOrigin() == pytest.approx(image.GetOrigin())


def test_a_pre_annotation_is_sent_again(client, tmp_path):
    wire = {"liver": [[12, 10, 8]], "save_label": True, "result_extension": ".nii.gz"}
    made = client.post("/infer/sam2?image=second&output=image", data={"params": json.dumps(wire)})
    params, content = ask(client, "second")
    assert params["label_names"] == {"liver": 2}
    expected = sitk.GetArrayFromImage(read_mask(made.content, tmp_path, name="made.nii.gz"))
    assert expected.any() and (sitk.GetArrayFromImage(read_mask(content, tmp_path)) == expected).all()


def test_an_unknown_or_foreign_image_is_refused(client):
    assert client.post("/infer/?image=third").status_code == 404
    assert client.post("/infer/?image=/etc/passwd").status_code == 422
