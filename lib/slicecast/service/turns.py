"""One device, many users: work is taken in slice steps, first come first served."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.ports import Embedding, Observation, PromptJob, SlicePredictor, TrackJob


class FairLock:
    """A lock handed over in the order of arrival, so that a long job cannot starve a click.

    ``threading.Lock`` gives no such promise: a thread that releases and takes it again usually wins.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._held = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock for one step."""
        self._take()
        try:
            yield
        finally:
            self._give()

    def _take(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        try:
            mine.wait()
        except BaseException:  # an interrupt while waiting: leave the line, or pass the turn on
            self._leave(mine)
            raise

    def _leave(self, mine: threading.Event) -> None:
        with self._guard:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return
        self._give()

    def _give(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()  # the lock stays held, by the next in line
            else:
                self._held = False


class SharedPredictor:
    """A predictor that many threads share; each call is one turn."""

    def __init__(self, predictor: SlicePredictor, lock: FairLock) -> None:
        self._predictor = predictor
        self._lock = lock
        self.image_size = predictor.image_size
        self.memory_length = predictor.memory_length
        self.fingerprint = predictor.fingerprint
        self.zoom = predictor.zoom

    def encode(self, frames: NDArray[np.float32]) -> list[Embedding]:
        """Encode slices in one turn."""
        with self._lock.turn():
            return self._predictor.encode(frames)

    def prompt(self, jobs: Sequence[PromptJob], *, num_slices: int) -> list[Observation]:
        """Segment prompted slices in one turn."""
        with self._lock.turn():
            return self._predictor.prompt(jobs, num_slices=num_slices)

    def track(self, jobs: Sequence[TrackJob], *, num_slices: int) -> list[Observation]:
        """Segment the next slice of each lane in one turn."""
        with self._lock.turn():
            return self._predictor.track(jobs, num_slices=num_slices)
