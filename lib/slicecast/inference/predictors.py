"""Wrappers of the model's predictor: one queues for the device, one falls back to smaller batches without memory."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.ports import DevicePredictor, Embedding, Observation, PromptJob, SlicePredictor, TrackJob
from slicecast.errors import OutOfMemory
from slicecast.inference.queue import DeviceQueue


@dataclass(frozen=True, slots=True)
class Work:
    """What a predictor has done since it was loaded."""

    encoded: int = 0
    prompted: int = 0
    tracked: int = 0


class QueuedPredictor:
    """A predictor that many threads share; each call is one step in the queue, so a long job cannot starve a click.

    Args:
        suffix: of the fingerprint, where the same model also runs on another device: cached results are not mixed up.
    """

    def __init__(self, predictor: DevicePredictor, queue: DeviceQueue, *, suffix: str = "") -> None:
        self._predictor = predictor
        self._queue = queue
        self._guard = threading.Lock()
        self._work = Work()
        self.image_size = predictor.image_size
        self.memory_length = predictor.memory_length
        self.fingerprint = predictor.fingerprint + suffix
        self.zoom = predictor.zoom
        self.appearance_prior = predictor.appearance_prior

    @property
    def on_cpu(self) -> bool:
        """Whether the model's memory is the computer's."""
        return self._predictor.on_cpu

    def release(self) -> None:
        """Free device memory that is cached but unused."""
        with self._queue.step():
            self._predictor.release()

    def pool(self, embeddings: Sequence[Embedding]) -> NDArray[np.float32]:
        """Return one vector for each embedding, (N, D)."""
        with self._queue.step():
            return np.stack([self._predictor.pool(embedding) for embedding in embeddings])

    @property
    def work(self) -> Work:
        """What was done so far."""
        return self._work

    def encode(self, frames: NDArray[np.float32]) -> list[Embedding]:
        """Encode slices in one step."""
        with self._queue.step():
            answer = self._predictor.encode(frames)
        self._count(encoded=len(frames))
        return answer

    def prompt(self, jobs: Sequence[PromptJob], *, num_slices: int) -> list[Observation]:
        """Segment prompted slices in one step."""
        with self._queue.step():
            answer = self._predictor.prompt(jobs, num_slices=num_slices)
        self._count(prompted=len(jobs))
        return answer

    def track(self, jobs: Sequence[TrackJob], *, num_slices: int) -> list[Observation]:
        """Segment the next slice of each track in one step."""
        with self._queue.step(tracking=True):
            answer = self._predictor.track(jobs, num_slices=num_slices)
        self._count(tracked=len(jobs))
        return answer

    def _count(self, *, encoded: int = 0, prompted: int = 0, tracked: int = 0) -> None:
        with self._guard:
            done = self._work
            self._work = Work(done.encoded + encoded, done.prompted + prompted, done.tracked + tracked)


Item = TypeVar("Item")
Answer = TypeVar("Answer")

SMALLER_BATCHES = "The device's memory ran out: what was kept was released, and the work was done in smaller batches."
ON_THE_CPU = "The device's memory ran out: this was computed on the CPU instead, which is slower."


class OutOfMemoryFallback:
    """A predictor for one request, that works in smaller batches where the device's memory runs out.

    Args:
        release: frees what earlier requests left in memory.
    """

    def __init__(self, predictor: SlicePredictor, release: Callable[[], None]) -> None:
        self._predictor = predictor
        self._release = release
        self.used = False
        self.image_size = predictor.image_size
        self.memory_length = predictor.memory_length
        self.fingerprint = predictor.fingerprint
        self.zoom = predictor.zoom
        self.appearance_prior = predictor.appearance_prior

    def encode(self, frames: NDArray[np.float32]) -> list[Embedding]:
        """Encode slices, in smaller batches where they do not fit."""
        return self._in_parts(list(frames), lambda part: self._predictor.encode(np.stack(part)))

    def prompt(self, jobs: Sequence[PromptJob], *, num_slices: int) -> list[Observation]:
        """Segment prompted slices, in smaller batches where they do not fit."""
        return self._in_parts(jobs, lambda part: self._predictor.prompt(part, num_slices=num_slices))

    def track(self, jobs: Sequence[TrackJob], *, num_slices: int) -> list[Observation]:
        """Segment the next slice of each track, in smaller batches where they do not fit."""
        return self._in_parts(jobs, lambda part: self._predictor.track(part, num_slices=num_slices))

    def _in_parts(self, items: Sequence[Item], run: Callable[[Sequence[Item]], list[Answer]]) -> list[Answer]:
        try:
            return run(items)
        except OutOfMemory:
            self._release()
        half = len(items) // 2
        parts = (items[:half], items[half:]) if half else (items,)
        # A single slice that fails again cannot be divided any further: that error is the caller's.
        answers = [answer for part in parts for answer in (self._in_parts(part, run) if half else run(part))]
        self.used = True
        return answers
