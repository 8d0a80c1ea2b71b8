"""What OHIF, Slicer and programs see of the server."""

import json
import re
import threading
import time

import numpy as np
import pytest
import SimpleITK as sitk
from labelserver import REQUESTS, label_bytes, read_mask, recorded, serving
from monailabel.interfaces.utils.app import app_instance
from requests_toolbelt.multipart import decoder

from slicecast.errors import ConfigError
from slicecast.server.errors import Problem
from slicecast.volume import Geometry, read_volume


def infer(client, model, params, *, image="first", **query):
    return client.post(f"/infer/{model}", params={"image": image, **query}, data={"params": json.dumps(params)})


def parts(response):
    """Return the params and the file of a multipart answer."""
    found = decoder.MultipartDecoder(response.content, response.headers["content-type"]).parts
    return json.loads(found[0].content), found[1].content


def test_info_is_what_both_clients_need(client):
    info = client.get("/info/").json()
    assert info["labels"] == ["spleen", "liver", "kidney", "background"]
    assert {name: (model["type"], model["dimension"]) for name, model in info["models"].items()} == {
        "sam2": ("deepedit", 3),
        "sam2_single": ("deepgrow", 3),
        "sam2_slice": ("deepgrow", 2),
        "ct_sam3d_nano": ("deepedit", 3),
        "sam2_nano+ct_sam3d_nano": ("deepedit", 3),
    }
    assert {"random", "first", "strat_random", "coverage"} <= set(info["strategies"])
    assert info["scoring"] == {}
    assert "config" not in info  # Slicer would ask to upgrade the server


def test_labels_are_numbered_where_several_are_in_one_mask(client):
    """Lists where there are none, because OHIF iterates over them; the background has a number that no mask holds."""
    labels = {name: model["labels"] for name, model in client.get("/info/").json()["models"].items()}
    numbered = {"spleen": 1, "liver": 2, "kidney": 3, "background": 255}
    several = {name: numbered for name in ("sam2", "ct_sam3d_nano", "sam2_nano+ct_sam3d_nano")}
    assert labels == {**several, "sam2_single": [], "sam2_slice": []}


def test_options_are_of_types_that_clients_can_show(client):
    for model in client.get("/info/").json()["models"].values():
        for value in model["config"].values():
            assert isinstance(value, str | bool | int | float) or all(isinstance(word, str) for word in value)
            assert not isinstance(value, list) or len(set(value)) == len(value)


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
def test_recorded_requests(client, studies, tmp_path, path):
    record = recorded(path)
    query = {"output": record["output"]} if "output" in record else {}
    response = infer(client, record["model"], record["params"], **query)
    expected = record["expect"]
    if "status" in expected:
        assert response.status_code == expected["status"] and expected["detail"] in response.json()["detail"]
        return
    assert response.status_code == 200, response.text
    content = response.content if query else parts(response)[1]
    name = f"mask{expected.get('extension', record['params'].get('result_extension', '.nii.gz'))}"
    mask = read_mask(content, tmp_path, name=name)
    assert mask.GetPixelID() == sitk.sitkUInt8
    source = read_volume(studies / "first.nii.gz")
    assert Geometry.from_image(mask).differences(source.geometry) == []
    array = sitk.GetArrayFromImage(mask)
    values = {entry["value"] for entry in expected["objects"].values()}
    assert set(np.unique(array)) <= {0, *values}
    if "slice" in expected:
        assert set(np.nonzero(array)[0]) <= {expected["slice"]}


def test_the_params_of_an_answer(client, tmp_path):
    params, content = parts(infer(client, "sam2", {"spleen": [], "liver": [[12, 10, 8]], "result_extension": ".nrrd"}))
    assert params["label_names"] == {"liver": 2}
    assert params["objects"]["liver"]["voxels"] == int(
        (sitk.GetArrayFromImage(read_mask(content, tmp_path)) == 2).sum()
    )
    assert all(0 <= entry["value"] <= 1 for entry in params["confidence"])
    hint = params["next_slice"]
    assert hint is None or {"slice", "axis", "reason", "score", "strategy"} == hint.keys()
    assert "signs" not in params and params["confidence_kind"] == "raw"
    assert params["latencies"]["total"] >= params["latencies"]["infer"] > 0
    assert isinstance(params["warnings"], list)


def test_ohif_reads_uncompressed_nrrd(client):
    content = infer(client, "sam2_single", recorded(REQUESTS[0].with_name("ohif_single_first_click.json"))["params"],
                    output="image").content  # fmt: skip
    header, _, voxels = content.partition(b"\n\n")
    assert b"encoding: raw" in header and b"type: unsigned char" in header and b"sizes: 24 20 16" in header
    assert len(voxels) == 24 * 20 * 16


def test_a_removed_click_leaves_no_trace(client):
    def mask(points):
        return infer(client, "sam2_single", {"foreground": points, "result_extension": ".nrrd"}, output="image").content

    before = mask([[12, 10, 8]])
    assert mask([[12, 10, 8], [3, 3, 3]]) != before
    assert mask([[12, 10, 8]]) == before


CLICK = {"foreground": [[12, 10, 8]]}
BAD = {
    "malformed JSON": (422, "not valid JSON", "sam2", "first", "{bad"),
    "JSON that is no object": (422, "holds JSON of type list", "sam2", "first", "[1, 2]"),
    "JSON too deep": (422, "not valid JSON", "sam2", "first", "[" * 100_000),
    "image in params": (422, "must not hold 'image'", "sam2", "first", {"image": "/etc/passwd"}),
    "model in params": (422, "must not hold 'model'", "sam2", "first", {"model": "other"}),
    "unknown model": (404, "no model 'sam3'. Known: sam2, sam2_single, sam2_slice", "sam3", "first", {}),
    "unknown image": (404, "There is no image 'third'", "sam2", "third", {}),
    "no image": (404, "names no image", "sam2", "", {}),
    "absolute path": (422, "is a path", "sam2", "/etc/passwd", {}),
    "path upwards": (422, "is a path", "sam2", "../studies/first.nii.gz", {}),
    "no prompt": (422, "nothing to start from", "sam2", "first", {}),
    "point outside": (
        422,
        "outside the volume of 24 x 20 x 16",
        "sam2_single",
        "first",
        {"foreground": [[12, 10, 16]]},
    ),
    "negative index": (422, "outside the volume", "sam2_single", "first", {"foreground": [[-1, 10, 8]]}),
    "NaN": (422, "no JSON number", "sam2_single", "first", {"foreground": [[float("nan"), 10, 8]]}),
    "fraction": (422, "not a voxel index", "sam2_single", "first", {"foreground": [[1.5, 10, 8]]}),
    "two numbers": (422, "a point is three numbers", "sam2_single", "first", {"foreground": [[1, 10]]}),
    "20,000 points": (413, "at most 10000", "sam2_single", "first", {"foreground": [[1, 1, 1]] * 20_000}),
    "unknown axis": (422, "axis 'diagonal'", "sam2_single", "first", {**CLICK, "axis": "diagonal"}),
    "unknown window": (422, "window", "sam2_single", "first", {**CLICK, "window": "teeth"}),
    "empty range": (422, "holds no slice", "sam2_single", "first", {**CLICK, "range": "5:5"}),
    "range beyond": (422, "range", "sam2_single", "first", {**CLICK, "range": "500:600"}),
    "format": (422, "'result_extension' is '.exe'", "sam2_single", "first", {**CLICK, "result_extension": ".exe"}),
    "tag upwards": (
        422,
        "label tag",
        "sam2_single",
        "first",
        {**CLICK, "save_label": True, "label_tag": "../../outside"},
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_has_a_reason_and_the_server_stays_up(client, what):
    status, detail, model, image, params = BAD[what]
    text = params if isinstance(params, str) else json.dumps(params)
    response = client.post(f"/infer/{model}", params={"image": image}, data={"params": text})
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert detail in response.json()["detail"]
    assert client.get("/healthz").json()["status"] == "ok"


def test_an_unknown_session(client):
    response = client.post("/infer/sam2", params={"session_id": "../../etc"}, data={"params": "{}"})
    assert response.status_code == 404 and "session that has not expired" in response.json()["detail"]
    assert client.get("/session/..%2f..").status_code == 404


def test_a_session_is_segmented(client, studies):
    with (studies / "first.nii.gz").open("rb") as stream:
        session = client.put("/session/", files={"files": ("volume.nii.gz", stream)}).json()["session_id"]
    query = {"session_id": session}
    response = client.post("/infer/sam2_single", params=query, data={"params": '{"foreground": [[12, 10, 8]]}'})
    assert response.status_code == 200
    assert client.delete(f"/session/{session}").status_code == 200
    assert (studies.parent / "app" / "cache" / "sessions").is_dir()


def test_an_uploaded_mask_is_a_prompt(client, studies, tmp_path):
    source = read_volume(studies / "first.nii.gz")
    painted = np.zeros(source.array.shape, np.uint8)
    painted[8, 6:14, 8:16] = 2
    file = tmp_path / "mask.nrrd"
    sitk.WriteImage(source.geometry.to_image(painted), str(file))
    with file.open("rb") as stream:
        response = client.post(
            "/infer/sam2", params={"image": "first"}, data={"params": "{}"}, files={"label": ("mask.nrrd", stream)}
        )
    assert response.status_code == 200, response.text
    assert list(parts(response)[0]["objects"]) == ["liver"]


@pytest.mark.parametrize("strategy", ["random", "first", "strat_random", "coverage"])
def test_next_sample(client, strategy):
    sample = client.post(f"/activelearning/{strategy}", json={"client_id": "anna"}).json()
    assert sample["id"] in ("first", "second") and sample["reason"]


def test_random_from_ohif_means_the_servers_own_strategy(studies, tmp_path):
    """OHIF sends no client_id, and `random` whatever its menu shows."""
    with serving(tmp_path / "app", studies, {"strategy": "first"}, raise_server_exceptions=True) as client:
        samples = [client.post("/activelearning/random", json={}).json() for _ in range(4)]
        assert {sample["chosen_by"] for sample in samples} == {"first"}  # each hands back the one before
        assert client.post("/activelearning/random", json={"client_id": "anna"}).json()["chosen_by"] == "random"


def test_a_strategy_that_does_not_exist_stops_the_start(studies, tmp_path):
    refused = pytest.raises(ConfigError, match="Choose one of random, first")
    with refused, serving(tmp_path / "app", studies, {"strategy": "clairvoyance"}):
        pass


def test_random_twice_within_a_second(client):
    assert [client.post("/activelearning/random", json={}).status_code for _ in range(5)] == [200] * 5


def test_unknown_strategy(client):
    response = client.post("/activelearning/clairvoyance", json={})
    assert response.status_code == 404 and "Known: random, first" in response.json()["detail"]


def test_pre_annotation_is_saved_with_its_names(client):
    response = infer(
        client, "sam2", {"spleen": [[12, 10, 8]], "save_label": True, "result_extension": ".nii.gz"}, image="second"
    )
    assert response.status_code == 200
    saved = client.get("/datastore/?output=all").json()["objects"]["second"]["labels"]["original"]["info"]
    assert saved["params"]["label_names"] == {"spleen": 1}


def test_labels_are_saved_and_versions_kept(client, studies):
    def save(content):
        files = {"label": ("label.nii.gz", content)}
        return client.put(
            "/datastore/label", params={"image": "first"}, data={"params": '{"client_id": "anna"}'}, files=files
        )

    one, two = label_bytes(118), label_bytes(70)
    assert [save(content).status_code for content in (one, two)] == [200, 200]
    assert client.get("/datastore/label", params={"label": "first", "tag": "final"}).content == two
    assert [f.read_bytes() for f in (studies / "labels" / "versions" / "final" / "first").glob("*.nii.gz")] == [one]
    assert client.get("/info/").json()["datastore"]["completed"] == 1


@pytest.mark.parametrize(
    ("query", "params", "status"),
    [
        ({"image": "third"}, "{}", 404),
        ({"image": "first", "tag": "../../outside"}, "{}", 422),
        ({"image": "first"}, "[1]", 422),
        ({"image": "first"}, "{bad", 422),
    ],
)
def test_labels_that_cannot_be_saved(client, query, params, status):
    files = {"label": ("label.nii.gz", b"x")}
    response = client.put("/datastore/label", params=query, data={"params": params}, files=files)
    assert response.status_code == status and response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/datastore/?image=../escaped", 422),
        ("GET", "/datastore/image?image=third", 404),
        ("GET", "/datastore/image?image=../../etc/passwd", 404),
        ("PUT", "/datastore/image/info?image=third", 404),
        ("GET", "/datastore/label?label=second&tag=../../x", 404),
        ("POST", "/train/other", 404),
        ("POST", "/reload", 404),
        ("PUT", "/model/sam2", 405),
        ("POST", "/infer/wsi/sam2", 404),
        ("GET", "/nothing", 404),
    ],
)
def test_other_doors(client, studies, method, path, status):
    files = {"file": ("image.nii.gz", b"x")} if method == "PUT" else None
    answer = client.request(method, path, files=files)
    assert answer.status_code == status and answer.json()["detail"]
    assert sorted(entry.name for entry in studies.parent.iterdir()) == ["app", "studies"]


def test_the_landing_page_needs_no_network(client):
    page = client.get("/").text
    assert "sam2_slice" in page and "kidney" in page and "of 2 images" in page
    files = [part.partition('"')[0] for part in re.split('(?:src|href)="', page)[1:]]
    assert "https://" not in page and {"/assets/slicecast.css", "/assets/theme.js"} <= set(files)
    assert all(client.get(file).status_code == 200 for file in files if file.startswith("/assets/"))
    assert client.get("/favicon.ico").status_code == 200


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_of_the_api_need_no_network(client, page):
    answer = client.get(page)
    files = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert answer.status_code == 200 and len(files) >= 2 and "https://" not in answer.text
    assert "https:" not in answer.headers["content-security-policy"]
    assert {client.get(file).status_code for file in files} == {200}


def test_no_other_web_page_may_read_answers(client):
    response = client.get("/info/", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in response.headers


def test_the_api_is_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/infer/{model}", "/info/", "/healthz", "/activelearning/{strategy}", "/datastore/label"} <= set(paths)


def test_every_error_is_described_with_the_body_that_it_has(client):
    described = client.get("/openapi.json").json()
    operations = [(path, way, op) for path, ways in described["paths"].items() for way, op in ways.items()]
    bodies = {
        (path, way, code): answer.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref")
        for path, way, operation in operations
        for code, answer in operation["responses"].items()
        if code >= "400"
    }
    assert len(bodies) > 200 and set(bodies.values()) == {"#/components/schemas/Problem"}
    silent = {path for path, _, op in operations if not {"422", "403"} & set(op["responses"])}
    assert silent == {"/healthz", "/metrics"}


def test_the_body_of_an_error_is_as_described(client):
    for answer in (client.get("/datastore/image"), client.get("/datastore/image", params={"image": "nobody"})):
        problem = Problem.model_validate(answer.json(), extra="forbid")
        assert answer.status_code in (404, 422) and problem.detail
        assert (problem.errors is not None) == (answer.status_code == 422)


def test_a_long_infer_blocks_nobody(client, monkeypatch):
    begun, finish = threading.Event(), threading.Event()
    service = app_instance().service
    segment = service.segment

    def slow(request, **given):
        begun.set()
        finish.wait(10)
        return segment(request, **given)

    monkeypatch.setattr(service, "segment", slow)
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(infer(client, "sam2_single", {"foreground": [[12, 10, 8]]}).status_code)
    )
    thread.start()
    assert begun.wait(10)
    start = time.monotonic()
    assert client.get("/info/").status_code == client.get("/healthz").status_code == 200
    assert client.post("/activelearning/first", json={}).status_code == 200
    assert time.monotonic() - start < 5 and answers == []
    finish.set()
    thread.join()
    assert answers == [200]


def test_head_is_answered_as_get_without_content(client):
    for path in ("/healthz", "/info/", "/openapi.json", "/dicom-web/studies", "/datastore/image?image=first", "/"):
        answer = client.head(path)
        assert answer.status_code == 200 and answer.content == b"" and answer.headers["content-type"]
    assert client.head("/nothing").status_code == 404


def test_no_answer_names_a_folder_of_the_server(client, studies):
    scan = {"files": ("scan.nii.gz", (studies / "first.nii.gz").read_bytes())}
    made = client.put("/session/", files=scan)
    session = f"/session/{made.json()['session_id']}"
    asked = [
        made,
        *(client.get(path) for path in (
            "/", "/info/", "/datastore/", "/datastore/?output=all", "/datastore/image/info?image=first",
            "/datastore/label/info?label=second&tag=original", "/dicom-web/studies", "/campaign/", "/model/info/sam2",
            "/batch/infer", "/train/", "/logs/", session,
        )),
        client.post("/activelearning/first", json={}),
        infer(client, "sam2_single", {"foreground": [[12, 10, 8]]}, output="json"),
        infer(client, "sam2", {"spleen": [[12, 10, 8]], "save_label": True, "label_tag": "original"}, output="json"),
        client.delete(session),
    ]  # fmt: skip
    for answer in asked:
        assert str(studies.parent) not in answer.text and "/tmp/" not in answer.text, answer.url


def test_no_request_analyses_its_route_again(client, monkeypatch):
    """That makes models under Python's list of warnings, which threads share: some failed while a SEG was written."""
    monkeypatch.setattr("fastapi.dependencies.utils.get_dependant", None)
    for path, status in {"/info/": 200, "/batch/infer/": 404, "/dicom-web/studies": 200}.items():
        assert client.get(path).status_code == status
