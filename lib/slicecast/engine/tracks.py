"""Lanes: one object walking from one anchor in one direction, with its own memory.

All live lanes of a request step together as one batch: both directions, all objects, all intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.appearance import Appearance
from slicecast.engine.caches import Known
from slicecast.engine.evidence import GreyEvidence
from slicecast.engine.frames import View, resample
from slicecast.engine.fusion import mix
from slicecast.engine.ports import Bank, Observation, SliceMemory, TrackJob
from slicecast.engine.tracker import SliceAnswer, Told, Tracker

FAR_TIME = 1 << 20
"""Lane time given to the anchor ahead. SAM 2 uses the spatial memory of a later anchor whatever its
distance, and not its pointer; one constant lets intervals of different length share a batch."""

_UNNAMED = count()


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """A prompted slice from which lanes start.

    Args:
        slice: slice number.
        answer: the object on that slice.
        memory: what it leaves for the lanes.
        name: says all that the memory depends on. Default: like no other.
    """

    slice: int
    answer: SliceAnswer
    memory: SliceMemory
    name: str = field(default_factory=lambda: f"unnamed {next(_UNNAMED)}")


@dataclass(slots=True, eq=False)
class Lane:
    """One walk.

    Args:
        view: window of the slices.
        anchor: where it starts.
        stop: the first slice it does not walk to; before the anchor when walking down.
        ahead: the anchor it walks towards, if any.
        gone_slices: it ends after so many slices in a row without the object; 0 never.
        appearance: what the object looks like; a mask that covers something else counts as without the object.
        object: name of what it follows. Default: its answers are no part of the result, and nobody is told.
    """

    view: View
    anchor: Anchor
    stop: int
    ahead: Anchor | None = None
    gone_slices: int = 0
    appearance: Appearance | None = None
    object: str = ""
    partner: "Lane | None" = field(default=None, init=False)
    answers: dict[int, SliceAnswer] = field(default_factory=dict, init=False)
    bank: Bank = field(init=False)
    _gone: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        anchors = [(0, self.anchor.memory)]
        if self.ahead is not None:
            anchors.append((FAR_TIME, self.ahead.memory))
        self.bank = Bank(tuple(anchors))

    @property
    def origin(self) -> tuple:
        """Return what its answers depend on, besides the slice."""
        return "lane", self.view, self.anchor.name, self.ahead and self.ahead.name, self.step

    @property
    def step(self) -> int:
        """Return +1 when walking up, -1 when walking down."""
        return 1 if self.stop > self.anchor.slice else -1

    def next_slices(self, count: int) -> range:
        """Return up to ``count`` slice numbers still to walk."""
        start = self.anchor.slice + self.step * self.bank.time
        left = max(0, (self.stop - start) * self.step)
        return range(start, start + self.step * min(count, left), self.step)

    @property
    def lost(self) -> bool:
        """Whether the object is gone for good."""
        return self.gone_slices > 0 and self._gone >= self.gone_slices

    @property
    def live(self) -> bool:
        """Whether there is another slice to walk to."""
        return not self.lost and bool(self.next_slices(1))

    @property
    def stopped(self) -> int | None:
        """Return the last slice that was answered before the object was gone; None where it came to its stop."""
        if not self.lost or not self.next_slices(1):
            return None
        return self.anchor.slice + self.step * (self.bank.time - 1)

    def take(self, answer: SliceAnswer, memory: SliceMemory, *, keep: int) -> None:
        """Note the answer for the next slice."""
        number = self.next_slices(1)[0]
        self.answers[number] = answer
        self._gone = 0 if answer.present else self._gone + 1
        self.bank = self.bank.push(memory, keep=keep)


def meet(up: Lane, down: Lane) -> tuple[Lane, Lane]:
    """Make two lanes that walk towards each other partners: their answers are mixed."""
    up.partner, down.partner = down, up
    return up, down


def walk(
    tracker: Tracker,
    lanes: Sequence[Lane],
    *,
    what: str = "propagating",
    leaves: Callable[[str, View, SliceAnswer], bool] = lambda name, view, answer: False,
) -> set[str]:
    """Walk all lanes to their ends, in step; what was walked before is not walked again.

    Args:
        leaves: whether an object's answer leaves the lane's window; then all of the object's lanes end.

    Returns:
        The objects that left their windows.
    """
    keep = tracker.predictor.memory_length
    left: set[str] = set()
    while live := [lane for lane in lanes if lane.live and lane.object not in left]:
        numbers = [lane.next_slices(1)[0] for lane in live]
        for lane, number, known in zip(live, numbers, next_answers(tracker, live, numbers), strict=True):
            answer = _judge(tracker, lane, number, SliceAnswer.of(known.observation))
            lane.take(answer, known.observation.memory, keep=keep)
            _tell(tracker, lane, number, reused=known.reused)
            if leaves(lane.object, lane.view, answer):
                left.add(lane.object)
        tracker.count(len(live), what)
    return left


def next_answers(tracker: Tracker, lanes: Sequence[Lane], numbers: Sequence[int]) -> list[Known]:
    """Return what the model says on the slice that is next for each lane."""

    def ask(missing: list[int]) -> list[Observation]:
        asked = [lanes[n] for n in missing]
        _encode_ahead(tracker, asked)
        embeddings = tracker.embed([(numbers[n], lanes[n].view) for n in missing])
        hints = [_hint(tracker, lanes[n], numbers[n]) for n in missing]
        jobs = [TrackJob(e, lane.bank, hint) for e, lane, hint in zip(embeddings, asked, hints, strict=True)]
        return tracker.predictor.track(jobs, num_slices=tracker.frames.count)

    keys = [(tracker.name(*lane.origin), number) for lane, number in zip(lanes, numbers, strict=True)]
    return tracker.answers(keys, ask)


def learn_evidence(tracker: Tracker, view: View, anchor: Anchor) -> GreyEvidence | None:
    """Learn from an anchor what the object looks like; None where that is not asked for, or not to be had."""
    if not tracker.hears_evidence or not anchor.answer.present:
        return None

    def learn() -> GreyEvidence | None:
        image = tracker.look(anchor.slice, view)
        mask = resample(anchor.answer.logits, (image.shape[0], image.shape[1])) > 0
        return GreyEvidence.of(image, mask, predicted_iou=anchor.answer.predicted_iou)

    return tracker.memo.fact((anchor.name, "evidence"), learn)


def _hint(tracker: Tracker, lane: Lane, number: int) -> NDArray[np.float32] | None:
    learnt = learn_evidence(tracker, lane.view, lane.anchor)
    return None if learnt is None else learnt.map(tracker.look(number, lane.view))


def _judge(tracker: Tracker, lane: Lane, number: int, answer: SliceAnswer) -> SliceAnswer:
    """Mark an answer that covers something else than the anchor does."""
    look, share = lane.appearance, tracker.options.like_share
    if look is None or not answer.present:
        return answer

    def fits() -> bool:
        return look.fits(tracker.look(number, lane.view), answer.logits, share=share)

    if _leaps(lane, answer, largest=tracker.options.leap):
        return replace(answer, fits=False)
    return replace(answer, fits=tracker.memo.fact((tracker.name(*lane.origin), number, "fits", share), fits))


def _leaps(lane: Lane, answer: SliceAnswer, *, largest: float) -> bool:
    """Tell whether a mask has suddenly become larger than the last one, and larger than on the anchor."""
    before = next((a for a in reversed(lane.answers.values()) if a.present), lane.anchor.answer)
    area, last, first = ((a.logits > 0).sum() for a in (answer, before, lane.anchor.answer))
    return bool(0 < largest * last < area and area > first)


def _tell(tracker: Tracker, lane: Lane, number: int, *, reused: bool) -> None:
    """Report what is known of a slice now."""
    if not lane.object:
        return
    other = lane.partner.answers.get(number) if lane.partner is not None else None
    answer, final = lane.answers[number], lane.partner is None
    if other is not None:
        near, far = lane.anchor.slice, lane.stop
        answer, final = mix(answer, other, weight=(number - near) / (far - near)), True
    tracker.on_answer(Told(lane.object, number, lane.view, answer, reused, final))


def _encode_ahead(tracker: Tracker, live: Sequence[Lane]) -> None:
    """Encode the next slices of all lanes in one batch, as soon as one lane lacks its next slice."""
    needed = [(n, lane.view) for lane in live for n in lane.next_slices(1)]
    if all(tracker.key(*place) in tracker.cache for place in needed):
        return
    ahead = [(n, lane.view) for lane in live for n in lane.next_slices(tracker.look_ahead)]
    tracker.embed(list(dict.fromkeys(ahead)))
