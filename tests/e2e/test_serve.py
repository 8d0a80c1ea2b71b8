"""Two annotators at a real server, through MONAI Label's own client."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from builders import phantom
from labelserver import write_studies
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from slicecast.demo.server_process import free_port, running_server

# MONAI Label's client never closes its sockets
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def connect(server, tmp_path):
    """Connect a client with a folder of its own, because clients write under the file's name."""

    def make(name: str) -> MONAILabelClient:
        folder = tmp_path / name
        folder.mkdir()
        return MONAILabelClient(server.url, tmpdir=str(folder), client_id=name)

    return make


def segment(client: MONAILabelClient, image: str, points: list[list[int]]) -> np.ndarray:
    return sitk.GetArrayFromImage(mask_image(client, image, points))


def mask_image(client: MONAILabelClient, image: str, points: list[list[int]]) -> sitk.Image:
    file, _ = client.infer("sam2", image, {"ball": points, "result_extension": ".nrrd"})
    mask = sitk.ReadImage(file)
    Path(file).unlink()
    return mask


def centre(number: int) -> list[int]:
    """The middle of the ball in the n-th study, whose phantom is shifted along k."""
    k, j, i = np.argwhere(np.roll(phantom().truth, number, axis=0)).mean(axis=0).round().astype(int).tolist()
    return [i, j, k]


def test_an_annotators_round(connect, tmp_path):
    client = connect("anna")
    sample = client.next_sample("first", {})
    assert sample["id"] == "first" and sample["reason"]
    assert "path" not in sample
    mask = mask_image(client, "first", [centre(0)])
    assert (sitk.GetArrayViewFromImage(mask) == 1).any()
    label = tmp_path / "label.nii.gz"
    sitk.WriteImage(mask, str(label))
    client.save_label("first", str(label), params={"label_info": [{"name": "ball", "idx": 1}]})
    assert client.info()["datastore"]["completed"] == 1
    assert client.next_sample("first", {})["id"] == "second"
    assert Path(client.download_label("first", "final")).read_bytes() == label.read_bytes()


def test_two_annotators_on_two_images_never_mix(connect):
    """Each repeats two different requests while the other does the same; every answer equals the one made alone."""
    alone = connect("alone")
    requests = {
        ("anna", "second"): [[centre(1)], [centre(1), [2, 2, 2]]],
        ("ben", "third"): [[centre(2)], [centre(2), [21, 17, 13]]],
    }
    expected = {who: [segment(alone, who[1], points) for points in turns] for who, turns in requests.items()}
    wrong: list[str] = []

    def work(who: tuple[str, str]) -> None:
        client = connect(who[0])
        for turn in range(4):
            mask = segment(client, who[1], requests[who][turn % 2])
            if not np.array_equal(mask, expected[who][turn % 2]):
                wrong.append(f"{who} in turn {turn}")

    threads = [threading.Thread(target=work, args=(who,)) for who in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_refusal_reaches_the_annotator(connect):
    with pytest.raises(MONAILabelClientException) as caught:
        connect("ben").infer("sam2", "first", {"ball": [[99, 99, 99]]})
    assert "Status: 422" in caught.value.msg and "lies outside the volume of 24 x 20 x 16" in caught.value.msg


def test_next_sample_starts_no_process(connect, server):
    client = connect("cleo")
    for _ in range(5):
        client.next_sample("random", {})
    assert psutil.Process(server.pid).children(recursive=True) == []


def test_it_writes_only_into_its_folders(server, place):
    assert sorted(entry.name for entry in place.iterdir()) == ["app", "server.log", "studies"]
    written = {entry.name for entry in (place / "studies").iterdir()} - {
        "first.nii.gz",
        "second.nii.gz",
        "third.nii.gz",
    }
    assert written <= {"labels", "datastore_v2.json", ".lock", ".index.lock", "campaign", "segmentations", ".slicecast"}


def test_no_result_is_left_behind(connect):
    """The client keeps the name that the mask's file had on the server."""
    file, _ = connect("dora").infer("sam2", "second", {"ball": [centre(1)]})
    assert not (Path(tempfile.gettempdir()) / Path(file).name).exists()


def test_the_app_runs_under_monailabels_own_server(place, tmp_path):
    studies = write_studies(tmp_path / "studies")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--app", str(place / "app"), "--studies", str(studies), "--conf", "labels", "ball,other"]
    with running_server(command, url=url, log=tmp_path / "log") as server:
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="anna")
        assert client.next_sample("random", {})["id"] in ("first", "second")
        assert segment(client, "first", [centre(0)]).any()
        for params, status in (({"image": "/etc/passwd"}, 422), ({"ball": [[99, 0, 0]]}, 422), ({}, 422)):
            with pytest.raises(MONAILabelClientException) as refused:
                client.infer("sam2", "first", params)
            assert f"Status: {status}" in refused.value.msg
        with pytest.raises(MONAILabelClientException) as caught:
            client.infer("sam2", "unknown", {})
        assert "Status: 404" in caught.value.msg
        assert client.info()["datastore"]["total"] == 2
        second = subprocess.run(
            [word.replace(str(port), str(free_port())) for word in command], capture_output=True, text=True, timeout=300
        )
        assert second.returncode and "Another server runs on" in second.stdout + second.stderr


@pytest.mark.slow
def test_labels_survive_a_kill(place, tmp_path):
    """A server that is killed while labels are being saved comes back with every label that it had acknowledged."""
    studies = write_studies(tmp_path / "studies")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "slicecast.cli.main", "serve", "--studies", str(studies), "--port", str(port)]
    command += ["--app", str(place / "app")]
    label = tmp_path / "label.nii.gz"
    scan = sitk.ReadImage(str(studies / "first.nii.gz"))
    sitk.WriteImage(sitk.Cast(scan > np.percentile(sitk.GetArrayViewFromImage(scan), 95), sitk.sitkUInt8), str(label))
    with running_server(command, url=url, log=tmp_path / "log") as server:
        client = MONAILabelClient(url, tmpdir=str(tmp_path), client_id="anna")
        client.save_label("first", str(label), params={"label_info": [{"name": "ball", "idx": 1}]})
        os.kill(server.pid, signal.SIGKILL)
    with running_server(command, url=url, log=tmp_path / "log"):
        with urllib.request.urlopen(f"{url}/datastore/?output=all") as answer:
            objects = json.load(answer)["objects"]
        assert "final" in objects["first"]["labels"] and "second" in objects
