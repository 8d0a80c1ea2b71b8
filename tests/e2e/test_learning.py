"""A campaign's loop with the real server and MONAI Label's client: next, annotate, submit, train, promote, next."""

import json
import shutil
import time
from pathlib import Path

import psutil
import pytest
from labelserver import copy_app
from learning import few, write_balls
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from slicecast.config import config_dir
from slicecast.demo.server_process import serving
from slicecast.training.finetune import FILE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # MONAI Label's client never closes its sockets
]

LIMIT_S = 600


def wait_until(done, what: str):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.5)
    raise TimeoutError(what)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Scans of balls, their truth, the app, and settings of a few steps."""
    write_balls(tmp_path, 4)
    copy_app(tmp_path / "app")
    shutil.copytree(config_dir(), tmp_path / "configs")
    (tmp_path / "configs" / FILE).write_text(json.dumps(few(loop={"steps": 30})), encoding="utf-8")
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path / "configs"))
    return tmp_path


def annotate(client: MONAILabelClient, truth: Path) -> str:
    """Take the next image, segment it, and submit its true label."""
    image = client.next_sample("random", {})["id"]
    file, _ = client.infer("sam2", image, {"ball": [[12, 10, 8]], "result_extension": ".nii.gz"})
    Path(file).unlink()
    info = {"label_info": [{"name": "ball", "idx": 1}]}
    client.save_label(image, str(truth / f"{image}.nii.gz"), tag="final", params=info)
    return image


def test_next_annotate_submit_train_promote_next(place):
    options = ["--labels", "ball"]
    with serving(place / "studies", app=place / "app", log=place / "server.log", options=options) as server:
        client = MONAILabelClient(server.url, tmpdir=str(place), client_id="ann")
        with pytest.raises(MONAILabelClientException, match="submitted labels"):
            client.train_start("sam2", {})
        done = [annotate(client, place / "truth") for _ in range(2)]
        assert len(set(done)) == 2
        assert client.info()["trainers"].keys() == {"sam2"}

        started = client.train_start("sam2", {})
        assert started["status"] == "RUNNING"
        with pytest.raises(MONAILabelClientException, match="already running"):
            client.train_start("sam2", {})
        wait_until(lambda: client.train_status()["progress"]["done"], "no step was done")
        assert client.train_status(check_if_running=True)
        file, _ = client.infer("sam2", done[0], {"ball": [[12, 10, 8]], "result_extension": ".nrrd"})
        Path(file).unlink()

        stopped = client.train_stop()
        assert stopped["status"] == "STOPPED" and not client.train_status(check_if_running=True)
        assert client.train_start("sam2", {})["id"] == started["id"]  # goes on with the same round

        wait_until(lambda: not client.train_status(check_if_running=True), "the round did not end")
        ended = client.train_status()
        assert ended["status"] == "DONE" and ended["version"] == 1, ended
        stats = client.info()["train_stats"]["sam2"]
        assert stats["epoch"] == stats["total_epochs"] == 90 and stats["serving"] == "sam2_nano@1"
        assert stats["best_metric"] > 0 and stats["train"]["loss"] > 0

        assert annotate(client, place / "truth") not in done
    index = json.loads((place / "studies" / "campaign" / "models" / "versions.json").read_text(encoding="utf-8"))
    assert index["deployed"] == {"sam2_nano": 1}
    assert sorted(index["versions"][0]["labels"]) == sorted(done)


def test_a_round_outlives_its_server_and_goes_on_with_the_next(place):
    """Killed together, with -9; the next server goes on with the round from its last checkpoint."""
    log = place / "server.log"
    (place / "configs" / FILE).write_text(
        json.dumps(few(loop={"steps": 60, "checkpoint_every": 5}, round={"after_labels": 2})), encoding="utf-8"
    )
    with serving(place / "studies", app=place / "app", log=log, options=["--labels", "ball"]) as server:
        client = MONAILabelClient(server.url, tmpdir=str(place), client_id="ann")
        for _ in range(2):
            annotate(client, place / "truth")
        rounds = place / "studies" / "campaign" / "models" / "rounds"
        wait_until(lambda: list(rounds.glob("0001/fold-1/checkpoint_*.pt")), "no round began by itself")
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            process.kill()
    assert not (rounds / "0001" / "result.json").exists()
    with serving(place / "studies", app=place / "app", log=log, options=["--labels", "ball"]) as server:
        client = MONAILabelClient(server.url, tmpdir=str(place), client_id="ann")
        wait_until(lambda: client.train_status()["status"] == "DONE", "the round did not go on")
        assert client.train_status()["id"] == "0001"
