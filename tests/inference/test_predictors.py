import numpy as np
import pytest
from builders import ball, scan

from slicecast.engine.ports import Bank, ModelPrompt, PromptJob, TrackJob
from slicecast.errors import OutOfMemory
from slicecast.inference.predictors import ON_THE_CPU, SMALLER_BATCHES, OutOfMemoryFallback, QueuedPredictor, Work
from slicecast.inference.queue import DeviceQueue, Priority
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import write_volume
from slicecast_lab.simulation.fake import FakePredictor

CLICK, TRACK, BACK = Priority
WORDS = ModelPrompt(np.array([[16, 16]], np.float32), np.array([1], np.int32))


def test_a_queued_predictor_answers_as_the_one_inside():
    plain = FakePredictor(image_size=32, zoom=True)
    queued = QueuedPredictor(plain, DeviceQueue())
    assert (queued.image_size, queued.memory_length, queued.fingerprint, queued.zoom) == (
        plain.image_size,
        plain.memory_length,
        plain.fingerprint,
        True,
    )
    frames = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    first, second = queued.encode(frames)
    assert np.array_equal(second.grey, plain.encode(frames)[1].grey)
    answers = [p.prompt([PromptJob(first, WORDS)], num_slices=2)[0] for p in (queued, plain)]
    assert np.array_equal(answers[0].logits, answers[1].logits)


def test_every_call_is_one_step():
    working = []

    class Noting(FakePredictor):
        def encode(self, frames):
            working.append(queue.steps.stats().working)
            return super().encode(frames)

        def prompt(self, jobs, *, num_slices):
            working.append(queue.steps.stats().working)
            return super().prompt(jobs, num_slices=num_slices)

        def track(self, jobs, *, num_slices):
            working.append(queue.steps.stats().working)
            return super().track(jobs, num_slices=num_slices)

    queue = DeviceQueue()
    queued = QueuedPredictor(Noting(image_size=32), queue)
    with queue.job("anna"):
        first, second = queued.encode(np.zeros((2, 32, 32), np.float32))
        seen = queued.prompt([PromptJob(first, WORDS)], num_slices=2)
        queued.track([TrackJob(second, Bank(((0, seen[0].memory),)))], num_slices=2)
    assert working == [1] * 3 and queue.steps.stats().working == 0
    assert queue.steps.stats().taken == {CLICK: 2, TRACK: 1, BACK: 0}
    assert queued.work == Work(encoded=2, prompted=1, tracked=1)


class Small(FakePredictor):
    """Has memory for so many slices or lanes at once."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def _check(self, count):
        if count > self.room:
            raise OutOfMemory("full")

    def encode(self, frames):
        self._check(len(frames))
        return super().encode(frames)

    def track(self, jobs, *, num_slices):
        self._check(len(jobs))
        return super().track(jobs, num_slices=num_slices)


@pytest.fixture
def request_(tmp_path):
    write_volume(tmp_path / "ball.nii.gz", scan(ball()))
    return SegmentRequest(tmp_path / "ball.nii.gz", PromptSet((ObjectPrompts("ball", points=(Point((12, 10, 8)),)),)))


@pytest.fixture
def mask(request_):
    return SegmentService(predictor=FakePredictor()).segment(request_).mask


def test_a_batch_that_does_not_fit_is_divided():
    released = []
    fallback = OutOfMemoryFallback(Small(2), lambda: released.append(1))
    frames = np.random.default_rng(0).random((7, 128, 128), np.float32)
    found, wanted = fallback.encode(frames), FakePredictor().encode(frames)
    assert all((a.grey == b.grey).all() for a, b in zip(found, wanted, strict=True))
    assert fallback.used and released


def test_what_fits_is_not_touched():
    fallback = OutOfMemoryFallback(Small(8), lambda: pytest.fail("nothing to release"))
    assert len(fallback.encode(np.zeros((8, 128, 128), np.float32))) == 8 and not fallback.used


def test_memory_that_was_kept_makes_room_for_a_single_slice():
    small = Small(0)
    fallback = OutOfMemoryFallback(small, lambda: setattr(small, "room", 1))
    assert len(fallback.encode(np.zeros((1, 128, 128), np.float32))) == 1 and fallback.used


def test_smaller_batches_give_the_same_mask_and_say_so(request_, mask):
    result = SegmentService(predictor=Small(1)).segment(request_)
    assert (result.mask == mask).all() and SMALLER_BATCHES in result.warnings


def test_the_cpu_is_the_last_resort_and_says_so(request_, mask):
    service = SegmentService(predictor=Small(0), fallback=FakePredictor)
    result = service.segment(request_)
    assert (result.mask == mask).all() and result.warnings == (ON_THE_CPU,)


def test_without_another_device_the_error_is_the_callers(request_):
    with pytest.raises(OutOfMemory, match="full"):
        SegmentService(predictor=Small(0)).segment(request_)
