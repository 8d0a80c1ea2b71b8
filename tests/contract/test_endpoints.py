"""What MONAI Label's own tests of its endpoints ask for, written anew for this server."""

import json
from pathlib import Path

import pytest

TEN_MINUTES = "/session/?expiry=600"


def test_info(client):
    info = client.get("/info/").json()
    assert info["version"] and info["name"] and info["labels"]
    assert info["datastore"]["total"] == 3


@pytest.mark.parametrize("strategy", ["random", "first"])
def test_next_sample(client, strategy):
    sample = client.post(f"/activelearning/{strategy}")
    assert sample.status_code == 200 and sample.json()["id"] and sample.json()["name"]


def test_infer(client):
    answer = client.post("/infer/sam2?image=first", data={"params": json.dumps({"spleen": [[12, 10, 8]]})})
    assert answer.status_code == 200


class TestSession:
    def test_an_unknown_one(self, client):
        assert client.get("/session/xyz").status_code == 404

    def test_one_file(self, client, studies):
        scan = (studies / "first.nii.gz").read_bytes()
        made = client.put(TEN_MINUTES, files=[("files", ("scan.nii.gz", scan))]).json()
        address = f"/session/{made['session_id']}"
        assert client.get(address).status_code == 200
        renewed = client.get(f"{address}?update_ts=true").json()
        assert renewed["last_access_ts"] >= made["session_info"]["last_access_ts"]
        image = client.get(f"{address}?image=true")
        assert image.content == scan and image.headers["content-type"] == "application/octet-stream"
        assert client.delete(address).status_code == 200
        assert client.get(address).status_code == 404

    def test_several_files(self, client, studies):
        files = [("files", (name, (studies / name).read_bytes())) for name in ("first.nii.gz", "second.nii.gz")]
        made = client.put("/session/", files=files, data={"client_id": "xyz"})
        assert made.status_code == 200
        assert client.delete(f"/session/{made.json()['session_id']}").status_code == 200


class TestDatastore:
    def test_images_come_and_go(self, client, studies):
        total = client.get("/datastore/").json()["total"]
        scan = (studies / "third.nii.gz").read_bytes()
        assert client.put("/datastore/", files={"file": ("fourth.nii.gz", scan)}).status_code == 200
        assert "fourth" in client.get("/datastore/?output=all").text
        assert client.get("/datastore/").json()["total"] == total + 1
        assert client.delete("/datastore/?id=fourth").status_code == 200
        assert client.get("/datastore/").json()["total"] == total

    def test_labels_come_and_go(self, client, label):
        files = {"label": ("label.nii.gz", label), "params": (None, '{"label_info": [{"name": "spleen", "idx": 1}]}')}
        assert client.put("/datastore/label?image=first&tag=test", files=files).status_code == 200
        assert client.get("/datastore/").json()["label_tags"]["test"]
        assert client.delete("/datastore/label?id=first&tag=test").status_code == 200
        assert "test" not in client.get("/datastore/").json()["label_tags"]

    @pytest.mark.parametrize("path", ["image?image=first", "label?label=first&tag=final", "dataset"])
    def test_downloads(self, client, path):
        assert client.get(f"/datastore/{path}").status_code == 200

    @pytest.mark.parametrize("path", ["image/info?image=first", "label/info?label=first&tag=final"])
    def test_infos(self, client, path):
        assert client.put(f"/datastore/{path}").status_code == 200
        assert client.get(f"/datastore/{path}").json()["name"] == "first.nii.gz"


class TestTrain:
    def test_the_trainer_is_listed(self, client):
        info = client.get("/info/").json()
        assert info["trainers"]["sam2"]["description"] and info["trainers"]["sam2"]["config"] == {}
        assert info["train_stats"] == {"sam2": {}}

    def test_without_labels_it_is_refused(self, client):
        """OHIF takes an answer of status 200 for a training that runs."""
        for path in ("/train/", "/train/sam2"):
            answer = client.post(path, json={})
            assert answer.status_code == 422 and "submitted labels" in answer.json()["detail"]
        assert client.post("/train/other", json={}).status_code == 404

    def test_nothing_is_running(self, client):
        assert client.get("/train/?check_if_running=true").status_code == 404
        assert client.get("/train/").status_code == 404
        assert client.delete("/train/").status_code == 200


class TestOthers:
    def test_the_log(self, client, studies):
        log = studies.parent / "app" / "logs" / "app.log"
        Path(log.parent).mkdir(exist_ok=True)
        log.write_text("a line\n", encoding="utf-8")
        assert client.get("/logs/").text == "a line\n"

    def test_the_proxy(self, client):
        assert client.get("/proxy/dicom/studies").status_code == 200


OPEN = {
    "GET /logs/?lines=0": 422,
    "GET /model/sam2": 404,
    "POST /reload": 404,
    "POST /infer/wsi/sam2": 404,
}
"""What MONAI Label answers with 200; docs/server.md says why it is not so here."""


@pytest.mark.parametrize("request_", OPEN)
def test_what_stays_open_is_documented(client, request_):
    method, path = request_.split()
    assert client.request(method, path).status_code == OPEN[request_]
    documented = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    assert f"`{request_}`" in documented
