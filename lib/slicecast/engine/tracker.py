"""What all parts of one propagation share: model, slices, cache, progress and the wish to stop."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.caches import AnswerMemo, Known, name_of
from slicecast.engine.embeddings import EmbeddingCache
from slicecast.engine.frames import Frames, View
from slicecast.engine.options import EngineOptions
from slicecast.engine.ports import Embedding, Observation, SlicePredictor
from slicecast.errors import Cancelled

LOOK_AHEAD = 4
"""Slices of each lane encoded together by a small model; what lies beyond an early stop is wasted work."""

SMALL_INPUT_PX = 256
"""Up to this input size slices are encoded faster together than one by one."""

REQUEST_MEMO_BYTES = 1 << 28
"""Of the answers that one request keeps for itself where it is given no memo."""

Progress = Callable[[int, str], None]
"""Called with the number of slices answered since the start, and what is being done."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceAnswer:
    """What is known of one object on one slice.

    Args:
        logits: (m, m) float32 over the track's view.
        predicted_iou: the model's own estimate in [0, 1].
        object_score: logit that the object is there.
        agreement: Dice of the two lanes that met here, 1 where only one walked.
        prompted: the annotator prompted this slice.
        fits: what the mask covers looks like what it covers on the lane's anchor.
    """

    logits: NDArray[np.float32]
    predicted_iou: float
    object_score: float
    agreement: float = 1.0
    prompted: bool = False
    fits: bool = True

    @property
    def present(self) -> bool:
        """Whether the object is on the slice at all."""
        return self.fits and self.object_score > 0 and bool((self.logits > 0).any())

    @staticmethod
    def of(observation: Observation, *, prompted: bool = False) -> "SliceAnswer":
        """Keep an observation without its memory."""
        return SliceAnswer(observation.logits, observation.predicted_iou, observation.object_score, prompted=prompted)


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """An object's answer on a slice, as soon as it is known.

    Args:
        object: its name.
        slice: slice number.
        view: window of the answer.
        answer: what is known.
        reused: it was known from an earlier request.
        final: False where a second lane is still to come.
    """

    object: str
    slice: int
    view: View
    answer: SliceAnswer
    reused: bool
    final: bool = True


@dataclass(slots=True, eq=False)
class Tracker:
    """One propagation's surroundings.

    Args:
        predictor: the model.
        frames: the volume's slices.
        cache: encoded slices, shared with other requests.
        options: settings.
        progress: told after each batch of slices.
        cancelled: asked before each batch.
        memo: answers given already, shared with other requests. Default: of this request alone.
        on_answer: told of each answer.
        keep_partial: a cancelled request answers with what was done, instead of raising.
    """

    predictor: SlicePredictor
    frames: Frames
    cache: EmbeddingCache
    options: EngineOptions
    progress: Progress = lambda done, what: None
    cancelled: Callable[[], bool] = lambda: False
    memo: AnswerMemo = field(default_factory=lambda: AnswerMemo(REQUEST_MEMO_BYTES))
    on_answer: Callable[[Told], None] = lambda told: None
    keep_partial: bool = False
    partial: bool = field(default=False, init=False)
    done: int = field(default=0, init=False)
    recomputed: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)
    encoded: int = field(default=0, init=False)
    encode_s: float = field(default=0.0, init=False)

    @property
    def hears_evidence(self) -> bool:
        """Whether lanes are told what looks like the object."""
        return self.options.evidence == "on" or (self.options.evidence == "auto" and self.predictor.evidence)

    def embed(self, places: Sequence[tuple[int, View]]) -> list[Embedding]:
        """Return encoded slices for (slice number, view), encoding those the cache lacks in one batch.

        Raises:
            Cancelled: the user wants to stop. Every step passes here first.
        """
        self.check()
        size = self.predictor.image_size

        def encode(missing: list[int]) -> list[Embedding]:
            start = time.perf_counter()
            rendered = [self.frames.render(*places[n], size=size) for n in missing]
            encoded = self.predictor.encode(np.stack(rendered))
            self.encoded += len(missing)
            self.encode_s += time.perf_counter() - start
            return encoded

        keys = [self.key(number, view) for number, view in places]
        return self.cache.get_many(keys, encode)

    @property
    def look_ahead(self) -> int:
        """Slices of each lane to encode at a time.

        One where a slice takes long by itself: a cancelled request ends after it, and none is encoded in vain.
        """
        return LOOK_AHEAD if self.predictor.image_size <= SMALL_INPUT_PX else 1

    def look(self, number: int, view: View) -> NDArray[np.float32]:
        """Return a slice as the model sees it, (S, S) float32 in [0, 1]."""
        return self.frames.render(number, view, size=self.predictor.image_size)

    def key(self, number: int, view: View) -> tuple:
        """Return the cache key of a slice: everything that its encoding depends on."""
        return self.frames.key, self.predictor.fingerprint, number, view

    def answers(self, keys: Sequence[Hashable], ask: Callable[[list[int]], Sequence[Observation]]) -> list[Known]:
        """Return the answers of these keys; the model is asked only for those that are not known.

        Args:
            ask: receives the positions in ``keys`` that are missing, returns their answers.

        Raises:
            Cancelled: the user wants to stop.
        """
        self.check()
        known = self.memo.answers(keys, ask)
        new = sum(not entry.reused for entry in known)
        self.recomputed += new
        self.reused += len(known) - new
        return known

    def name(self, *parts: object) -> str:
        """Return a name for what follows from these values on this volume with this model."""
        return name_of(self.frames.key, self.predictor.fingerprint, self.options.evidence, *parts)

    @contextmanager
    def until_cancelled(self) -> Iterator[None]:
        """Leave the block early where the user stops and wants what was done.

        Raises:
            Cancelled: the user stops and wants nothing.
        """
        try:
            yield
        except Cancelled:
            if not self.keep_partial:
                raise
            self.partial = True

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Tell nobody of the answers that are found in the block."""
        told, self.on_answer = self.on_answer, lambda told: None
        try:
            yield
        finally:
            self.on_answer = told

    def count(self, slices: int, what: str) -> None:
        """Report answered slices."""
        self.done += slices
        self.progress(self.done, what)

    def check(self) -> None:
        """Raise Cancelled if the user wants to stop."""
        if self.cancelled():
            raise Cancelled(f"Stopped after {self.done} slices, as asked.")
