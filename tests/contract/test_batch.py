"""Batch inference as MONAI Label's clients ask for it."""

import threading
import time

import pytest

from slicecast.labelling.preannotation import PreAnnotator

WAIT_S = 120.0


def finished(client):
    end = time.monotonic() + WAIT_S
    while "end_ts" not in (state := client.get("/batch/infer").json()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return state


def test_nothing_has_run(client):
    assert client.get("/batch/infer/").status_code == 404
    assert client.get("/batch/infer?check_if_running=true").status_code == 404
    stopped = client.delete("/batch/infer/")
    assert stopped.status_code == 200 and stopped.json() is None


@pytest.mark.parametrize(
    ("model", "query", "params", "status"),
    [
        ("nothing", "", {}, 404),
        ("sam2_slice", "", {}, 422),
        ("sam2", "?images=some", {}, 422),
        ("sam2", "", {"label_tag": "final"}, 422),
        ("sam2", "", {"images": ["first", "nobody"]}, 404),
        ("sam2", "", {"images": "/etc/passwd"}, 422),
        ("sam2", "", {"max_batch_size": -1}, 422),
    ],
)
def test_what_cannot_be_asked_for(client, model, query, params, status):
    answer = client.post(f"/batch/infer/{model}{query}", json=params)
    assert answer.status_code == status and answer.json()["detail"]


def test_a_batch_is_stopped_goes_on_and_is_summed_up(client, monkeypatch):
    at_work, go_on, make = threading.Event(), threading.Event(), PreAnnotator.make

    def held(self, *given, **more):
        at_work.set()
        assert go_on.wait(WAIT_S)
        return make(self, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(PreAnnotator, "make", held)
        begun = client.post("/batch/infer/sam2?images=unlabeled", json={"device": "cuda", "max_workers": 2})
        assert begun.status_code == 200 and begun.json()["status"] == "RUNNING"
        assert at_work.wait(WAIT_S)
        assert client.post("/batch/infer/sam2").status_code == 429
        running = client.get("/batch/infer?check_if_running=true").json()
        assert running["progress"] == {"total": 2, "done": 0, "skipped": 0, "failed": 0, "left": 2}
        assert client.delete("/batch/infer").json()["status"] == "STOPPED"
        go_on.set()
        assert finished(client)["progress"]["left"] == 2

    one = client.post("/batch/infer/sam2?run_sync=true", json={"images": ["second"]}).json()
    assert one["status"] == "DONE" and one["results"] == {"second": "done"}
    rest = client.post("/batch/infer/sam2?images=all&run_sync=true").json()
    assert rest["progress"] == {"total": 3, "done": 1, "skipped": 2, "failed": 0, "left": 0}
    labels = client.get("/datastore/?output=all").json()["objects"]["third"]["labels"]
    assert labels["original"]["info"]["params"]["carried_from"] == "first"
    assert len(client.get("/batch/infer?all=true").json()) == 3
