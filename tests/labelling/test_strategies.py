"""Which image is next, and why."""

import random
import time

import numpy as np
import pytest
from builders import ball, scan
from labelserver import serving

from slicecast.labelling.strategies import (
    LONG_AGO_S,
    Candidates,
    RankedQueue,
    RankedStrategy,
    VolumeChoice,
    last_shown,
    strategies,
)
from slicecast.volume import write_volume

NOW = 1_700_000_000.0


@pytest.fixture
def chosen(store):
    known = strategies(rng=random.Random(0), clock=lambda: NOW)
    return lambda name: known[name]({"strategy": name}, store)


def label_all(store, tmp_path):
    label = tmp_path / "label.nii.gz"
    label.write_bytes(b"x")
    for image in store.list_images():
        store.save_label(image, str(label), "final", {})


@pytest.mark.parametrize("name", ["random", "first"])
def test_every_strategy_answers_with_a_reason(chosen, name):
    answer = chosen(name)
    assert answer["id"] in ("first", "second") and answer["reason"]


@pytest.mark.parametrize("name", ["random", "first"])
def test_all_labelled(chosen, store, tmp_path, name):
    label_all(store, tmp_path)
    assert chosen(name) is None


@pytest.mark.parametrize("name", ["random", "first"])
def test_strategies_describe_themselves(name):
    assert strategies()[name].info()["description"]


def test_first_is_the_first_by_name(chosen):
    assert chosen("first")["id"] == "first"


def test_random_answers_when_all_were_shown_this_very_second(chosen, store):
    for image in store.list_images():
        store.update_image_info(image, {"strategy": {"random": {"ts": int(NOW)}}})
    assert chosen("random")["weight"] == 1.0


def test_random_prefers_what_was_not_shown_lately(store):
    store.update_image_info("first", {"strategy": {"confidence": {"ts": int(NOW) - 2}}})
    pick = strategies(rng=random.Random(1), clock=lambda: NOW)["random"]
    answers = [pick({"strategy": "random"}, store) for _ in range(200)]
    assert {answer["id"] for answer in answers} == {"second"}
    assert answers[0]["weight"] == LONG_AGO_S


def test_last_shown_by_any_strategy():
    assert last_shown({}) == 0
    assert last_shown({"strategy": {"random": {"ts": 5}, "first": {"ts": 9}, "odd": {}}}) == 9


def test_only_the_candidates(store):
    view = Candidates(store, ["second"])
    assert view.get_unlabeled_images() == ["second"]
    assert view.get_image_uri("first") == store.get_image_uri("first")


def test_what_is_known_is_what_the_store_knows(store):
    store.update_image_info("first", {"strategy": {"random": {"ts": 5}}})
    view = Candidates(store, ["first"])
    assert view.get_image_info("first")["strategy"] == store.get_image_info("first")["strategy"]


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
    conf = {"strategy": "coverage", "labels": "ball", "preannotate": "false"}
    with serving(tmp_path / "app", studies(tmp_path / "studies"), conf, raise_server_exceptions=True) as client:
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


def test_an_order_appears_in_the_background_and_next_sample_uses_it(client, tmp_path):
    first = ask(client)  # as OHIF asks: the campaign's own strategy
    assert first["chosen_by"] == "coverage" and "no order by coverage is ready yet: random" in first["reason"]
    until(client, "most typical")
    truth, file = ball(radius=3.0), tmp_path / "label.nii.gz"
    write_volume(file, scan(truth).with_array(truth.astype(np.uint8)))
    with file.open("rb") as stream:
        saved = client.put("/datastore/label", params={"image": "scan0", "tag": "final"}, files={"label": stream})
    assert saved.status_code == 200
    sample = until(client, "3 of 3 without a label were looked at")
    assert sample["id"] != "scan0"
    asked = ask(client, "coverage", client_id="anna")  # as Slicer asks; the first is leased to OHIF
    assert asked["id"] != sample["id"]


class Board:
    """A ranker that has a queue, or none."""

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
    chosen = RankedStrategy("coverage", Board(RankedQueue(order, 3)), otherwise=strategies()["random"])
    assert chosen({}, Store()) == {
        "id": "c",
        "score": 0.5,
        "reason": "why c (3 of 3 without a label were looked at)",
    }
    assert [c.case for c in chosen.rank(["b", "c", "new"], Store())] == ["c", "b", "new"]


def test_without_an_order_chance_decides():
    reason = RankedStrategy("coverage", Board(), otherwise=strategies()["random"])({}, Store())["reason"]
    assert reason == "no order by coverage is ready yet: random among 2 without a label"
