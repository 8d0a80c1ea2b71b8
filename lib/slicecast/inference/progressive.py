"""Answer an object's clicks one after another, each upon the answer to those before (`engine/progressive`).

Who asks after every click, as viewers and sessions do, finds the answer before it in the result cache. Who sends many
clicks at once waits for as many propagations, of which most tracks are shared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicecast.engine import propagation
from slicecast.engine.caches import SMALL_BYTES, prompt_key
from slicecast.engine.ports import ModelPrompt
from slicecast.engine.postprocess import ObjectResult
from slicecast.engine.progressive import Click, merge, volume_of
from slicecast.engine.propagation import Segmentation
from slicecast.engine.tracks import Tracker
from slicecast.prompts import ObjectPrompts, Point, PromptSet, SlicePrompt, place
from slicecast.volume import Reorientation, SliceAxis

Labels = Mapping[int, NDArray[np.uint8]]


def click_by_click(
    found: Segmentation,
    asked: PromptSet,
    tracker: Tracker,
    turn: Reorientation,
    axis: SliceAxis,
    *,
    within: tuple[int, int] | None,
) -> Segmentation:
    """Return an answer in which each click changed only what hangs together with it; as it was where it is stopped.

    Args:
        found: the answer to all prompts at once.
        asked: the request's prompts; the clicks of an object in the order in which they were made.
        within: half-open range of slices of the request, counted as stored.

    Raises:
        Cancelled: the user stopped it, and wants no partial result.
    """
    clicks = _Clicks(tracker, turn, axis, within)
    labels = found.labels if len(found.objects) == 1 else None
    with tracker.silent():
        objects = {entry.name: clicks.merged(entry, found.objects[entry.name], labels) for entry in asked.objects}
    if tracker.partial:
        return replace(found, partial=True)
    if all(objects[name] is result for name, result in found.objects.items()):
        return found  # no object has a further click, so all is labelled already
    return propagation.finish(tracker, objects)


@dataclass(frozen=True, slots=True)
class _Clicks:
    """Where an object's clicks are carried out."""

    tracker: Tracker
    turn: Reorientation
    axis: SliceAxis
    within: tuple[int, int] | None

    def merged(self, entry: ObjectPrompts, after: ObjectResult, labels: Labels | None) -> ObjectResult:
        """Return an object's answer to its clicks one after another.

        Args:
            after: the answer to all of them at once.
            labels: the label slices that it makes, where they are known.
        """
        tracker, key = self.tracker, self._key(entry)
        todo = list(_backwards(entry, drawn=any(p.mask is not None for p in after.prompts)))
        clicks = [self._click(point) for point in entry.points]
        keys = [(key, *clicks[: len(step.points)]) for step in todo]
        known = tracker.result_cache.find(keys)
        done = next((n for n, asked in enumerate(keys) if asked in known), len(todo))
        if done == 0:
            return known[keys[0]]
        result = known[keys[done]] if done < len(todo) else None
        for step, asked in zip(reversed(todo[:done]), reversed(keys[:done]), strict=True):
            made, of_made = (after, labels) if step is entry else self._propagated(step)
            if tracker.partial:
                return after
            if result is None:
                result = made
            else:
                before, now = volume_of(tracker, result), volume_of(tracker, made, of_made)
                result = merge(tracker, before, now, clicks[len(step.points) - 1])
            tracker.result_cache.keep(asked, result, nbytes=_nbytes(result))
        return after if result is None else result

    def _key(self, entry: ObjectPrompts) -> str:
        """Return a key of all that the answers depend on but the clicks, on the canonical grid, as files share it."""
        prompts, limits = self._placed(entry)
        drawn = [p for p in prompts[entry.name] if p.absent or p.box_xyxy is not None or p.mask is not None]
        words = (ModelPrompt(p.points_xy[:0], p.labels[:0], p.box_xyxy, p.mask) for p in drawn)
        said = [(p.slice, p.absent, prompt_key(w)) for p, w in zip(drawn, words, strict=True)]
        lines = [self.turn.to_canonical_ijk(line.vertices).tolist() for line in entry.lines]
        return self.tracker.result_key(
            "click by click", said, lines, limits[entry.name], self.axis, self.tracker.options
        )

    def _propagated(self, entry: ObjectPrompts) -> tuple[ObjectResult, Labels]:
        prompts, limits = self._placed(entry)
        found = propagation.segment(self.tracker, prompts, limits=limits)
        return found.objects[entry.name], found.labels

    def _click(self, point: Point) -> Click:
        n, x, y = self.axis.to_slice(self.turn.to_canonical_ijk(point.ijk)).astype(int).tolist()
        return n, x, y, point.positive

    def _placed(self, entry: ObjectPrompts) -> tuple[dict[str, tuple[SlicePrompt, ...]], dict[str, tuple[int, int]]]:
        return place(PromptSet((entry,)), self.turn, self.axis, within=self.within)


def _backwards(entry: ObjectPrompts, *, drawn: bool) -> Iterator[ObjectPrompts]:
    """Yield an object's prompts, then what was there before each click, down to what it is first found from.

    Args:
        drawn: a mask shows it somewhere.
    """
    found = drawn or entry.boxes or entry.lines
    first = 0 if found else 1 + next(n for n, point in enumerate(entry.points) if point.positive)
    yield entry
    for count in range(len(entry.points) - 1, first - 1, -1):
        yield replace(entry, points=entry.points[:count])


def _nbytes(result: ObjectResult) -> int:
    answers = sum(answer.logits.nbytes for answer in result.answers.values())
    return SMALL_BYTES + answers + sum(logits.nbytes for logits in result.fused.values())
