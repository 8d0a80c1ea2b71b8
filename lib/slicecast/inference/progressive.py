"""Answer an object's clicks and later paintings one after another, each upon the answer to those before.

What a step may change is said by `engine/progressive`. Who asks after every step, as viewers and sessions do, finds the
answer before it in the result cache. Who sends many clicks at once waits for as many propagations, of which most tracks
are shared.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicecast.engine import propagation
from slicecast.engine.caches import SMALL_BYTES, prompt_key
from slicecast.engine.ports import ModelPrompt
from slicecast.engine.postprocess import ObjectResult
from slicecast.engine.progressive import Click, ObjectVolume, click_merged, painting_merged, volume_of
from slicecast.engine.propagation import Segmentation
from slicecast.engine.tracks import Tracker
from slicecast.errors import PromptError
from slicecast.prompts import ObjectPrompts, Point, PromptSet, SlicePrompt, painted_slices, place
from slicecast.volume import Reorientation, SliceAxis

Labels = Mapping[int, NDArray[np.uint8]]
Placed = tuple[Mapping[str, tuple[SlicePrompt, ...]], Mapping[str, tuple[int, int]]]  # Prompts, and ranges


def step_by_step(
    found: Segmentation,
    asked: PromptSet,
    tracker: Tracker,
    turn: Reorientation,
    axis: SliceAxis,
    *,
    within: tuple[int, int] | None,
) -> Segmentation:
    """Return an answer in which each step changed only what it may; as it was where it is stopped.

    Args:
        found: the answer to all prompts at once.
        asked: the request's prompts; the clicks and masks of an object in the order in which they were given.
        within: half-open range of slices of the request, counted as stored.

    Raises:
        Cancelled: the user stopped it, and wants no partial result.
    """
    steps = _Steps(tracker, turn, axis, within)
    labels = found.labels if len(found.objects) == 1 else None
    with tracker.silent():
        objects = {entry.name: steps.merged(entry, found.objects[entry.name], labels) for entry in asked.objects}
    if tracker.partial:
        return replace(found, partial=True)
    if all(objects[name] is result for name, result in found.objects.items()):
        return found  # no object has a further step, so all is labelled already
    return propagation.finish(tracker, objects)


@dataclass(frozen=True, slots=True)
class _Stage:
    """How far an object's prompts had come: its points, and the masks that came after at most so many points."""

    points: int
    painted: int

    @property
    def is_painting(self) -> bool:
        """Whether masks came last, not a click."""
        return self.points == self.painted

    def of(self, entry: ObjectPrompts) -> ObjectPrompts:
        """Return what had been given by then; raises PromptError where the object cannot be found from it."""
        masks = tuple(mask for mask in entry.masks if mask.after <= self.painted)
        return replace(entry, points=entry.points[: self.points], masks=masks)


def _stages(entry: ObjectPrompts) -> Iterator[_Stage]:
    """Yield an object's stages, the first one first; boxes, lines and absent slices are there from the beginning."""
    painted = {mask.after for mask in entry.masks}
    yield _Stage(0, 0)
    for count in range(1, len(entry.points) + 1):
        yield _Stage(count, count - 1)
        if count in painted:
            yield _Stage(count, count)


@dataclass(frozen=True, slots=True)
class _Steps:
    """Where an object's steps are carried out."""

    tracker: Tracker
    turn: Reorientation
    axis: SliceAxis
    within: tuple[int, int] | None

    def merged(self, entry: ObjectPrompts, after: ObjectResult, labels: Labels | None) -> ObjectResult:
        """Return an object's answer to its steps one after another.

        Args:
            after: the answer to all of them at once.
            labels: the label slices that it makes, where they are known.
        """
        tracker, stages = self.tracker, list(_stages(entry))
        said = [self._start_key(entry), *(self._step_key(entry, stage) for stage in stages[1:])]
        keys = [tuple(said[: number + 1]) for number in range(len(stages))]
        known = tracker.result_cache.find(keys)
        result, todo = None, list[tuple[int, Placed | None]]()
        for number in reversed(range(len(stages))):
            result = known.get(keys[number])
            placed = self._placed(entry, stages[number]) if todo and result is None else None
            if result is not None or (todo and placed is None):
                break  # known, or before the object was first found
            todo.append((number, placed))
        for number, placed in reversed(todo):
            made, of_made = (after, labels) if placed is None else self._propagated(entry.name, placed)
            if tracker.partial:
                return after
            if result is not None:
                before, now = volume_of(tracker, result), volume_of(tracker, made, of_made)
                made = self._merged(entry, stages[number], before, now)
            result = tracker.result_cache.keep(keys[number], made, nbytes=_nbytes(made))
        return after if result is None else result

    def _merged(self, entry: ObjectPrompts, stage: _Stage, before: ObjectVolume, now: ObjectVolume) -> ObjectResult:
        if stage.is_painting:
            return painting_merged(self.tracker, before, now, [*self._painted(entry, stage.points)])
        return click_merged(self.tracker, before, now, self._click(entry.points[stage.points - 1]))

    def _painted(self, entry: ObjectPrompts, after: int) -> dict[int, NDArray[np.bool_]]:
        """Return what was painted after so many points, by canonical slice."""
        own = tuple(mask for mask in entry.masks if mask.after == after)
        return painted_slices(replace(entry, masks=own), self.turn, self.axis)

    def _start_key(self, entry: ObjectPrompts) -> str:
        """Return a key of all that was given before the first click, on the canonical grid, as files share it."""
        turn = self.turn
        painted = _digest(self._painted(entry, 0))
        boxes = [np.sort(turn.to_canonical_ijk([b.low_ijk, b.high_ijk]), axis=0).tolist() for b in entry.boxes]
        lines = [turn.to_canonical_ijk(line.vertices).tolist() for line in entry.lines]
        absent = sorted(turn.to_canonical_slice(self.axis, mark.slice) for mark in entry.absent)
        _, limits = place(PromptSet((entry,)), turn, self.axis, within=self.within)
        return self.tracker.result_key(
            "step by step", painted, boxes, lines, absent, limits[entry.name], self.axis, self.tracker.options
        )

    def _step_key(self, entry: ObjectPrompts, stage: _Stage) -> Hashable:
        if stage.is_painting:
            return _digest(self._painted(entry, stage.points))
        return self._click(entry.points[stage.points - 1])

    def _click(self, point: Point) -> Click:
        n, x, y = self.axis.to_slice(self.turn.to_canonical_ijk(point.ijk)).astype(int).tolist()
        return n, x, y, point.positive

    def _placed(self, entry: ObjectPrompts, stage: _Stage) -> Placed | None:
        """Return an object's prompts at a stage; None where it could not be found yet."""
        try:
            return place(PromptSet((stage.of(entry),)), self.turn, self.axis, within=self.within)
        except PromptError:
            return None

    def _propagated(self, name: str, placed: Placed) -> tuple[ObjectResult, Labels]:
        prompts, limits = placed
        found = propagation.segment(self.tracker, prompts, limits=limits)
        return found.objects[name], found.labels


def _digest(painted: Mapping[int, NDArray[np.bool_]]) -> tuple[tuple[int, str], ...]:
    nowhere, unlabelled = np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int32)
    return tuple((n, prompt_key(ModelPrompt(nowhere, unlabelled, mask=mask))) for n, mask in sorted(painted.items()))


def _nbytes(result: ObjectResult) -> int:
    answers = sum(answer.logits.nbytes for answer in result.answers.values())
    return SMALL_BYTES + answers + sum(logits.nbytes for logits in result.fused.values())
