"""Pre-annotations by the campaign's network: after a label, and as a batch."""

import shutil
import threading
import time

import pytest
from labelserver import serving

from slicecast.errors import NotFound
from slicecast.inference.segment import SegmentService
from slicecast.labelling.finetuning.automatic import AutomaticModels
from slicecast.labelling.finetuning.tuner import versions_beside
from slicecast.labelling.preannotation import BatchInference, BatchRequest, PreAnnotator
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast_lab.simulation.fake import FakePredictor

WAIT_S = 120.0


def opened(studies):
    store = StudiesDatastore(str(studies), labels=["ball"], extensions=["*.nii.gz"])
    models = AutomaticModels(versions_beside(studies))
    return store, PreAnnotator(SegmentService(predictor=FakePredictor()), store, ["ball"], models, device="cpu")


def made_by(store, name):
    return (store.get_label_info(name, "original") or {}).get("model")


def test_the_next_images_get_one_and_a_damaged_one_does_not_stop_the_others(learnt):
    shutil.copyfile(learnt / "new.nii.gz", learnt / "other.nii.gz")
    (learnt / "bad.nii.gz").write_bytes(b"no scan")
    store, annotator = opened(learnt)
    annotator.go_on()
    assert annotator.wait(WAIT_S)
    assert [made_by(store, name) for name in ("bad", "new", "other", "ball_0")] == [
        None,
        "automatic@1",
        "automatic@1",
        None,
    ]


def test_without_a_network_there_are_none(studies):
    shutil.copyfile(studies / "ball_1.nii.gz", studies / "new.nii.gz")
    store, annotator = opened(studies)
    annotator.go_on()
    assert annotator.wait(WAIT_S) and made_by(store, "new") is None
    with pytest.raises(NotFound, match="press Train"):
        BatchInference(annotator, store).run(BatchRequest())


def test_one_image_that_cannot_be_used_does_not_end_a_batch(learnt):
    (learnt / "bad.nii.gz").write_bytes(b"garbage")
    store, annotator = opened(learnt)
    done = BatchInference(annotator, store).run(BatchRequest("unlabeled"))
    assert done.status == "DONE" and done.results["new"] == "done"
    assert "not gzip" in done.results["bad"] and str(learnt) not in done.results["bad"]


def finished(client):
    end = time.monotonic() + WAIT_S
    while "end_ts" not in (state := client.get("/batch/infer").json()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return state


def test_a_batch_is_stopped_goes_on_and_is_summed_up(learnt, tmp_path, monkeypatch):
    shutil.copyfile(learnt / "new.nii.gz", learnt / "other.nii.gz")
    at_work, go_on, make = threading.Event(), threading.Event(), PreAnnotator.make

    def held(self, *given, **more):
        at_work.set()
        assert go_on.wait(WAIT_S)
        return make(self, *given, **more)

    conf = {"labels": "ball", "preannotate": "false", "device": "cpu"}
    with serving(tmp_path / "app", learnt, conf) as client:
        with monkeypatch.context() as patch:
            patch.setattr(PreAnnotator, "make", held)
            begun = client.post("/batch/infer/automatic?images=unlabeled", json={"device": "cuda", "max_workers": 2})
            assert begun.status_code == 200 and begun.json()["status"] == "RUNNING"
            assert at_work.wait(WAIT_S)
            assert client.post("/batch/infer/automatic").status_code == 429
            running = client.get("/batch/infer?check_if_running=true").json()
            assert running["progress"] == {"total": 2, "done": 0, "skipped": 0, "failed": 0, "left": 2}
            assert client.delete("/batch/infer").json()["status"] == "STOPPED"
            go_on.set()
            assert finished(client)["progress"]["left"] == 2

        one = client.post("/batch/infer/automatic?run_sync=true", json={"images": ["other"]}).json()
        assert one["status"] == "DONE" and one["results"] == {"other": "done"}
        rest = client.post("/batch/infer/automatic?images=all&run_sync=true").json()
        assert rest["progress"] == {"total": 5, "done": 1, "skipped": 4, "failed": 0, "left": 0}
        assert len(client.get("/batch/infer?all=true").json()) == 3
        chosen = {"images": ["new", "nobody"]}
        assert client.post("/batch/infer/automatic", json=chosen).status_code == 404
