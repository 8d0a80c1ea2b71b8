import sys
import threading
import time

import psutil
import pytest
import torch
from builders import ball, scan

from slicecast.engine.crop_window import whole_crop
from slicecast.errors import ResourceError
from slicecast.inference import prefetch
from slicecast.inference.prefetch import MAX_REQUESTS, PrefetchRequest, give_back_memory
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.settings import EngineSettings
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import SliceAxis, write_volume
from slicecast_lab.simulation.fake import FakePredictor

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


def request(service, image, predictor=None):
    """Ask for all slices of an image, whole."""
    study = service.studies.open(image)
    frames = study.frames(SliceAxis.AXIAL, study.window("auto"))
    view = whole_crop(frames)
    service.prefetcher.request(
        PrefetchRequest(predictor or service.predictor, frames, [(n, view) for n in range(frames.count)])
    )


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited for 30 s")


def prefetching() -> set[threading.Thread]:
    """Return the threads that prefetch; another test's server may have one."""
    return {thread for thread in threading.enumerate() if thread.name == "slicecast-prefetch"}


def test_the_rest_of_a_volume_is_encoded_while_the_server_is_idle(image):
    before = prefetching()
    service = SegmentService(predictor=Watched())
    with service.prefetcher.running():
        first = service.segment(click(image))
        wait_for(lambda: service.cache.stats().entries == SLICES)
    assert first.slices_encoded < SLICES and service.prefetcher.encoded == SLICES - first.slices_encoded
    assert prefetching() <= before


def test_nothing_happens_where_it_does_not_run(image):
    service = SegmentService(predictor=Watched())
    request(service, image)
    encoded = service.segment(click(image)).slices_encoded
    assert service.cache.stats().entries == encoded < SLICES


def test_switched_off_it_only_gives_back_memory(image, monkeypatch):
    given_back = threading.Event()
    monkeypatch.setattr(prefetch, "give_back_memory", given_back.set)
    service = SegmentService(predictor=Watched(), settings=EngineSettings(idle_encode=False))
    with service.prefetcher.running():
        request(service, image)
        assert given_back.wait(30)
    assert service.prefetcher.encoded == 0 and service.cache.stats().entries == 0


def test_a_request_that_fails_stops_nothing(image):
    class Broken(Watched):
        def encode(self, frames):
            raise ResourceError("no device")

    service = SegmentService(predictor=Watched())
    with service.prefetcher.running():
        request(service, image, Broken())
        request(service, image)
        wait_for(lambda: service.cache.stats().entries == SLICES)


def test_a_request_that_is_put_back_gives_way_to_newer_ones(image):
    """All that came while it was at work are encoded, the newest too: on that volume somebody works now."""
    first, newer = Watched(seconds=1.0), [Watched() for _ in range(MAX_REQUESTS)]
    service = SegmentService(predictor=first)
    with service.prefetcher.running():
        request(service, image)
        wait_for(lambda: first.threads)
        with service.queue.job("ana"):
            for number, predictor in enumerate(newer):
                predictor.fingerprint = f"newer {number}"
                request(service, image, predictor)
            wait_for(lambda: service.prefetcher.encoded)
            time.sleep(0.3)
        wait_for(lambda: all(predictor.threads for predictor in newer))


def test_a_full_cache_ends_it(image):
    service = SegmentService(predictor=Watched(), settings=EngineSettings(), embedding_bytes=20_000)
    with service.prefetcher.running():
        request(service, image)
        wait_for(lambda: service.cache.stats().evictions == 1)
        time.sleep(0.2)
    assert service.cache.stats().evictions == 1 and service.cache.stats().nbytes <= 20_000


def test_it_rests_while_a_request_is_in_work(image):
    service = SegmentService(predictor=Watched(seconds=0.02))
    with service.prefetcher.running():
        with service.queue.job("ana"):
            request(service, image)
            time.sleep(0.5)
            assert service.prefetcher.encoded == 0
        wait_for(lambda: service.cache.stats().entries == SLICES)
    assert set(service.predictor._predictor.threads) == {"slicecast-prefetch"}


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what was freed")
def test_memory_that_was_freed_goes_back_to_the_system():
    kept = []

    def work():
        blocks = [torch.ones(15_000) for _ in range(2000)]  # 115 MiB in blocks like rendered slices
        kept.extend(blocks[::100])  # those between which the others leave holes

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    held = psutil.Process().memory_info().rss
    give_back_memory()
    assert held - psutil.Process().memory_info().rss > 50 << 20
