"""Augmentation passes: five propagations from one automatic prompt. Where they differ, the model is unsure.

| pass | propagates |
|---|---|
| forward | from the lowest prompted slice alone |
| backward | from the highest one alone |
| jittered | from all of them, their boxes moved by a few percent |
| mirrored | from the middle one alone, in slices mirrored left to right |
| across | along another axis, from the middle slice of what the jittered pass found |

The first three share their encoded slices and run in one batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.crop_window import Frames
from slicecast.engine.postprocess import ObjectResult, label_slices
from slicecast.engine.propagation import segment
from slicecast.engine.support import box_of, boxed
from slicecast.engine.tracks import Tracker
from slicecast.prompts import SlicePrompt
from slicecast.volume import SliceAxis, SliceStack

Boxes = Mapping[int, NDArray[np.float32]]
"""An object's boxes (4,) xyxy by slice number."""

JITTER = 0.05
"""By how much of its side each edge of a box is moved at most."""


@dataclass(frozen=True, slots=True, eq=False)
class AugmentationPass:
    """One pass's answers about one object.

    Args:
        axis: of its slices.
        track: the answers.
        labels: finished masks (H, W) by slice number.
        mirrored: the slices are mirrored left to right.
    """

    axis: SliceAxis
    track: ObjectResult
    labels: Mapping[int, NDArray[np.uint8]]
    mirrored: bool = False

    def mask(self, shape_kji: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the mask, [k, j, i]."""
        mask = np.zeros(shape_kji, dtype=bool)
        stack = SliceStack(mask, self.axis)
        for number, pixels in self.labels.items():
            stack.slice(number)[...] = pixels[:, ::-1] if self.mirrored else pixels
        return mask


def run_passes(
    tracker: Tracker,
    across: Tracker | None,
    prompts: Mapping[str, Boxes],
    *,
    axes: tuple[SliceAxis, SliceAxis],
    rng: np.random.Generator,
) -> dict[str, dict[str, AugmentationPass]]:
    """Return the passes of each object by name.

    Args:
        tracker: of the volume's slices.
        across: of the same volume's slices along another axis; None for a volume of a single slice.
        prompts: boxes of each object, at least one.
        axes: of the two trackers.
        rng: moves the boxes.

    Raises:
        Cancelled: it is not wanted any more.
    """
    moved = {name: _moved(boxes, tracker.frames, rng) for name, boxes in prompts.items()}
    starts: dict[str, Mapping[str, Boxes]] = {
        "forward": {name: {min(boxes): boxes[min(boxes)]} for name, boxes in prompts.items()},
        "backward": {name: {max(boxes): boxes[max(boxes)]} for name, boxes in prompts.items()},
        "jittered": moved,
    }
    passes = _run(tracker, starts, axis=axes[0])
    mirror = replace_frames(tracker, mirrored(tracker.frames))
    flipped = {name: _flipped(boxes, tracker.frames) for name, boxes in prompts.items()}
    _merge(passes, _run(mirror, {"mirrored": flipped}, axis=axes[0], is_mirrored=True))
    if across is not None:
        _merge(passes, _run(across, {"across": _cuts(passes, tracker.frames, axes)}, axis=axes[1]))
    return passes


def mirrored(frames: Frames) -> Frames:
    """Return the same slices mirrored left to right."""
    return replace(frames, read=lambda number: frames.read(number)[:, ::-1], key=f"{frames.key}/mirrored")


def replace_frames(tracker: Tracker, frames: Frames) -> Tracker:
    """Return a tracker like this one, of other slices."""
    return Tracker(tracker.predictor, frames, tracker.cache, tracker.options, cancelled=tracker.cancelled)


def _run(
    tracker: Tracker, starts: Mapping[str, Mapping[str, Boxes]], *, axis: SliceAxis, is_mirrored: bool = False
) -> dict[str, dict[str, AugmentationPass]]:
    """Run several passes of several objects in one batch."""
    asked = {(which, name): boxes for which, given in starts.items() for name, boxes in given.items() if boxes}
    if not asked:
        return {}
    names = {f"{n}": key for n, key in enumerate(asked)}
    found = segment(tracker, {n: _prompts(asked[key]) for n, key in names.items()})
    passes: dict[str, dict[str, AugmentationPass]] = {}
    for n, (which, name) in names.items():
        track = found.objects[n]
        labels = label_slices(tracker, {n: track})
        passes.setdefault(name, {})[which] = AugmentationPass(axis, track, labels, is_mirrored)
    return passes


def _prompts(boxes: Boxes) -> list[SlicePrompt]:
    return [boxed(number, boxes[number]) for number in sorted(boxes)]


def _merge(passes: dict[str, dict[str, AugmentationPass]], more: Mapping[str, Mapping[str, AugmentationPass]]) -> None:
    for name, found in more.items():
        passes[name] |= found


def _moved(boxes: Boxes, frames: Frames, rng: np.random.Generator) -> Boxes:
    """Move each edge by chance; a box stays a box, within the slice."""
    limit = np.array([frames.shape_hw[1], frames.shape_hw[0]] * 2, dtype=np.float64) - 1
    found = {}
    for number in sorted(boxes):
        side = np.tile(boxes[number][2:] - boxes[number][:2], 2)
        found[number] = np.clip(boxes[number] + side * rng.uniform(-JITTER, JITTER, 4), 0, limit).astype(np.float32)
    return found


def _flipped(boxes: Boxes, frames: Frames) -> Boxes:
    last, middle = frames.shape_hw[1] - 1, sorted(boxes)[len(boxes) // 2]
    x0, y0, x1, y1 = boxes[middle]
    return {middle: np.array([last - x1, y0, last - x0, y1], np.float32)}


def _cuts(
    passes: Mapping[str, Mapping[str, AugmentationPass]], frames: Frames, axes: tuple[SliceAxis, SliceAxis]
) -> dict[str, Boxes]:
    """Return a box of each object on a slice along the second axis, as the jittered pass has it."""
    slice_, *plane = (int(axis) for axis in (axes[0], *axes[0].in_plane))
    size = {slice_: frames.count, plane[0]: frames.shape_hw[1], plane[1]: frames.shape_hw[0]}
    shape_kji = (size[2], size[1], size[0])
    return {name: _cut(own["jittered"].mask(shape_kji), axes[1]) for name, own in passes.items()}


def _cut(mask: NDArray[np.bool_], axis: SliceAxis) -> Boxes:
    stack = SliceStack(mask, axis)
    shown = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != 2 - axis)))
    numbers = [int(shown[len(shown) // 2])] if len(shown) else []
    return {number: box_of(stack.slice(number)) for number in numbers}


def object_scores(passes: Mapping[str, AugmentationPass]) -> NDArray[np.float64]:
    """Return the object scores of all slices that any pass reached without a prompt, (Z,) logits."""
    answers = chain.from_iterable(one.track.answers.values() for one in passes.values())
    return np.array([answer.object_score for answer in answers if not answer.prompted], dtype=np.float64)


def region(masks: Sequence[NDArray[np.bool_]]) -> tuple[slice, ...]:
    """Return the part of a volume [k, j, i] that holds all masks; everything where all are empty."""
    union = np.logical_or.reduce(masks)
    shown = [np.flatnonzero(union.any(axis=tuple(m for m in range(3) if m != n))) for n in range(3)]
    return tuple(slice(int(n[0]), int(n[-1]) + 1) if len(n) else slice(None) for n in shown)
