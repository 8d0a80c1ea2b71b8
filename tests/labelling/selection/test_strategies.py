"""Which image is next, and why."""

import random

import pytest

from slicecast.labelling.selection.scoring import record_result
from slicecast.labelling.selection.strategies import LONG_AGO_S, last_shown, strategies

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


@pytest.mark.parametrize("name", ["random", "first", "confidence"])
def test_every_strategy_answers_with_a_reason(chosen, name):
    answer = chosen(name)
    assert answer["id"] in ("first", "second") and answer["reason"]


@pytest.mark.parametrize("name", ["random", "first", "confidence"])
def test_all_labelled(chosen, store, tmp_path, name):
    label_all(store, tmp_path)
    assert chosen(name) is None


@pytest.mark.parametrize("name", ["random", "first", "confidence"])
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


def test_least_confident_first(chosen, store):
    record_result(store, "first", model="sam2", confidence=0.8, when_s=NOW)
    assert chosen("confidence")["id"] == "first"
    record_result(store, "second", model="sam2", confidence=0.3, when_s=NOW)
    answer = chosen("confidence")
    assert (answer["id"], answer["confidence"]) == ("second", 0.3)
    assert answer["reason"] == "mean slice confidence 0.30, the lowest of 2 with a mask (2 without a label)"


def test_without_any_confidence_it_is_by_chance(chosen):
    assert chosen("confidence")["reason"].startswith("no image has a confidence yet: random among 2")
