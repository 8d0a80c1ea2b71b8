"""What happens when a device's memory runs out: free what can be freed, then work in smaller batches."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.ports import Embedding, Observation, PromptJob, SlicePredictor, TrackJob
from slicecast.errors import OutOfMemory

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
