"""The answer to an infer request, and what is left behind."""

import json
from pathlib import Path

import pytest
from requests_toolbelt.multipart import decoder

from slicecast.errors import InputError
from slicecast.server.monai.infer import FIXED_KEYS, NAMES, Output, answer, checked_params
from slicecast.volume.headers import READING


@pytest.fixture
def result(tmp_path):
    file = tmp_path / "mask.nrrd"
    file.write_bytes(b"voxels")
    return {"file": str(file), "params": {"label_names": {"spleen": 1}}}


@pytest.mark.parametrize("output", [None, *Output])
def test_the_mask_is_sent_and_its_file_removed(result, output):
    response = answer(lambda: result, output)
    assert not Path(result["file"]).exists()
    if output is Output.json:
        assert json.loads(response.body) == result["params"]
    elif output is Output.image:
        assert response.body == b"voxels" and "mask.nrrd" in response.headers["content-disposition"]
    else:
        params, image = decoder.MultipartDecoder(response.body, response.headers["content-type"]).parts
        assert json.loads(params.content) == result["params"] and image.content == b"voxels"


def test_without_a_mask_the_params_are_sent(result):
    assert json.loads(answer(lambda: {**result, "file": None}, None).body) == result["params"]


@pytest.mark.parametrize("key", FIXED_KEYS)
def test_params_cannot_replace_the_address(key):
    with pytest.raises(InputError, match=f"must not hold '{key}'"):
        checked_params(json.dumps({key: "x"}))
    assert checked_params("") == {}


@pytest.mark.parametrize("key", NAMES)
def test_names_in_params_have_a_length(key):
    with pytest.raises(InputError, match=f"'{key}' is longer than 255 bytes"):
        checked_params(json.dumps({key: "x" * 256}))


@pytest.mark.parametrize("kind", ["multipart", "urlencoded"])
def test_params_have_a_length(client, kind):
    params = json.dumps({"foreground": [], "label": "x" * (1 << 20)})
    form = {"files": {"params": (None, params)}} if kind == "multipart" else {"data": {"params": params}}
    answer = client.post("/infer/sam2?image=first", **form)
    assert answer.status_code == 413 and "larger than 1 MiB" in answer.json()["detail"]


def test_volumes_that_do_not_fit_beside_others_are_503(client, monkeypatch):
    monkeypatch.setattr(READING, "_wait_s", 0.0)
    most = READING.most
    READING.take(most)
    try:
        answer = client.post("/infer/sam2?image=second", files={"params": (None, '{"spleen": [[1, 1, 1]]}')})
    finally:
        READING.give(most)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
    assert "Try again" in answer.json()["detail"]
