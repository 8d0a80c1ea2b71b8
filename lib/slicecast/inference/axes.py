"""Answer a request along the other two slice axes as well, from clicks that follow from its prompts."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from slicecast.engine import propagation
from slicecast.engine.axes import AxisAnswer, weigh_in
from slicecast.engine.postprocess import ObjectResult
from slicecast.engine.propagation import Segmentation
from slicecast.engine.tracks import Tracker
from slicecast.inference.queue import Priority, current_job
from slicecast.inference.studies import Study
from slicecast.prompts import ObjectPrompts, Point, PromptSet, SlicePrompt, place, slice_to_source_ijk, standing_points
from slicecast.prompts.simulate import deepest_point
from slicecast.volume import SliceAxis, SliceStack, Window

MOST_PAINTED = 1  # An object with more painted slices is left alone: between them their shapes know more


def along_further_axes(
    first: AxisAnswer,
    asked: PromptSet,
    study: Study,
    window: Window,
    *,
    limits: dict[str, tuple[int, int]],
) -> Segmentation:
    """Return the answer along one axis with what the other two have to say; as it was where they cannot be asked.

    Args:
        asked: the request's prompts.
        limits: half-open range of the first axis's slices for each object.

    Raises:
        Cancelled: the user stopped it, and wants no partial result.
    """
    prompts = tuple(_clicks(entry, first, study) for entry in asked.objects)
    known = PromptSet(tuple(entry for entry in prompts if entry is not None)) if any(prompts) else None
    if known is None or min(study.volume.array.shape) == 1:
        return first.found
    current_job().priority = Priority.BACKGROUND  # the first axis has answered; whoever waits for that goes first
    further = [_answer(axis, known, first.tracker, study, window) for axis in SliceAxis if axis != first.stack.axis]
    found = weigh_in(first, [answer for answer in further if not answer.found.partial], limits=limits)
    answers = [answer.found for answer in (first, *further)]
    return replace(
        found,
        partial=any(answer.partial for answer in answers),
        **{count: sum(getattr(answer, count) for answer in answers) for count in COUNTS},
    )


COUNTS = ("slices_encoded", "slices_answered", "slices_recomputed", "slices_reused")


def _answer(axis: SliceAxis, prompts: PromptSet, first: Tracker, study: Study, window: Window) -> AxisAnswer:
    frames = study.frames(axis, window)
    tracker = replace(first, frames=frames, on_result=lambda found: None)
    placed, limits = place(prompts, study.reorientation, axis)
    return AxisAnswer(
        SliceStack(study.volume.array, axis), tracker, propagation.segment(tracker, placed, limits=limits)
    )


def _clicks(entry: ObjectPrompts, first: AxisAnswer, study: Study) -> ObjectPrompts | None:
    """Return what another axis is told of an object; None where nothing can be told that it would need.

    Its clicks, the vertices of its lines, and the innermost pixel of each painted or boxed slice.
    """
    result = first.found.objects[entry.name]
    if sum(p.mask is not None for p in result.prompts) > MOST_PAINTED:
        return None
    vertices = (Point(vertex) for line in entry.lines for vertex in line.vertices)
    inner = (Point(ijk) for ijk in _innermost(entry.name, result, first, study))
    clicks = standing_points(entry, study.reorientation, first.stack.axis)
    points = tuple(dict.fromkeys((*clicks, *vertices, *inner)))
    return ObjectPrompts(entry.name, points=points) if any(point.positive for point in points) else None


def _innermost(name: str, result: ObjectResult, first: AxisAnswer, study: Study) -> Iterator[tuple[int, int, int]]:
    """Yield the voxel, as stored, deepest inside the object on each slice that was painted or boxed."""
    value = [*first.found.objects].index(name) + 1
    for prompt in result.prompts:
        label = first.found.labels.get(prompt.slice)
        if label is None or not _is_drawn(prompt) or not (label == value).any():
            continue
        y, x = deepest_point(label == value)[0]
        i, j, k = slice_to_source_ijk(
            study.reorientation, first.stack.axis, n=prompt.slice, xy=np.array([x, y])
        ).tolist()
        yield i, j, k


def _is_drawn(prompt: SlicePrompt) -> bool:
    return prompt.mask is not None or prompt.box_xyxy is not None
