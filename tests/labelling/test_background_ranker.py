"""Ranking volumes in the background: real files and threads, a predictor without weights."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from builders import ball, phantom, scan, stored_as

from slicecast.active.volumes import ActiveSettings
from slicecast.errors import Cancelled
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.queue import DeviceQueue
from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import open_study
from slicecast.labelling.strategies import BackgroundRanker, CachedVolume, VolumeCache, embed
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
            write_volume(self.get_image_uri(name), volume.with_array(np.roll(volume.array, n, axis=0)))

    def get_labeled_images(self):
        return self.done

    def get_unlabeled_images(self):
        return [name for name in self.names if name not in self.done]

    def get_image_uri(self, name):
        return self.folder / f"{name}.nii.gz"


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "studies").mkdir()
    return Folder(tmp_path / "studies")


def make(cases, tmp_path, **settings):
    service = SegmentService(predictor=FakePredictor())
    chosen = ActiveSettings(**settings)
    return service, BackgroundRanker(service, lambda: cases, settings=chosen, folder=tmp_path / "cache")


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
    cases.get_image_uri("case2").write_bytes(b"no volume")
    write_volume(
        cases.get_image_uri("case4"), scan(ball(), noise=0.0).with_array(np.zeros_like(phantom().volume.array))
    )
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


MODEL = QueuedPredictor(FakePredictor(), DeviceQueue())


def test_looks_do_not_depend_on_how_the_file_is_stored():
    volume = scan(ball(centre_ijk=(9, 8, 7)))
    turned = stored_as(volume, (2, 0, 1), (True, False, True))
    assert embed(MODEL, open_study(volume)) == pytest.approx(embed(MODEL, open_study(turned)))


def test_it_ends_when_it_is_told_to():
    with pytest.raises(Cancelled):
        embed(MODEL, open_study(scan(ball())), cancelled=lambda: True)


def test_it_is_found_again_by_file_and_content_for_the_same_model_only(tmp_path):
    known = CachedVolume("abc", "", np.array([0.5, -2.0], np.float32))
    cache = VolumeCache(tmp_path, "model 1")
    cache.keep(("file", 1, 2), known)
    cache.close()
    again = VolumeCache(tmp_path, "model 1")
    found = again.load("abc")
    assert again.content_of(("file", 1, 2)) == "abc" and again.content_of(("file", 1, 3)) is None
    assert found.to_bytes() == known.to_bytes() and found.embedding.dtype == np.float32
    assert VolumeCache(tmp_path, "model 2").load("abc") is None


def test_what_earlier_versions_cached_is_still_read():
    old = {"content": "abc", "flaw": "", "scores": {"cycle": 0.1}, "by_structure": {}, "support": "s", "round": 3}
    found = CachedVolume.of_bytes(json.dumps({**old, "embedding": [1.0]}).encode())
    assert (found.content, found.flaw, found.embedding.tolist()) == ("abc", "", [1.0])
