"""Ranking volumes in the background: real files and threads, a predictor without weights."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from builders import ball, phantom, scan

from slicecast.active.volumes import ActiveSettings
from slicecast.inference.segment import SegmentService
from slicecast.labelling.background_ranker import BackgroundRanker
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


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "studies").mkdir()
    return Folder(tmp_path / "studies")


def make(cases, tmp_path, **settings):
    service = SegmentService(predictor=FakePredictor())
    chosen = ActiveSettings(**settings)
    return service, BackgroundRanker(service, cases, settings=chosen, folder=tmp_path / "cache")


@contextmanager
def at_work(ranker) -> Iterator[None]:
    before = threading.active_count()
    with ranker.running():
        yield
        assert threading.active_count() < before + 20


def test_an_order_is_not_ready_at_first_and_then_it_is(cases, tmp_path):
    _, ranker = make(cases, tmp_path)
    with at_work(ranker):
        assert ranker.queue("strat_random") is None
        assert ranker.wait(WAIT_S)
        queue = ranker.queue("strat_random")
    assert sorted(c.name for c in queue.choices) == list(NAMES)
    assert queue.embedded == 6
    assert all("stratum" in c.reason or "comes last" in c.reason for c in queue.choices)


def test_a_label_starts_a_round(cases, tmp_path):
    _, ranker = make(cases, tmp_path)
    with at_work(ranker):
        ranker.queue("coverage")
        assert ranker.wait(WAIT_S)
        cases.done.append("case0")
        ranker.wake()
        assert ranker.wait(WAIT_S)
        queue = ranker.queue("coverage")
    assert queue.embedded == 5 and "case0" not in {c.name for c in queue.choices}


def test_after_a_restart_nothing_is_embedded_again(cases, tmp_path):
    for expected in (True, False):
        service, ranker = make(cases, tmp_path)
        with at_work(ranker):
            ranker.queue("coverage")
            assert ranker.wait(WAIT_S)
            assert ranker.queue("coverage").embedded == 6
        assert (service.predictor.work.encoded > 0) is expected


def test_nothing_is_embedded_while_somebody_works(cases, tmp_path):
    service, ranker = make(cases, tmp_path)
    with service.queue.job("anna"), at_work(ranker):
        ranker.queue("coverage")
        assert not ranker.wait(1.0)
        assert service.predictor.work.encoded == 0
    with at_work(ranker):
        ranker.wake()
        assert ranker.wait(WAIT_S) and ranker.queue("coverage").embedded == 6


def test_a_file_that_cannot_be_read_comes_last_and_stops_nothing(cases, tmp_path):
    cases.image("case2").write_bytes(b"no volume")
    write_volume(cases.image("case4"), scan(ball(), noise=0.0).with_array(np.zeros_like(phantom().volume.array)))
    _, ranker = make(cases, tmp_path)
    with at_work(ranker):
        ranker.queue("coverage")
        assert ranker.wait(WAIT_S)
        reasons = {c.name: c.reason for c in ranker.queue("coverage").choices[1:]}
    assert "cannot be read" in reasons["case2"] and "constant" in reasons["case4"]


def test_it_stands_still_where_it_is_switched_off(cases, tmp_path):
    service, ranker = make(cases, tmp_path, background=False)
    with at_work(ranker):
        assert ranker.queue("coverage") is None and not ranker.wait(0.3)
    assert service.predictor.work.encoded == 0
