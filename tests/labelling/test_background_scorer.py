"""Scoring volumes in the background: real files and threads, a predictor without weights."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from builders import ball, phantom, scan

from slicecast.active.volumes import ActiveSettings
from slicecast.inference.segment import SegmentService
from slicecast.labelling.background_scorer import BackgroundScorer, round_of
from slicecast.volume import write_volume
from slicecast_lab.simulation.fake import FakePredictor

WAIT_S = 120.0
NAMES = tuple(f"case{n}" for n in range(6))


class Folder:
    """Volumes in a folder, some with a label."""

    def __init__(self, folder, names=NAMES):
        self.folder, self.names, self.done = folder, list(names), []
        for n, name in enumerate(names):
            volume = phantom().volume
            write_volume(self.image(name), volume.with_array(np.roll(volume.array, n, axis=0)))

    def labelled(self):
        return self.done

    def waiting(self):
        return [name for name in self.names if name not in self.done]

    def image(self, name):
        return self.folder / f"{name}.nii.gz"

    def label(self, name, study):
        truth = np.roll(phantom().truth, self.names.index(name), axis=0)
        return study.reorientation.to_canonical_array(truth.astype(np.uint8)), {"ball": 1}

    def seconds(self):
        return {}


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "studies").mkdir()
    return Folder(tmp_path / "studies")


def make(cases, tmp_path, **settings):
    service = SegmentService(predictor=FakePredictor())
    chosen = ActiveSettings(least=50, **settings)
    return service, BackgroundScorer(service, cases, settings=chosen, folder=tmp_path / "scores")


@contextmanager
def at_work(scorer) -> Iterator[None]:
    before = threading.active_count()
    with scorer.running():
        yield
        assert threading.active_count() < before + 20


def test_an_order_is_not_ready_at_first_and_then_it_is(cases, tmp_path):
    _, scorer = make(cases, tmp_path)
    with at_work(scorer):
        assert scorer.queue("strat_random") is None
        assert scorer.wait(WAIT_S)
        queue = scorer.queue("strat_random")
    assert sorted(c.name for c in queue.choices) == list(NAMES)
    assert (queue.embedded, queue.scored) == (6, 0)
    assert all("stratum" in c.reason or "comes last" in c.reason for c in queue.choices)


def test_a_label_starts_a_round_in_which_volumes_are_scored(cases, tmp_path):
    _, scorer = make(cases, tmp_path)
    with at_work(scorer):
        scorer.queue("auto")
        assert scorer.wait(WAIT_S)
        assert scorer.queue("auto").scored == 0
        cases.done.append("case0")
        scorer.wake()
        assert scorer.wait(WAIT_S)
        queue = scorer.queue("auto")
    assert queue.scored == 5 and "case0" not in {c.name for c in queue.choices}
    known = scorer.cached()["case3"]
    assert known.support == "case0" and set(known.scores) >= {"disagree", "cycle", "object_entropy"}
    assert known.by_structure["ball"] == known.scores


def test_after_a_restart_nothing_is_scored_again(cases, tmp_path):
    cases.done.append("case0")
    for expected in (True, False):
        service, scorer = make(cases, tmp_path)
        with at_work(scorer):
            scorer.queue("auto")
            assert scorer.wait(WAIT_S)
            assert scorer.queue("auto").scored == 5
        assert (service.predictor.work.tracked > 0) is expected


def test_nothing_is_scored_while_somebody_works(cases, tmp_path):
    service, scorer = make(cases, tmp_path)
    with service.queue.job("anna"), at_work(scorer):
        scorer.queue("coverage")
        assert not scorer.wait(1.0)
        assert service.predictor.work.encoded == 0
    with at_work(scorer):
        scorer.wake()
        assert scorer.wait(WAIT_S) and scorer.queue("coverage").embedded == 6


def test_a_part_is_drawn_by_sample(tmp_path):
    (tmp_path / "many").mkdir()
    cases = Folder(tmp_path / "many", [f"v{n}" for n in range(12)])
    service = SegmentService(predictor=FakePredictor())
    scorer = BackgroundScorer(service, cases, settings=ActiveSettings(least=1, share=0.25), folder=tmp_path / "scores")
    with at_work(scorer):
        scorer.queue("strat_random")
        assert scorer.wait(WAIT_S)
        assert scorer.queue("strat_random").embedded == 3


def test_a_file_that_cannot_be_read_comes_last_and_stops_nothing(cases, tmp_path):
    cases.image("case2").write_bytes(b"no volume")
    write_volume(cases.image("case4"), scan(ball(), noise=0.0).with_array(np.zeros_like(phantom().volume.array)))
    _, scorer = make(cases, tmp_path)
    with at_work(scorer):
        scorer.queue("coverage")
        assert scorer.wait(WAIT_S)
        reasons = {c.name: c.reason for c in scorer.queue("coverage").choices[1:]}
    assert "cannot be read" in reasons["case2"] and "constant" in reasons["case4"]


def test_it_stands_still_where_it_is_switched_off(cases, tmp_path):
    service, scorer = make(cases, tmp_path, background=False)
    with at_work(scorer):
        assert scorer.queue("auto") is None and not scorer.wait(0.3)
    assert service.predictor.work.encoded == 0


def test_rounds_grow_longer():
    assert [round_of(n) for n in (0, 1, 2, 3, 4, 5, 6, 8, 20)] == [0, 1, 2, 3, 4, 4, 5, 6, 8]
