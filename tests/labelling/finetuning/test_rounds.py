"""Rounds on balls with the bundled model: few steps, real weights, real gate."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import SimpleITK as sitk
import torch
from builders import ball
from labelserver import read_mask, serving
from learning import run

from slicecast.campaign.events import Kind
from slicecast.campaign.state import ReadingTask
from slicecast.config import config_dir
from slicecast.errors import Cancelled, InputError, TooMany
from slicecast.inference.segment import SegmentService
from slicecast.inference.settings import EngineSettings
from slicecast.labelling.finetuning.automatic import AutomaticModels
from slicecast.labelling.finetuning.rounds import Rounds
from slicecast.labelling.finetuning.training import HELD_OUT, _store_objects, _stored_objects, carry_out
from slicecast.labelling.finetuning.tuner import campaign_of, folder_tuner, versions_beside
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2_build import load_sam2
from slicecast.volume import read_volume, write_mask

BASE = bundled_spec()


def begin(studies):
    with folder_tuner(studies, model=None, labels=["ball"], device="cpu") as tuner:
        return tuner.begin()


def test_a_round_is_planned_from_what_was_submitted(studies):
    plan = begin(studies).plan()
    assert [case.id for case in plan.cases] == ["ball_0", "ball_1", "ball_2"]
    assert all(case.values == {"ball": 1} and case.slices is None for case in plan.cases)
    assert [[case.id for case in fold] for fold in plan.folds] == [["ball_0", "ball_2"], ["ball_1"]]
    assert begin(studies).name == "0001"  # the same labels: the same round goes on


def test_too_few_labels_are_said(studies, configs):
    configs(round={"least_labels": 4})
    with pytest.raises(InputError, match="at least 4 submitted labels; there are 3"):
        begin(studies)


def test_a_volumetric_model_is_refused_before_anything_is_begun(studies):
    done = run("train", "finetune", "--studies", studies, "--model", "sam_med3d")
    assert done.exit_code != 0 and "only models that see slices are fine-tuned" in done.output
    assert Rounds(versions_beside(studies)).all() == []


def test_a_label_that_changes_begins_another_round(studies, tmp_path):
    begin(studies)
    only = tmp_path / "only"
    only.mkdir()
    (only / "ball_0.nii.gz").write_bytes((tmp_path / "truth" / "ball_1.nii.gz").read_bytes())
    assert run("labels", "import", only, "--studies", studies, "--map", "1=ball", "--replace").exit_code == 0
    assert begin(studies).name == "0002"


def test_new_weights_are_published_recorded_and_taken_back(tuned):
    versions = versions_beside(tuned)
    plain = EngineSettings(openvino=False, idle_encode=False)  # nothing is compiled for each version
    service = SegmentService(device="cpu", versions=versions, settings=plain)
    before = SegmentService(device="cpu", settings=plain).predictor.fingerprint
    version = versions.deployed(BASE)
    assert version.labels.keys() == {"ball_0", "ball_1", "ball_2"}
    assert version.verdict[HELD_OUT].keys() == {"ball_0/ball", "ball_1/ball", "ball_2/ball"}
    assert service.model_name == "sam2_nano@1" and service.predictor.fingerprint != before

    done = run("models", "rollback", "--studies", tuned)
    assert done.exit_code == 0 and "sam2_nano is used" in done.output
    assert service.predictor.fingerprint == before
    assert service.predictor_named("sam2_nano@1").fingerprint != before  # an open session finishes on its weights

    campaign = campaign_of(versions)
    told = [event for event in campaign.store.read() if event.case == ""]
    assert [event.kind for event in told] == [Kind.PROMOTED, Kind.ROLLED_BACK]
    assert told[0].data["verdict"].keys() == version.verdict.keys() - {HELD_OUT}
    assert told[0].data["sha256"] == version.sha256 and told[0].data["before"] == "sam2_nano"
    assert told[1].data["sha256"] == BASE.sha256
    assert campaign.verify() is None and "" not in campaign.state().cases
    campaign.store.close()


def test_a_worse_model_is_refused(studies, configs):
    """A rate that ruins the network within three steps."""
    configs(loop={"learning_rate": 0.02, "warmup_steps": 0}, round={"margin": 0.01, "least_gain": 0.0})
    done = run("train", "finetune", "--studies", studies, "--device", "cpu")
    assert done.exit_code == 0 and "The weights stay as they are" in done.output, done.output
    assert versions_beside(studies).all() == ()
    round = Rounds(versions_beside(studies)).latest()
    assert round.result()["verdict"]["passed"] is False
    assert not (round.folder / "all").exists()  # nothing is trained on all labels for a recipe that failed


def test_what_the_deployed_weights_have_learnt_does_not_count_for_them(tuned, configs):
    """Their own folds' scores stand for them: on labels that they have learnt they would look too good.

    The second round does not go on from the first one's weights either: at a rate of 0 it ends with the model's own.
    """
    first = versions_beside(tuned).deployed(BASE)
    configs(loop={"learning_rate": 0.0})
    done = run("train", "finetune", "--studies", tuned, "--device", "cpu")
    assert done.exit_code == 0, done.output
    latest = Rounds(versions_beside(tuned)).latest()
    assert json.loads((latest.folder / "deployed" / "scores.json").read_text()) == {}
    own = [scores["click"] for scores in first.verdict[HELD_OUT].values()]
    assert latest.result()["verdict"]["deployed"]["click"] == pytest.approx(sum(own) / len(own), abs=1e-4)

    versions = versions_beside(tuned)
    own, tuned_once, now = (
        load_sam2(spec).state_dict() for spec in (BASE, versions.spec(first, BASE), versions.serving(BASE))
    )
    assert versions.deployed(BASE).number == 2
    assert all(torch.equal(now[name], tensor) for name, tensor in own.items())
    assert any(not torch.equal(tuned_once[name], tensor) for name, tensor in own.items())


def test_only_slices_that_somebody_saw_to_are_learnt(studies, configs, tmp_path):
    """With `slices: touched`: clicked slices and a line's ends, and those changed before the label was submitted."""
    configs(round={"slices": "touched"})
    shutil.copyfile(studies / "ball_1.nii.gz", studies / "new.nii.gz")
    wanted = json.dumps(
        {"ball": [[12, 10, 8]], "lines": {"ball": [[[12, 10, 6], [12, 10, 10]]]}, "result_extension": ".nrrd"}
    )
    with serving(tmp_path / "app", studies, {"labels": "ball", "preannotate": "false"}) as client:
        answer = client.post("/infer/sam2?image=new&output=image", data={"params": wanted})
        draft = sitk.GetArrayFromImage(read_mask(answer.content, tmp_path))
        draft[2, 3, 4] = draft[13, 3, 4] = 1
        final = write_mask(tmp_path / "final.nii.gz", draft, read_volume(studies / "new.nii.gz").geometry)
        about = json.dumps({"label_info": [{"name": "ball", "idx": 1}]})
        saved = client.put(
            "/datastore/label?image=new&tag=final", files={"label": final.read_bytes()}, data={"params": about}
        )
        assert saved.status_code == 200, saved.text
    slices = {case.id: case.slices for case in begin(studies).plan().cases}
    assert slices == {"ball_0": None, "ball_1": None, "ball_2": None, "new": [2, 6, 8, 10, 13]}  # imported: all of them


def test_labels_that_a_round_has_seen_are_not_new(studies, tmp_path):
    """Neither those that it could not learn, nor cases that were only read a second time since."""
    empty = write_mask(tmp_path / "empty.nii.gz", ball() & False, read_volume(studies / "ball_1.nii.gz").geometry)
    shutil.copyfile(studies / "ball_1.nii.gz", studies / "new.nii.gz")
    with folder_tuner(studies, model=None, labels=["ball"], device="cpu") as tuner:
        service = tuner._campaign
        service.save("new", empty, tag="final", info={})
        assert tuner._new_labels() == 4
        assert list(tuner.begin().plan().left_out) == ["new"] and tuner._new_labels() == 0
        second = {"tag": "second-bob", "sha256": "of the second reading"}
        service.campaign.submitted("ball_0", "bob", second, task=ReadingTask.SECOND)
        assert tuner._new_labels() == 0
        shutil.copyfile(studies / "labels" / "final" / "ball_0.nii.gz", tmp_path / "again.nii.gz")
        service.save("new", tmp_path / "again.nii.gz", tag="final", info={})
        assert tuner._new_labels() == 1


def test_two_scans_with_the_same_label_are_learnt_apart(studies, tmp_path):
    """As of a patient with several sequences; else a fold learnt the scan that it is judged on."""
    for name in ("t1", "t2"):
        shutil.copyfile(studies / "ball_1.nii.gz", studies / f"{name}.nii.gz")
        (tmp_path / "same").mkdir(exist_ok=True)
        shutil.copyfile(tmp_path / "truth" / "ball_1.nii.gz", tmp_path / "same" / f"{name}.nii.gz")
    assert run("labels", "import", tmp_path / "same", "--studies", studies, "--map", "1=ball").exit_code == 0
    round = begin(studies)
    cases = round.plan().cases
    assert len({case.sha256 for case in cases}) < len(cases)
    _store_objects(round, round.plan())
    stored = [thing.case for case in cases for thing in _stored_objects(round, case)]
    assert stored == [case.id for case in cases]


def test_a_round_that_was_stopped_stays_stopped_until_it_is_begun_again(studies, configs):
    """Also at the server's next start, which went on with what comes after the weights."""
    configs(round={"automatic": True})
    with folder_tuner(studies, model=None, labels=["ball"], device="cpu") as tuner:
        round = tuner.begin()
        round.halt("STOPPED", "It was stopped.")
        tuner.resume()
        assert tuner.running() is None and not round.is_left()
    done = run("train", "go-on", round.folder, "--device", "cpu")
    assert done.exit_code == 1 and "It was stopped." in done.output and round.automatic() is None
    assert begin(studies).name == round.name and round.is_left()


def test_a_round_of_a_command_is_stopped_too(studies, configs):
    """The server that is told to stop it cannot know the command's process."""
    configs(loop={"steps": 10_000, "checkpoint_every": 1})
    round, ended = begin(studies), []

    def work():
        with pytest.raises(Cancelled):
            carry_out(round, versions_beside(studies), BASE, device="cpu")
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    while not list(round.folder.glob("fold-1/checkpoint_*.pt")):
        time.sleep(0.1)
    with folder_tuner(studies, model=None, labels=["ball"], device="cpu") as tuner:
        assert tuner.stop() == round
    thread.join()
    assert ended and round.result()["status"] == "STOPPED" and versions_beside(studies).all() == ()


def test_two_processes_do_not_work_on_one_round(studies):
    round = begin(studies)
    with round.alone():
        assert round.is_running()
        with pytest.raises(TooMany, match="is already running"):
            begin(studies)
        assert run("train", "go-on", round.folder, "--device", "cpu").exit_code == 1
        assert round.result() is None  # the one who works on it goes on
    assert not round.is_running()


@pytest.mark.slow
def test_a_killed_round_goes_on_where_it_was(studies, configs):
    configs(loop={"steps": 30, "checkpoint_every": 4})  # the loss is noted every 25 steps
    round = begin(studies)
    command = [sys.executable, "-m", "slicecast.cli.main", "train", "go-on", str(round.folder), "--device", "cpu"]
    with subprocess.Popen(command, env={**os.environ}) as process:
        while not list(round.folder.glob("fold-1/checkpoint_*.pt")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    left = max(int(file.stem.rpartition("_")[2]) for file in round.folder.glob("fold-1/checkpoint_*.pt"))
    assert 4 <= left < 30 and round.result() is None and not round.is_running()
    result = carry_out(round, versions_beside(studies), BASE, device="cpu")
    assert result["status"] == "DONE" and round.steps()[0] > 0
    steps = [json.loads(line)["step"] for line in (round.folder / "fold-1" / "history.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.slow
def test_a_round_teaches_the_network_without_prompts_too(studies, configs):
    """Also where the weights of the model are refused; and what was killed between the two goes on."""
    configs(round={"automatic": True, "margin": 0.01, "least_gain": 1.0})
    done = run("train", "finetune", "--studies", studies, "--device", "cpu")
    assert done.exit_code == 0 and "Without prompts: Network 1 segments" in done.output, done.output
    round, models = Rounds(versions_beside(studies)).latest(), AutomaticModels(versions_beside(studies))
    assert models.latest().version.labels.keys() == {"ball_0", "ball_1", "ball_2"}
    assert not round.is_left() and round.steps()[0] >= 180  # three trainings of 60
    (round.folder / "automatic.json").unlink()
    assert round.is_left()
    result = round.result()
    assert carry_out(round, versions_beside(studies), BASE, device="cpu") == result
    assert not round.is_left() and not (round.folder / "automatic").exists()


@pytest.mark.slow
def test_a_round_on_a_ray_cluster_gives_the_same_verdict(tuned, configs):
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    first = Rounds(versions_beside(tuned)).latest().result()
    shutil.rmtree(versions_beside(tuned).folder)
    engine = config_dir() / "engine.yaml"
    engine.write_text(engine.read_text(encoding="utf-8").replace('ray: ""', "ray: auto"), encoding="utf-8")
    done = run("train", "finetune", "--studies", tuned, "--device", "cpu")
    assert done.exit_code == 0, done.output
    again = Rounds(versions_beside(tuned)).latest().result()
    assert again["verdict"]["new"] == first["verdict"]["new"]
