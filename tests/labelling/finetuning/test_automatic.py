"""From labels to a network to pre-annotations, by the command."""

import os
import shutil
import signal
import sys
from dataclasses import replace

import pytest
import SimpleITK as sitk
from labelserver import read_mask, serving
from learning import run

from slicecast.campaign.events import Kind
from slicecast.config import config_dir
from slicecast.files import file_sha256
from slicecast.inference.segment import SegmentService
from slicecast.labelling.finetuning.automatic import (
    NOTHING,
    AutomaticModels,
    common_structures,
    learn_automatic,
    refusal,
)
from slicecast.labelling.finetuning.rounds import LearntCase
from slicecast.labelling.finetuning.tuner import campaign_of, folder_tuner, versions_beside
from slicecast.labelling.preannotation import BatchInference, BatchRequest, FarGuess, PreAnnotator, preannotation
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.training.finetune import finetune_settings
from slicecast.volume import read_volume, write_volume
from slicecast.volume.metrics import dice
from slicecast_lab.simulation.fake import FakePredictor


class DyingOnce(FarGuess):
    """A worker that is killed at its first image."""

    def __call__(self, path):
        mark = self.folder / "died"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(path)


def kept(mask, folder):
    (folder / "here.nii.gz").write_bytes(mask)
    return folder / "here.nii.gz"


def open_store(studies):
    return StudiesDatastore(str(studies), labels=["ball"], extensions=["*.nii.gz"])


def case(name, *structures):
    values = {structure: n for n, structure in enumerate(structures, 1)}
    return LearntCase(id=name, image="", label="", sha256=name, values=values)


def test_a_learnt_network_answers_without_prompts(learnt):
    store, models = open_store(learnt), AutomaticModels(versions_beside(learnt))
    annotator = PreAnnotator(SegmentService(predictor=FakePredictor()), store, ["ball"], models)
    study = SegmentService(predictor=FakePredictor()).studies.open(learnt / "new.nii.gz")
    annotator.automatic("new")
    answer = preannotation(store, "new", geometry=study.reorientation.source, labels=["ball"])
    truth = read_volume(store.get_label_uri("ball_1", "final"))
    assert dice(read_volume(answer["file"]).array == 1, truth.array == 1) > 0.7
    assert answer["params"]["label_names"] == {"ball": 1}
    assert store.get_label_info("new", "original")["model"] == "automatic@1"


def test_clients_list_it_and_get_a_draft(learnt, tmp_path):
    with serving(tmp_path / "app", learnt, {"labels": "ball", "preannotate": "false"}) as client:
        told = client.get("/info/").json()["models"]["automatic"]
        assert told["type"] == "segmentation" and told["labels"] == ["ball"]
        reply = client.post("/infer/automatic?image=new&output=json")
        assert reply.status_code == 200, reply.text
        assert reply.json()["objects"]["ball"]["voxels"] > 0
        mask = client.post(
            "/infer/automatic?image=new&output=image", data={"params": '{"result_extension": ".nrrd"}'}
        ).content
        truth = open_store(learnt).get_label_uri("ball_1", "final")
        assert dice(sitk.GetArrayFromImage(read_mask(mask, tmp_path)) == 1, read_volume(truth).array == 1) > 0.7


def test_batch_inference_needs_no_label_where_there_is_one(learnt):
    store, models = open_store(learnt), AutomaticModels(versions_beside(learnt))
    annotator = PreAnnotator(SegmentService(predictor=FakePredictor()), store, ["ball"], models)
    for name in store.get_labeled_images():
        store.remove_label(name, "final")
    assert BatchInference(annotator, store).run(BatchRequest(["new"])).results == {"new": "done"}
    assert store.get_label_info("new", "original")["model"] == "automatic@1"


@pytest.mark.slow
def test_a_cluster_answers_a_batch_as_this_process_does(learnt, monkeypatch):
    """Also where a worker dies; the answer to an image that cannot be read is a sentence."""
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the workers, which import this module
    shutil.copyfile(learnt / "ball_0.nii.gz", learnt / "more.nii.gz")
    (learnt / "bad.nii.gz").write_bytes(b"no scan")
    store, models = open_store(learnt), AutomaticModels(versions_beside(learnt))
    annotator = PreAnnotator(SegmentService(predictor=FakePredictor()), store, ["ball"], models)
    here = annotator._guess(learnt / "new.nii.gz").mask
    engine = config_dir() / "engine.yaml"
    engine.write_text(engine.read_text(encoding="utf-8").replace('ray: ""', "ray: auto"), encoding="utf-8")
    far = DyingOnce(models.versions.folder, ("ball",), "cpu")
    done = BatchInference(annotator, store, far).run(BatchRequest(["ball_0", "new", "more", "bad"]))
    assert done.status == "DONE" and (done.results["new"], done.results["more"]) == ("done", "done")
    assert done.results["ball_0"].startswith("skipped") and "bad.nii.gz" in done.results["bad"]
    assert (models.versions.folder / "died").is_file()
    assert (read_volume(store.get_label_uri("new", "original")).array == read_volume(kept(here, learnt)).array).all()


def test_before_there_is_one_the_request_is_refused_with_the_remedy(studies, tmp_path):
    with serving(tmp_path / "app", studies, {"labels": "ball"}) as client:
        assert "automatic" not in client.get("/info/").json()["models"]
        reply = client.post("/infer/automatic?image=ball_0")
        assert reply.status_code == 404 and "press Train" in reply.json()["detail"]


def test_what_a_person_made_is_never_replaced(learnt):
    store, models = open_store(learnt), AutomaticModels(versions_beside(learnt))
    annotator = PreAnnotator(SegmentService(predictor=FakePredictor()), store, ["ball"], models)
    mask = store.get_label_uri("ball_1", "final")
    store.save_label("new", mask, "original", {"model": "a person's", "params": {}})
    assert not annotator.is_open("new")
    assert not annotator.is_open("ball_1")
    store.save_label("new", mask, "original", {"model": "automatic@0", "params": {}})
    assert annotator.is_open("new")


def test_a_network_is_recorded_with_its_hash_and_taken_back(learnt):
    versions = versions_beside(learnt)
    models, version = AutomaticModels(versions), versions.deployed(NOTHING)
    assert file_sha256(versions.folder / version.file) == version.sha256
    listed = run("models", "versions", "--studies", learnt).output
    assert "automatic@1" in listed and version.sha256[:16] in listed

    rollback = ["models", "rollback", "--studies", learnt, "--model", "automatic"]
    done = run(*rollback)
    assert "Nothing is used from now on, in place of automatic@1" in done.output
    assert models.latest() is None and (versions.folder / version.file).is_file()
    assert run(*rollback).exit_code == 1  # there is nothing before it
    assert run(*rollback, 1).exit_code == 0 and models.latest().name == "automatic@1"

    campaign = campaign_of(versions)
    told = [event for event in campaign.store.read() if event.case == ""]
    assert [event.kind for event in told] == [Kind.PROMOTED, Kind.ROLLED_BACK, Kind.ROLLED_BACK]
    assert [event.data["sha256"] for event in told] == [version.sha256, "", version.sha256]
    assert told[0].data["labels"].keys() == {"ball_0", "ball_1", "ball_2"}
    assert campaign.verify() is None
    campaign.store.close()


def test_a_network_that_finds_too_little_is_not_used(studies, configs):
    configs(automatic={"least_dice": 1.01})
    done = run("train", "automatic", "--studies", studies, "--labels", "ball")
    assert done.exit_code == 0, done.output
    assert "Not used: the mean Dice" in done.output
    assert AutomaticModels(versions_beside(studies)).latest() is None


def steps_trained(studies):
    """Train on the labels of a folder; return how many steps that took."""
    steps = []
    with folder_tuner(studies, model=None, labels=["ball"], device="cpu") as tuner:
        plan, files = tuner.plan()
    models = AutomaticModels(versions_beside(studies))
    learn_automatic(plan, files, models, device="cpu", watch=lambda step, *_: steps.append(step))
    return len(steps)


def test_only_the_same_training_goes_on(studies, configs):
    """Not after changed settings or scans: its networks may have learnt what they would be judged on."""
    few = {"channels": 4, "least_dice": 1.01, "loop": {"steps": 2, "warmup_steps": 1}}
    configs(automatic=few)
    assert steps_trained(studies) == 2 * 2  # steps of two folds
    configs(automatic={**few, "least_dice": 1.02})  # decides nothing that is learnt
    assert steps_trained(studies) == 0
    configs(automatic=few, round={"folds": 3})
    assert steps_trained(studies) == 3 * 2
    configs(automatic={**few, "turn_rad": 0.5})
    assert steps_trained(studies) == 2 * 2
    scan = read_volume(studies / "ball_1.nii.gz")
    write_volume(studies / "ball_1.nii.gz", scan.with_array(scan.array[:, :, ::-1]))
    assert steps_trained(studies) == 2 * 2


def test_a_network_that_is_worse_than_the_one_before_is_not_used(learnt):
    before = AutomaticModels(versions_beside(learnt)).latest()
    worse = {name: {"ball": value["ball"] - 0.05} for name, value in before.held_out.items()}
    strict = finetune_settings()
    assert "the one before" in refusal(worse, before, replace(strict, round=replace(strict.round, margin=0.01)))
    assert refusal(dict(before.held_out), before, strict) == ""


def test_a_structure_that_few_labels_hold_is_not_learnt_as_absent():
    cases = [
        case("a", "liver"),
        case("b", "liver", "spleen"),
        case("c", "liver", "stone"),
        case("d", "spleen", "liver"),
    ]
    assert common_structures(cases) == ("liver", "spleen")


def test_labels_without_a_common_structure_are_refused_with_a_sentence(studies, configs, tmp_path):
    configs(round={"least_labels": 4})
    done = run("train", "automatic", "--studies", studies, "--labels", "ball")
    assert done.exit_code == 2 and "needs 4 labels" in done.output
    with folder_tuner(studies, model=None, labels=["ball"], device="cpu") as tuner:
        assert len(tuner.plan()[0].cases) == 3
