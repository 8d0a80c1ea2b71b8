import threading
import time

import numpy as np
import pytest

from slicecast.engine.fake import FakePredictor
from slicecast.engine.ports import ModelPrompt, PromptJob, TrackJob
from slicecast.service.turns import FairLock, SharedPredictor

WAIT_S = 10.0
"""Longer than any machine needs; a deadlock fails instead of hanging."""


def wait_until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def queue_up(lock, work, count):
    """Start threads that ask for a turn one after the other while the lock is held."""
    threads = []
    for n in range(count):
        thread = threading.Thread(target=work, args=(n,), daemon=True)
        thread.start()
        threads.append(thread)
        wait_until(lambda n=n: len(lock._waiting) == n + 1)
    return threads


def finish(threads):
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_turns_are_taken_in_the_order_of_arrival():
    lock, order = FairLock(), []

    def work(n):
        with lock.turn():
            order.append(n)

    with lock.turn():
        threads = queue_up(lock, work, 6)
    finish(threads)
    assert order == list(range(6))


def test_a_long_job_cannot_starve_a_click():
    """A thread that gives the lock back and takes it again comes after those who wait."""
    lock, order = FairLock(), []

    def click(n):
        with lock.turn():
            order.append("click")

    with lock.turn():
        threads = queue_up(lock, click, 1)
        order.append("step 1")
    with lock.turn():
        order.append("step 2")
    finish(threads)
    assert order == ["step 1", "click", "step 2"]


def test_one_at_a_time():
    lock, inside, most = FairLock(), [], []

    def work():
        for _ in range(50):
            with lock.turn():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    finish(threads)
    assert max(most) == 1 and len(most) == 200


def test_an_error_gives_the_turn_back():
    lock = FairLock()
    with pytest.raises(RuntimeError), lock.turn():
        raise RuntimeError
    with lock.turn():
        pass


def test_an_error_hands_the_turn_to_the_next_in_line():
    lock, order = FairLock(), []

    def work(n):
        with lock.turn():
            order.append(n)

    with pytest.raises(RuntimeError), lock.turn():
        threads = queue_up(lock, work, 2)
        raise RuntimeError
    finish(threads)
    assert order == [0, 1]


class Interrupted(threading.Event):
    """An event whose wait is broken off, as Ctrl-C breaks off the main thread's."""

    def wait(self, timeout=None):
        raise KeyboardInterrupt


def test_whoever_leaves_the_line_does_not_block_it(monkeypatch):
    lock = FairLock()
    with lock.turn():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(threading, "Event", Interrupted)
            with lock.turn():
                pass
        assert lock._held and not lock._waiting
    assert not lock._held


def test_whoever_leaves_when_just_called_passes_the_turn_on(monkeypatch):
    lock = FairLock()

    class CalledTooLate(Interrupted):
        def wait(self, timeout=None):
            lock._give()
            super().wait()

    lock._take()
    monkeypatch.setattr(threading, "Event", CalledTooLate)
    with pytest.raises(KeyboardInterrupt), lock.turn():
        pass
    assert not lock._held


def test_a_shared_predictor_answers_as_the_one_inside():
    plain = FakePredictor(image_size=32, zoom=True)
    shared = SharedPredictor(plain, FairLock())
    assert (shared.image_size, shared.memory_length, shared.fingerprint, shared.zoom) == (
        plain.image_size,
        plain.memory_length,
        plain.fingerprint,
        True,
    )
    frames = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    first, second = shared.encode(frames)
    assert np.array_equal(second.grey, plain.encode(frames)[1].grey)
    words = ModelPrompt(np.array([[16, 16]], np.float32), np.array([1], np.int32))
    answers = [p.prompt([PromptJob(first, words)], num_slices=2)[0] for p in (shared, plain)]
    assert np.array_equal(answers[0].logits, answers[1].logits)


def test_every_call_is_one_turn():
    turns = []

    class Noting(FakePredictor):
        def encode(self, frames):
            turns.append(lock._held)
            return super().encode(frames)

        def prompt(self, jobs, *, num_slices):
            turns.append(lock._held)
            return super().prompt(jobs, num_slices=num_slices)

        def track(self, jobs: list[TrackJob], *, num_slices):
            turns.append(lock._held)
            return super().track(jobs, num_slices=num_slices)

    lock = FairLock()
    shared = SharedPredictor(Noting(image_size=32), lock)
    shared.encode(np.zeros((1, 32, 32), np.float32))
    shared.prompt([], num_slices=1)
    shared.track([], num_slices=1)
    assert turns == [True] * 3 and not lock._held
