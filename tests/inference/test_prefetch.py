import threading
import time

import pytest
from builders import ball, scan

from slicecast.engine.fake import FakePredictor
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.settings import EngineSettings
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import write_volume

SLICES = 16


class Watched(FakePredictor):
    """Notes when it encodes, and takes its time."""

    def __init__(self, seconds=0.0):
        super().__init__()
        self.seconds, self.threads = seconds, []

    def encode(self, frames):
        self.threads.append(threading.current_thread().name)
        time.sleep(self.seconds)
        return super().encode(frames)


@pytest.fixture
def image(tmp_path):
    write_volume(tmp_path / "ball.nii.gz", scan(ball(radius=2.5)))
    return tmp_path / "ball.nii.gz"


def click(image):
    return SegmentRequest(image, PromptSet((ObjectPrompts("ball", points=(Point((12, 10, 8)),)),)))


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited for 30 s")


def test_the_rest_of_a_volume_is_encoded_while_nobody_waits(image):
    service = SegmentService(predictor=Watched())
    with service.idle.running():
        first = service.segment(click(image))
        wait_for(lambda: service.cache.stats().entries == SLICES)
    assert first.slices_encoded < SLICES and service.idle.encoded == SLICES - first.slices_encoded
    assert not any(thread.name == "slicecast-idle" for thread in threading.enumerate())


def test_the_next_image_is_opened_and_encoded(image):
    service = SegmentService(predictor=Watched())
    with service.idle.running():
        service.prepare(image)
        wait_for(lambda: service.cache.stats().entries == SLICES)
    assert service.segment(click(image)).slices_encoded == 0


def test_nothing_happens_where_it_does_not_run(image):
    service = SegmentService(predictor=Watched())
    service.prepare(image)
    encoded = service.segment(click(image)).slices_encoded
    assert service.cache.stats().entries == encoded < SLICES


def test_it_can_be_switched_off(image):
    service = SegmentService(predictor=Watched(), settings=EngineSettings(idle_encode=False))
    with service.idle.running():
        service.prepare(image)
        assert not any(thread.name == "slicecast-idle" for thread in threading.enumerate())


def test_an_image_that_cannot_be_read_stops_nothing(image, tmp_path):
    service = SegmentService(predictor=Watched())
    with service.idle.running():
        service.prepare(tmp_path / "missing.nii.gz")
        service.prepare(image)
        wait_for(lambda: service.cache.stats().entries == SLICES)


def test_a_full_cache_ends_it(image):
    service = SegmentService(predictor=Watched(), settings=EngineSettings(), embedding_bytes=20_000)
    with service.idle.running():
        service.prepare(image)
        wait_for(lambda: service.cache.stats().evictions == 1)
        time.sleep(0.2)
    assert service.cache.stats().evictions == 1 and service.cache.stats().nbytes <= 20_000


def test_it_rests_while_a_request_is_in_work(image):
    service = SegmentService(predictor=Watched(seconds=0.02))
    with service.idle.running():
        with service.queue.job("ana"):
            service.prepare(image)
            time.sleep(0.5)
            assert service.idle.encoded == 0
        wait_for(lambda: service.cache.stats().entries == SLICES)
    assert set(service._predictor._predictor.threads) == {"slicecast-idle"}
