"""Lanes: one object walking from one anchor in one direction, with its own memory.

All live lanes of a request step together as one batch: both directions, all objects, all intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from slicecast.engine.appearance import Appearance
from slicecast.engine.frames import View
from slicecast.engine.ports import Bank, SliceMemory, TrackJob
from slicecast.engine.tracker import SliceAnswer, Tracker

FAR_TIME = 1 << 20
"""Lane time given to the anchor ahead. SAM 2 uses the spatial memory of a later anchor whatever its
distance, and not its pointer; one constant lets intervals of different length share a batch."""

LOOK_AHEAD = 4
"""Slices of each lane encoded together; what lies beyond an early stop is wasted work."""


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """A prompted slice from which lanes start.

    Args:
        slice: slice number.
        answer: the object on that slice.
        memory: what it leaves for the lanes.
    """

    slice: int
    answer: SliceAnswer
    memory: SliceMemory


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
    """

    view: View
    anchor: Anchor
    stop: int
    ahead: Anchor | None = None
    gone_slices: int = 0
    appearance: Appearance | None = None
    answers: dict[int, SliceAnswer] = field(default_factory=dict, init=False)
    bank: Bank = field(init=False)
    _gone: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        anchors = [(0, self.anchor.memory)]
        if self.ahead is not None:
            anchors.append((FAR_TIME, self.ahead.memory))
        self.bank = Bank(tuple(anchors))

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
    def live(self) -> bool:
        """Whether there is another slice to walk to."""
        lost = self.gone_slices > 0 and self._gone >= self.gone_slices
        return not lost and bool(self.next_slices(1))

    def take(self, answer: SliceAnswer, memory: SliceMemory, *, keep: int) -> None:
        """Note the answer for the next slice."""
        self.answers[self.next_slices(1)[0]] = answer
        self._gone = 0 if answer.present else self._gone + 1
        self.bank = self.bank.push(memory, keep=keep)


def walk(tracker: Tracker, lanes: Sequence[Lane], *, what: str = "propagating") -> None:
    """Walk all lanes to their ends, in step."""
    keep = tracker.predictor.memory_length
    while live := [lane for lane in lanes if lane.live]:
        _encode_ahead(tracker, live)
        embeddings = tracker.embed([(lane.next_slices(1)[0], lane.view) for lane in live])
        jobs = [TrackJob(e, lane.bank) for e, lane in zip(embeddings, live, strict=True)]
        observations = tracker.predictor.track(jobs, num_slices=tracker.frames.count)
        for lane, seen in zip(live, observations, strict=True):
            lane.take(_judge(tracker, lane, SliceAnswer.of(seen)), seen.memory, keep=keep)
        tracker.count(len(live), what)


def _judge(tracker: Tracker, lane: Lane, answer: SliceAnswer) -> SliceAnswer:
    """Mark an answer that covers something else than the anchor does."""
    if lane.appearance is None or not answer.present:
        return answer
    image = tracker.look(lane.next_slices(1)[0], lane.view)
    return replace(answer, fits=lane.appearance.fits(image, answer.logits, share=tracker.options.like_share))


def _encode_ahead(tracker: Tracker, live: Sequence[Lane]) -> None:
    """Encode the next slices of all lanes in one batch, as soon as one lane lacks its next slice."""
    needed = [(lane.next_slices(1)[0], lane.view) for lane in live]
    if all(tracker.key(*place) in tracker.cache for place in needed):
        return
    ahead = [(n, lane.view) for lane in live for n in lane.next_slices(LOOK_AHEAD)]
    tracker.embed(list(dict.fromkeys(ahead)))
