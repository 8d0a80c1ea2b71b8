"""From each object's answers to label slices: who gets a pixel, which parts stay, what is painted stands."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.evidence import GreyEvidence
from slicecast.engine.frames import OUTSIDE_LOGIT, View, paste, resample
from slicecast.engine.fusion import exact_logits, label_slice
from slicecast.engine.postprocess import fill_holes, keep_connected
from slicecast.engine.tracker import SliceAnswer, Tracker
from slicecast.prompts import SlicePrompt


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One object through the volume.

    Args:
        view: window of all its answers.
        answers: by slice number; slices no lane reached are not listed and do not show the object.
        prompts: what it came from.
        met: slices that lanes reached from both sides, so that their answers' agreement says something.
        stopped: the last slice of each lane that ended because the object was gone.
        evidence: what was learnt of its grey values, by prompted slice.
    """

    view: View
    answers: Mapping[int, SliceAnswer]
    prompts: Sequence[SlicePrompt]
    met: Collection[int] = ()
    stopped: Sequence[int] = ()
    evidence: Mapping[int, GreyEvidence | None] = field(default_factory=dict)


def label_slices(tracker: Tracker, tracks: Mapping[str, Track]) -> dict[int, NDArray[np.uint8]]:
    """Return label slices (H, W) uint8 by slice number, tidied; slices not listed are empty."""
    return _tidy(tracker, tracks, _label(tracker, tracks))


def _label(tracker: Tracker, tracks: Mapping[str, Track]) -> dict[int, NDArray[np.uint8]]:
    numbers: set[int] = set()
    for track in tracks.values():
        # A painted object may be too small for the model to see; it is on its slice all the same.
        numbers |= {k for k, answer in track.answers.items() if answer.present} | _painted(track).keys()
    return {k: label_slice([track_logits(tracker, track, k) for track in tracks.values()]) for k in sorted(numbers)}


def track_logits(tracker: Tracker, track: Track, number: int) -> NDArray[np.float32]:
    """Return one object's logits (H, W) on a slice."""
    shape_hw = tracker.frames.shape_hw
    painted, answer = _painted(track).get(number), track.answers.get(number)
    if painted is not None:
        return exact_logits(painted)
    if answer is None or not answer.present:
        return np.full(shape_hw, OUTSIDE_LOGIT, dtype=np.float32)
    return paste(_weighed(tracker, track, number, answer), track.view, shape_hw)


def _weighed(tracker: Tracker, track: Track, number: int, answer: SliceAnswer) -> NDArray[np.float32]:
    """Return a tracked answer's logits with the evidence of the nearest prompted slice; a prompted one's as they are.

    The network's mask has a quarter of its input's resolution; the evidence has all of it. So it draws the outline,
    up to a cell of the network's mask away from it.
    """
    if answer.prompted or not track.evidence:
        return answer.logits
    learnt = track.evidence[min(track.evidence, key=lambda n: (abs(n - number), n))]
    if learnt is None:
        return answer.logits
    image = tracker.look(number, track.view)
    logits = resample(answer.logits, (image.shape[0], image.shape[1]))
    near = ndimage.binary_dilation(logits > 0, iterations=round(image.shape[0] / answer.logits.shape[0]))
    evidence = learnt.map(image)
    return logits + np.where(near, evidence, np.minimum(evidence, 0))


def _tidy(
    tracker: Tracker, tracks: Mapping[str, Track], labels: dict[int, NDArray[np.uint8]]
) -> dict[int, NDArray[np.uint8]]:
    """Drop parts that hang on no prompt and fill small holes; never touch a painted slice."""
    if not labels:
        return labels
    first, stop = min(labels), max(labels) + 1
    shape = tracker.frames.shape_hw
    volume = np.zeros((stop - first, *shape), dtype=np.uint8)
    for number, label in labels.items():
        volume[number - first] = label
    for value, track in enumerate(tracks.values(), start=1):
        _tidy_object(tracker, track, value, volume, first=first)
    return {first + n: label for n, label in enumerate(volume) if label.any()}


def _tidy_object(tracker: Tracker, track: Track, value: int, volume: NDArray[np.uint8], *, first: int) -> None:
    """Tidy one object of a labelled volume in place, inside its window only."""
    window = _window(track.view, tracker.frames.shape_hw)
    part = volume[window]
    mask = part == value
    if tracker.options.keep_components:
        kept = keep_connected(mask, _seeds(track, volume.shape, first=first)[window])
        part[mask & ~kept] = 0
        mask = kept
    painted = _painted(track)
    for n in range(len(mask)):
        if first + n not in painted:
            filled = fill_holes(mask[n], up_to_px=tracker.options.fill_holes_px)
            part[n][filled & (part[n] == 0)] = value


def _seeds(track: Track, shape: tuple[int, ...], *, first: int) -> NDArray[np.bool_]:
    """Mark what the annotator pointed at: painted pixels, the inside of boxes, positive clicks; (N, H, W) bool."""
    seeds = np.zeros(shape, dtype=bool)
    for prompt in track.prompts:
        n = prompt.slice - first
        if not 0 <= n < len(seeds):
            continue
        if prompt.mask is not None:
            seeds[n] |= prompt.mask
        elif prompt.box_xyxy is not None:
            x0, y0, x1, y1 = prompt.box_xyxy.round().astype(int)
            seeds[n, y0 : y1 + 1, x0 : x1 + 1] = True
        x, y = prompt.points_xy[prompt.labels == 1].round().astype(int).T
        seeds[n, y, x] = True
    return seeds


def _window(view: View, shape_hw: tuple[int, int]) -> tuple[slice, slice, slice]:
    rows = slice(max(view.y0, 0), min(view.y0 + view.height, shape_hw[0]))
    columns = slice(max(view.x0, 0), min(view.x0 + view.width, shape_hw[1]))
    return slice(None), rows, columns


def _painted(track: Track) -> dict[int, NDArray[np.bool_]]:
    return {p.slice: p.mask for p in track.prompts if p.mask is not None}
