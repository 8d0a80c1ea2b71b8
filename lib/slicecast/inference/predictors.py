"""Predictors around the model's own: one that queues for the device, one that survives a device without memory."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.disk import DiskTier
from slicecast.engine.ports import Embedding, Observation, PromptJob, SlicePredictor, TrackJob
from slicecast.errors import OutOfMemory
from slicecast.inference.queue import DeviceQueue


@dataclass(frozen=True, slots=True)
class Work:
    """What a predictor has done since it was loaded.

    Args:
        encoded: slices encoded.
        prompted: slices answered from prompts.
        tracked: slices answered from memory.
    """

    encoded: int = 0
    prompted: int = 0
    tracked: int = 0


class SharedPredictor:
    """A predictor that many threads share; each call is one step in the queue, so a long job cannot starve a click.

    Args:
        place: where it runs, if that is not where its like runs: what the two keep is not mixed up.
    """

    def __init__(self, predictor: SlicePredictor, queue: DeviceQueue, *, place: str = "") -> None:
        self._predictor = predictor
        self._queue = queue
        self._guard = threading.Lock()
        self._work = Work()
        self.image_size = predictor.image_size
        self.memory_length = predictor.memory_length
        self.fingerprint = predictor.fingerprint + place
        self.zoom = predictor.zoom
        self.evidence = predictor.evidence

    @property
    def on_cpu(self) -> bool:
        """Whether the model's memory is the computer's."""
        return str(getattr(self._predictor, "device", "cpu")) == "cpu"

    def release(self) -> None:
        """Give back what the device holds and nobody uses."""
        release = getattr(self._predictor, "release", None)
        if release is not None:
            with self._queue.step():
                release()

    def disk_tier(self, folder: Path, budget_bytes: int) -> DiskTier | None:
        """Return a store on the disk for what it encodes; None for a predictor that cannot write that down."""
        pack, unpack = (getattr(self._predictor, name, None) for name in ("pack", "unpack"))
        return None if pack is None or unpack is None else DiskTier(folder, budget_bytes, pack=pack, unpack=unpack)

    def pool(self, embeddings: Sequence[Embedding]) -> NDArray[np.float32] | None:
        """Return what slices look like, (N, D); None for a predictor that cannot say."""
        pool = getattr(self._predictor, "pool", None)
        if pool is None:
            return None
        with self._queue.step():
            return np.stack([pool(embedding) for embedding in embeddings])

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
        """Segment the next slice of each lane in one step."""
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


class CarefulPredictor:
    """A predictor for one request, that survives a device without memory as long as one slice fits.

    Args:
        predictor: does the work.
        release: frees what other requests left behind.
    """

    def __init__(self, predictor: SlicePredictor, release: Callable[[], None]) -> None:
        self._predictor = predictor
        self._release = release
        self.relieved = False
        self.image_size = predictor.image_size
        self.memory_length = predictor.memory_length
        self.fingerprint = predictor.fingerprint
        self.zoom = predictor.zoom
        self.evidence = predictor.evidence

    def encode(self, frames: NDArray[np.float32]) -> list[Embedding]:
        """Encode slices, in parts where they do not fit."""
        return self._in_parts(list(frames), lambda part: self._predictor.encode(np.stack(part)))

    def prompt(self, jobs: Sequence[PromptJob], *, num_slices: int) -> list[Observation]:
        """Segment prompted slices, in parts where they do not fit."""
        return self._in_parts(jobs, lambda part: self._predictor.prompt(part, num_slices=num_slices))

    def track(self, jobs: Sequence[TrackJob], *, num_slices: int) -> list[Observation]:
        """Segment the next slice of each lane, in parts where they do not fit."""
        return self._in_parts(jobs, lambda part: self._predictor.track(part, num_slices=num_slices))

    def _in_parts(self, items: Sequence[Item], run: Callable[[Sequence[Item]], list[Answer]]) -> list[Answer]:
        try:
            return run(items)
        except OutOfMemory:
            self._release()
        half = len(items) // 2
        parts = (items[:half], items[half:]) if half else (items,)
        # A single slice that fails again has nothing left to be divided into: that error is the caller's.
        answers = [answer for part in parts for answer in (self._in_parts(part, run) if half else run(part))]
        self.relieved = True
        return answers
