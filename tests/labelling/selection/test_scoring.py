"""Scores come from results that are there already."""

import threading

import pytest

from slicecast.labelling.selection.scoring import SCORE, ConfidenceScoring, ScoringQueue, confidence_of, record_result


@pytest.mark.parametrize(
    ("image", "original", "score"),
    [
        ({}, {}, None),
        ({"last_result": {"confidence": 0.4}}, {"params": {"mean_confidence": 0.9}}, 0.4),
        ({"last_result": {"confidence": None}}, {"params": {"mean_confidence": 0.9}}, 0.9),
        ({}, None, None),
        ({"last_result": None}, {"params": None}, None),
    ],
)
def test_confidence_of(image, original, score):
    assert confidence_of(image, original) == score


def test_scores_are_written_once(store, tmp_path):
    label = tmp_path / "pre.nii.gz"
    label.write_bytes(b"x")
    record_result(store, "first", model="sam2", confidence=0.4, when_s=1.0)
    store.save_label("second", str(label), "original", {"params": {"mean_confidence": 0.9}})
    scoring = ConfidenceScoring()
    assert scoring({}, store) == {"first": 0.4, "second": 0.9}
    assert store.get_image_info("second")[SCORE] == 0.9
    before = (tmp_path / "studies" / "datastore_v2.json").stat().st_mtime_ns
    scoring({}, store)
    assert (tmp_path / "studies" / "datastore_v2.json").stat().st_mtime_ns == before


def test_labelled_images_are_left_alone(store, tmp_path):
    label = tmp_path / "label.nii.gz"
    label.write_bytes(b"x")
    record_result(store, "first", model="sam2", confidence=0.4, when_s=1.0)
    store.save_label("first", str(label), "final", {})
    assert ConfidenceScoring()({}, store) == {}


def test_a_waiting_method_is_not_queued_again():
    begin, ran = threading.Event(), []

    def run(method):
        begin.wait(5)
        ran.append(method)

    queue = ScoringQueue(run)
    queue.submit("blocker")
    assert [queue.submit("confidence") for _ in range(50)] == [True] + [False] * 49
    begin.set()
    queue.wait()
    assert ran == ["blocker", "confidence"]


def test_a_failing_method_is_logged_and_the_next_one_runs(caplog):
    ran = []

    def run(method):
        if method == "broken":
            raise ValueError("a bug")
        ran.append(method)

    queue = ScoringQueue(run)
    queue.submit("broken")
    queue.submit("fine")
    queue.wait()
    assert ran == ["fine"] and "'broken' failed" in caplog.text
