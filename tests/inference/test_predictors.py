import numpy as np

from slicecast.engine.fake import FakePredictor
from slicecast.engine.ports import Bank, ModelPrompt, PromptJob, TrackJob
from slicecast.inference.line import Priority
from slicecast.inference.predictors import SharedPredictor, Work
from slicecast.inference.queue import DeviceQueue

CLICK, WALK, BACK = Priority
WORDS = ModelPrompt(np.array([[16, 16]], np.float32), np.array([1], np.int32))


def test_a_shared_predictor_answers_as_the_one_inside():
    plain = FakePredictor(image_size=32, zoom=True)
    shared = SharedPredictor(plain, DeviceQueue())
    assert (shared.image_size, shared.memory_length, shared.fingerprint, shared.zoom) == (
        plain.image_size,
        plain.memory_length,
        plain.fingerprint,
        True,
    )
    frames = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    first, second = shared.encode(frames)
    assert np.array_equal(second.grey, plain.encode(frames)[1].grey)
    answers = [p.prompt([PromptJob(first, WORDS)], num_slices=2)[0] for p in (shared, plain)]
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
    shared = SharedPredictor(Noting(image_size=32), queue)
    with queue.job("anna"):
        first, second = shared.encode(np.zeros((2, 32, 32), np.float32))
        seen = shared.prompt([PromptJob(first, WORDS)], num_slices=2)
        shared.track([TrackJob(second, Bank(((0, seen[0].memory),)))], num_slices=2)
    assert working == [1] * 3 and queue.steps.stats().working == 0
    assert queue.steps.stats().taken == {CLICK: 2, WALK: 1, BACK: 0}
    assert shared.work == Work(encoded=2, prompted=1, tracked=1)
