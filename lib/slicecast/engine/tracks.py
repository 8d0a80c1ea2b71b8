"""Tracks: one object propagated from one anchor in one direction, with its own memory.

All live tracks of a request step together as one batch: both directions, all objects, all intervals.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.appearance import Appearance, AppearancePrior
from slicecast.engine.caches import EmbeddingCache, Known, Lru, ResultCache, key_of
from slicecast.engine.calibration import lacking_logit
from slicecast.engine.crop_window import CropWindow, Frames, resample
from slicecast.engine.fusion import SliceAnswer, mix
from slicecast.engine.options import EngineOptions
from slicecast.engine.ports import Bank, Embedding, Observation, SliceMemory, SlicePredictor, TrackJob
from slicecast.errors import Cancelled

LOOK_AHEAD = 4  # Slices of each track encoded together by a small model; what lies beyond an early stop is wasted work
SMALL_INPUT_PX = 256  # Up to this input size slices are encoded faster together than one by one
REQUEST_CACHE_BYTES = 1 << 28  # Of the answers that one request keeps for itself where it is given no cache

RENDER_BYTES = 1 << 26
"""Of slices as the model sees them: each is looked at up to four times in a request, and again after a correction."""

Progress = Callable[[int, str], None]
"""Called with the number of slices answered since the start, and what is being done."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceResult:
    """An object's answer on a slice, as soon as it is known."""

    object: str  # its name
    slice: int  # slice number
    crop: CropWindow  # window of the answer
    answer: SliceAnswer  # what is known
    reused: bool  # it was known from an earlier request
    final: bool = True  # False where a second track is still to come


@dataclass(slots=True, eq=False)
class Tracker:
    """One propagation's surroundings."""

    predictor: SlicePredictor  # the model
    frames: Frames  # the volume's slices
    cache: EmbeddingCache  # encoded slices, shared with other requests
    options: EngineOptions  # settings
    progress: Progress = lambda done, what: None  # told after each batch of slices
    cancelled: Callable[[], bool] = lambda: False  # asked before each batch
    # answers given already, shared with other requests. Default: of this request alone.
    result_cache: ResultCache = field(default_factory=lambda: ResultCache(REQUEST_CACHE_BYTES))
    on_result: Callable[[SliceResult], None] = lambda told: None  # told of each answer
    keep_partial: bool = False  # a cancelled request answers with what was done, instead of raising
    # slices as the model sees them
    renders: Lru[NDArray[np.float32]] = field(default_factory=lambda: Lru(RENDER_BYTES))
    partial: bool = field(default=False, init=False)
    done: int = field(default=0, init=False)
    recomputed: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)
    encoded: int = field(default=0, init=False)
    encode_s: float = field(default=0.0, init=False)

    @property
    def uses_prior(self) -> bool:
        """Whether tracks are told what looks like the object."""
        return self.options.evidence == "on" or (self.options.evidence == "auto" and self.predictor.appearance_prior)

    def embed(self, places: Sequence[tuple[int, CropWindow]]) -> list[Embedding]:
        """Return encoded slices for (slice number, crop), encoding those the cache lacks in one batch.

        Raises:
            Cancelled: the user wants to stop. Every step passes here first.
        """
        self.check()

        def encode(missing: list[int]) -> list[Embedding]:
            start = time.perf_counter()
            encoded = self.predictor.encode(np.stack([self.render(*places[n]) for n in missing]))
            self.encoded += len(missing)
            self.encode_s += time.perf_counter() - start
            return encoded

        return self.cache.get_many([self.key(number, crop) for number, crop in places], encode)

    @property
    def look_ahead(self) -> int:
        """Slices of each track to encode at a time.

        One where a slice takes long by itself: a cancelled request ends after it, and none is encoded in vain.
        """
        return LOOK_AHEAD if self.predictor.image_size <= SMALL_INPUT_PX else 1

    def render(self, number: int, crop: CropWindow) -> NDArray[np.float32]:
        """Return a slice as the model sees it, (S, S) float32 in [0, 1]; not to be written to."""
        size = self.predictor.image_size
        key = self.frames.key, number, crop, size
        found = self.renders.find((key,)).get(key)
        if found is None:
            image = self.frames.render(number, crop, size=size)
            found = self.renders.keep(key, image, nbytes=image.nbytes)
        return found

    def key(self, number: int, crop: CropWindow) -> tuple:
        """Return the cache key of a slice: everything that its encoding depends on."""
        return self.frames.key, self.predictor.fingerprint, number, crop

    def answers(self, keys: Sequence[Hashable], ask: Callable[[list[int]], Sequence[Observation]]) -> list[Known]:
        """Return the answers of these keys; the model is asked only for those that are not known.

        Args:
            ask: receives the positions in ``keys`` that are missing, returns their answers.

        Raises:
            Cancelled: the user wants to stop.
        """
        self.check()
        known = self.result_cache.answers(keys, ask)
        new = sum(not entry.reused for entry in known)
        self.recomputed += new
        self.reused += len(known) - new
        return known

    @property
    def zoom(self) -> bool:
        """Whether windows around the object are looked at."""
        return self.predictor.zoom if self.options.zoom == "auto" else self.options.zoom == "on"

    def result_key(self, *parts: object) -> str:
        """Return a key for what follows from these values on this volume with this model."""
        options = self.options
        return key_of(self.frames.key, self.predictor.fingerprint, options.evidence, options.calibrate, *parts)

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
        told, self.on_result = self.on_result, lambda told: None
        try:
            yield
        finally:
            self.on_result = told

    def count(self, slices: int, what: str) -> None:
        """Report answered slices."""
        self.done += slices
        self.progress(self.done, what)

    def check(self) -> None:
        """Raise Cancelled if the user wants to stop."""
        if self.cancelled():
            raise Cancelled(f"Stopped after {self.done} slices, as asked.")


FAR_TIME = 1 << 20
"""Track time given to the anchor ahead. SAM 2 uses the spatial memory of a later anchor whatever its
distance, and not its pointer; one constant lets intervals of different length share a batch."""

_UNNAMED = count()


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """A prompted slice from which tracks start."""

    slice: int  # slice number
    answer: SliceAnswer  # the object on that slice
    memory: SliceMemory  # what it leaves for the tracks
    # says all that the memory depends on. Default: like no other.
    key: str = field(default_factory=lambda: f"unnamed {next(_UNNAMED)}")
    painted: bool = False  # the annotator drew the object's outline there


@dataclass(slots=True, eq=False)
class Track:
    """One object propagated from one anchor in one direction."""

    crop: CropWindow  # window of the slices
    anchor: Anchor  # where it starts
    stop: int  # the first slice it does not reach; before the anchor on the way down
    ahead: Anchor | None = None  # the anchor it runs towards, if any
    absent_slices: int = 0  # it ends after so many slices in a row without the object; 0 never
    least_iou: float = 0.0  # a mask of which the model expects a lower IoU counts as without the object
    # what the object looks like; a mask that covers something else counts as without the object
    appearance: Appearance | None = None
    object: str = ""  # name of what it follows. Default: its answers are no part of the result, and nobody is told.
    partner: "Track | None" = field(default=None, init=False)
    answers: dict[int, SliceAnswer] = field(default_factory=dict, init=False)
    bank: Bank = field(init=False)
    _absent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        anchors = [(0, self.anchor.memory)]
        if self.ahead is not None:
            anchors.append((FAR_TIME, self.ahead.memory))
        self.bank = Bank(tuple(anchors))

    @property
    def origin(self) -> tuple:
        """Return what its answers depend on, besides the slice."""
        return "track", self.crop, self.anchor.key, self.ahead and self.ahead.key, self.step

    @property
    def step(self) -> int:
        """Return +1 on the way up, -1 on the way down."""
        return 1 if self.stop > self.anchor.slice else -1

    def next_slices(self, count: int) -> range:
        """Return up to ``count`` slice numbers still to come."""
        start = self.anchor.slice + self.step * self.bank.time
        left = max(0, (self.stop - start) * self.step)
        return range(start, start + self.step * min(count, left), self.step)

    @property
    def ended(self) -> bool:
        """Whether the object has come to its end."""
        return self.absent_slices > 0 and self._absent >= self.absent_slices

    @property
    def live(self) -> bool:
        """Whether there is another slice to come."""
        return not self.ended and bool(self.next_slices(1))

    @property
    def stopped(self) -> int | None:
        """Return the last slice that was answered before the object's end; None where it came to its stop."""
        if not self.ended or not self.next_slices(1):
            return None
        return self.anchor.slice + self.step * (self.bank.time - 1)

    def take(self, answer: SliceAnswer, memory: SliceMemory, *, keep: int) -> None:
        """Note the answer for the next slice."""
        number = self.next_slices(1)[0]
        self.answers[number] = answer
        self._absent = 0 if answer.present else self._absent + 1
        self.bank = self.bank.push(memory, keep=keep)


def meet(up: Track, down: Track) -> tuple[Track, Track]:
    """Make two tracks that run towards each other partners: their answers are mixed."""
    up.partner, down.partner = down, up
    return up, down


def propagate(
    tracker: Tracker,
    tracks: Sequence[Track],
    *,
    what: str = "propagating",
    leaves: Callable[[str, CropWindow, SliceAnswer], bool] = lambda name, crop, answer: False,
) -> set[str]:
    """Propagate all tracks to their ends, in step; what was answered before is not asked again.

    Args:
        leaves: whether an object's answer leaves the track's window; then all of the object's tracks end.

    Returns:
        The objects that left their windows.
    """
    keep = tracker.predictor.memory_length
    left: set[str] = set()
    while live := [track for track in tracks if track.live and track.object not in left]:
        numbers = [track.next_slices(1)[0] for track in live]
        for track, number, known in zip(live, numbers, next_answers(tracker, live, numbers), strict=True):
            answer = _judge(tracker, track, number, SliceAnswer.of(known.observation))
            track.take(answer, known.observation.memory, keep=keep)
            _report(tracker, track, number, reused=known.reused)
            if leaves(track.object, track.crop, answer):
                left.add(track.object)
        tracker.count(len(live), what)
    return left


def next_answers(tracker: Tracker, tracks: Sequence[Track], numbers: Sequence[int]) -> list[Known]:
    """Return what the model says on the slice that is next for each track."""

    def ask(missing: list[int]) -> list[Observation]:
        asked = [tracks[n] for n in missing]
        _encode_ahead(tracker, asked)
        embeddings = tracker.embed([(numbers[n], tracks[n].crop) for n in missing])
        hints = [_hint(tracker, tracks[n], numbers[n]) for n in missing]
        biases = [learn_bias(tracker, track.crop, track.anchor) for track in asked]
        banks = [track.bank for track in asked]
        jobs = [TrackJob(*job) for job in zip(embeddings, banks, hints, biases, strict=True)]
        return tracker.predictor.track(jobs, num_slices=tracker.frames.count)

    keys = [(tracker.result_key(*track.origin), number) for track, number in zip(tracks, numbers, strict=True)]
    return tracker.answers(keys, ask)


def learn_prior(tracker: Tracker, crop: CropWindow, anchor: Anchor) -> AppearancePrior | None:
    """Learn from an anchor what the object looks like; None where that is not asked for, or not to be had."""
    if not tracker.uses_prior or not anchor.answer.present:
        return None

    def learn() -> AppearancePrior | None:
        image = tracker.render(anchor.slice, crop)
        mask = resample(anchor.answer.logits, (image.shape[0], image.shape[1])) > 0
        return AppearancePrior.of(image, mask, predicted_iou=anchor.answer.predicted_iou)

    return tracker.result_cache.fact((anchor.key, "prior"), learn)


def _hint(tracker: Tracker, track: Track, number: int) -> NDArray[np.float32] | None:
    learnt = learn_prior(tracker, track.crop, track.anchor)
    return None if learnt is None else learnt.map(tracker.render(number, track.crop))


def learn_bias(tracker: Tracker, crop: CropWindow, anchor: Anchor) -> float:
    """Learn from a painted anchor what the masks of its tracks lack; 0 where that is not asked for or not to be had."""
    size = tracker.predictor.image_size
    if not tracker.options.calibrate or not anchor.painted:
        return 0.0

    def learn() -> float:
        there = Track(crop, anchor, anchor.slice)
        (embedding,) = tracker.embed([(anchor.slice, crop)])
        job = TrackJob(embedding, there.bank, _hint(tracker, there, anchor.slice))
        (own,) = tracker.predictor.track([job], num_slices=tracker.frames.count)
        if not SliceAnswer.of(own).present:
            return 0.0
        return lacking_logit(resample(own.logits, (size, size)), resample(anchor.answer.logits, (size, size)) > 0)

    return tracker.result_cache.fact((anchor.key, "bias"), learn)


def _judge(tracker: Tracker, track: Track, number: int, answer: SliceAnswer) -> SliceAnswer:
    """Mark an answer that the model doubts, or that covers something else than the anchor does."""
    if answer.predicted_iou < track.least_iou:
        return replace(answer, fits=False)
    appearance, share = track.appearance, tracker.options.like_share
    if appearance is None or not answer.present:
        return answer

    def fits() -> bool:
        return appearance.fits(tracker.render(number, track.crop), answer.logits, share=share)

    return replace(
        answer, fits=tracker.result_cache.fact((tracker.result_key(*track.origin), number, "fits", share), fits)
    )


def _report(tracker: Tracker, track: Track, number: int, *, reused: bool) -> None:
    """Report what is known of a slice now."""
    if not track.object:
        return
    other = track.partner.answers.get(number) if track.partner is not None else None
    answer, final = track.answers[number], track.partner is None
    if other is not None:
        near, far = track.anchor.slice, track.stop
        answer, final = mix(answer, other, weight=(number - near) / (far - near)), True
    tracker.on_result(SliceResult(track.object, number, track.crop, answer, reused, final))


def _encode_ahead(tracker: Tracker, live: Sequence[Track]) -> None:
    """Encode the next slices of all tracks in one batch, as soon as one track lacks its next slice."""
    needed = [(n, track.crop) for track in live for n in track.next_slices(1)]
    if all(tracker.key(*place) in tracker.cache for place in needed):
        return
    ahead = [(n, track.crop) for track in live for n in track.next_slices(tracker.look_ahead)]
    tracker.embed(list(dict.fromkeys(ahead)))
