"""Strategies that read ranked queues: a whole server with the bundled model, asked as Slicer and OHIF ask."""

import time

import numpy as np
import pytest
from builders import ball, scan
from labelserver import TestClient, copy_app, monailabel_settings

from slicecast.labelling.scoring.background import RankedQueue, VolumeChoice
from slicecast.labelling.selection.ranked import RankedStrategy
from slicecast.labelling.selection.strategies import strategies
from slicecast.server.app import create_app
from slicecast.volume import write_volume

WAIT_S = 120.0
NAMES = tuple(f"scan{n}" for n in range(4))


def studies(folder):
    """Write balls of several sizes and brightnesses: rolled copies of one would count as the same."""
    folder.mkdir()
    for n, name in enumerate(NAMES):
        volume = scan(ball(radius=3.0 + 0.8 * n), seed=n, noise=4.0 + 6.0 * (n % 3))
        write_volume(folder / f"{name}.nii.gz", volume)
    return folder


@pytest.fixture
def client(tmp_path):
    chosen = {
        "MONAI_LABEL_APP_DIR": str(copy_app(tmp_path / "app")),
        "MONAI_LABEL_STUDIES": str(studies(tmp_path / "studies")),
        "MONAI_LABEL_APP_CONF": {"strategy": "auto", "labels": "ball", "preannotate": "false"},
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
    }
    with monailabel_settings(**chosen), TestClient(create_app()) as client:
        yield client


def ask(client, strategy="random", **who):
    return client.post(f"/activelearning/{strategy}", json=who).json()


def until(client, said, **who):
    """Ask again until the reason says something, handing back what was offered before."""
    end = time.monotonic() + WAIT_S
    while said not in (sample := ask(client, **who))["reason"]:
        assert time.monotonic() < end, sample["reason"]
        time.sleep(0.2)
    return sample


def test_scores_appear_in_the_background_and_next_sample_uses_them(client, tmp_path):
    first = ask(client)  # as OHIF asks: the campaign's own strategy
    assert first["chosen_by"] == "auto" and "no order by auto is ready yet: random" in first["reason"]
    assert "0 labels so far" in until(client, "most typical")["reason"]
    truth, file = ball(radius=3.0), tmp_path / "label.nii.gz"
    write_volume(file, scan(truth).with_array(truth.astype(np.uint8)))
    with file.open("rb") as stream:
        saved = client.put("/datastore/label", params={"image": "scan0", "tag": "final"}, files={"label": stream})
    assert saved.status_code == 200
    sample = until(client, "3 of 3 without a label were looked at, 3 scored")
    assert "1 label so far" in sample["reason"]
    assert sample["id"] != "scan0"
    asked = ask(client, "auto", client_id="anna")  # as Slicer asks; the first is leased to OHIF
    assert asked["id"] != sample["id"]
    told = client.post("/scoring/ahead").json()
    assert set(told) == set(NAMES) - {"scan0"} and "cycle" in told[sample["id"]]


class Board:
    """A scorer that has a queue, or none."""

    def __init__(self, queue=None):
        self._queue = queue

    def queue(self, strategy):
        return self._queue


class Store:
    def get_unlabeled_images(self):
        return ["b", "c"]

    def get_image_info(self, name):
        return {}


def test_the_first_candidate_of_the_order_is_taken():
    order = tuple(VolumeChoice(name, 0.5, f"why {name}") for name in ("a", "c", "b"))
    chosen = RankedStrategy("auto", Board(RankedQueue(order, 3, 2)), otherwise=strategies()["random"])
    assert chosen({}, Store()) == {
        "id": "c",
        "score": 0.5,
        "reason": "why c (3 of 3 without a label were looked at, 2 scored)",
    }
    assert [c.case for c in chosen.rank(["b", "c", "new"], Store())] == ["c", "b", "new"]


def test_without_an_order_chance_decides():
    reason = RankedStrategy("auto", Board(), otherwise=strategies()["random"])({}, Store())["reason"]
    assert reason == "no order by auto is ready yet: random among 2 without a label"
