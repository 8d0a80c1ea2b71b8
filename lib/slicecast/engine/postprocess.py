"""Tidy a segmented volume, on the CPU, the same on every machine."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.appearance import Appearance, AppearancePrior
from slicecast.engine.corrections import clicked_logits
from slicecast.engine.crop_window import OUTSIDE_LOGIT, CropWindow, paste, resample
from slicecast.engine.fusion import FUSED_LIMIT, SliceAnswer, exact_logits, interpolate_shape, label_slice
from slicecast.engine.tracks import Tracker
from slicecast.prompts import SlicePrompt

CONNECTED_26 = np.ones((3, 3, 3), dtype=bool)
"""Voxels that touch by a corner belong together: thin structures step diagonally between slices."""


def keep_connected(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the components of a volume that contain a seed; all of them if none does.

    Args:
        mask: (N, H, W) bool.
        seeds: (N, H, W) bool.
    """
    place = extent(mask)
    if place is None:
        return mask
    part = mask[place]
    labels, count = ndimage.label(part, structure=CONNECTED_26)
    wanted = np.zeros(count + 1, dtype=bool)
    wanted[labels[seeds[place] & part]] = True
    if count <= 1 or not wanted.any():
        return mask
    kept = np.zeros_like(mask)
    kept[place] = wanted[labels]
    return kept


def fill_holes(mask: NDArray[np.bool_], *, up_to_px: int) -> NDArray[np.bool_]:
    """Fill holes of a slice (H, W) that are at most ``up_to_px`` pixels large."""
    place = extent(mask) if up_to_px else None
    if place is None:
        return mask
    # What is not mask falls into parts; the one that the frame around it belongs to is the outside.
    parts, count = ndimage.label(np.pad(~mask[place], 1, constant_values=True))
    if count <= 1:
        return mask
    small = np.bincount(parts.ravel()) <= up_to_px
    small[[0, parts[0, 0]]] = False
    filled = mask.copy()
    filled[place] |= small[parts[1:-1, 1:-1]]
    return filled


def extent(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """Return the smallest box of indices that holds a mask of any dimension; None where it is empty."""
    axes = range(mask.ndim)
    lines = (np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes)
    found = [slice(line[0], line[-1] + 1) for line in lines if line.size]
    return tuple(found) or None


@dataclass(frozen=True, slots=True, eq=False)
class ObjectResult:
    """One object through the volume."""

    crop: CropWindow  # window of all its answers
    # by slice number; slices no track reached are not listed and do not show the object
    answers: Mapping[int, SliceAnswer]
    prompts: Sequence[SlicePrompt]  # what it came from
    # slices that tracks reached from both sides, so that their answers' agreement says something
    met: Collection[int] = ()
    stopped: Sequence[int] = ()  # the last slice of each track that ended because the object did
    # what was learnt of its grey values, by prompted slice
    priors: Mapping[int, AppearancePrior | None] = field(default_factory=dict)
    # logits (H, W) of the slices that are not as the answers say: further slice axes were heard, or clicks merged
    fused: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)


def label_slices(tracker: Tracker, results: Mapping[str, ObjectResult]) -> dict[int, NDArray[np.uint8]]:
    """Return label slices (H, W) uint8 by slice number, tidied; slices not listed are empty."""
    return _tidy(tracker, results, _label(tracker, results))


def _label(tracker: Tracker, results: Mapping[str, ObjectResult]) -> dict[int, NDArray[np.uint8]]:
    numbers: set[int] = set()
    for result in results.values():
        # A painted object may be too small for the model to see; it is on its slice all the same.
        numbers |= {k for k, answer in result.answers.items() if answer.present} | _painted(result).keys()
        numbers |= {p.slice for p in result.prompts if (p.labels == 1).any()} | result.fused.keys()
    return {k: label_slice([object_logits(tracker, result, k) for result in results.values()]) for k in sorted(numbers)}


def object_logits(tracker: Tracker, result: ObjectResult, number: int) -> NDArray[np.float32]:
    """Return one object's logits (H, W) on a slice. What was painted or clicked on is as the annotator said."""
    said, logits = _clicked(tracker, result, number), _unclicked_logits(tracker, result, number)
    return logits if said is None else np.where(np.isnan(said), logits, said)


def _clicked(tracker: Tracker, result: ObjectResult, number: int) -> NDArray[np.float32] | None:
    """Return logits (H, W) of what the clicks on a slice settle, NaN elsewhere; None where there are none.

    A click settles its pixel, and as much around it as the model sees as one. Between clicks the nearest counts.
    """
    prompt = next((p for p in result.prompts if p.slice == number and p.mask is None), None)
    if prompt is None or not len(prompt.labels) or not result.answers:  # without answers it was stopped at once
        return None
    radius_px = result.crop.pixel_radius(tracker.predictor.image_size)
    shape_hw = tracker.frames.shape_hw
    return clicked_logits(prompt.points_xy, prompt.labels, radius_px=radius_px, shape_hw=shape_hw)


def _unclicked_logits(tracker: Tracker, result: ObjectResult, number: int) -> NDArray[np.float32]:
    shape_hw = tracker.frames.shape_hw
    painted, answer = _painted(result).get(number), result.answers.get(number)
    if painted is not None:
        return exact_logits(painted)
    if number in result.fused:
        return result.fused[number]
    if answer is None or not answer.present:
        return np.full(shape_hw, OUTSIDE_LOGIT, dtype=np.float32)
    logits = paste(_weighed(tracker, result, number, answer), result.crop, shape_hw)
    prior = None if answer.prompted else _shape_prior(tracker, result, number)
    return logits if prior is None else logits.clip(-FUSED_LIMIT, FUSED_LIMIT) + prior


def _shape_prior(tracker: Tracker, result: ObjectResult, number: int) -> NDArray[np.float32] | None:
    """Return what the painted slices on both sides say of a slice; None where another prompt lies between.

    It says the less, the less the painted shapes are alike, and the less their interpolation covers what they cover.
    """
    painted = _painted(result)
    low = max((n for n in painted if n < number), default=number)
    high = min((n for n in painted if n > number), default=number)
    if not low < number < high or any(low < p.slice < high for p in result.prompts if p.mask is None and not p.passed):
        return None
    spacing_yx = tracker.frames.spacing_xy_mm[::-1]
    weight = (number - low) / (high - low)
    shape = interpolate_shape(painted[low], painted[high], weight=weight, spacing_yx=spacing_yx)
    read = tracker.frames.read
    look = Appearance.of_pixels(np.concatenate([read(n)[painted[n]] for n in (low, high)]))
    trust = min(look.likeness(read(number)[shape.mask]), 1.0) if look and shape.mask.any() else 1.0
    if result.answers[number].bridged:
        trust = float(trust >= tracker.options.like_share)  # it is all that is known there: the whole of it, or nothing
    return shape.logits(slices_away=min(number - low, high - number), trust=trust)


def _weighed(tracker: Tracker, result: ObjectResult, number: int, answer: SliceAnswer) -> NDArray[np.float32]:
    """Return a tracked answer's logits with the prior of the nearest prompted slice; a prompted one's as they are.

    The network's mask has a quarter of its input's resolution; the prior has all of it. So it draws the outline,
    up to a cell of the network's mask away from it.
    """
    if answer.prompted or not result.priors:
        return answer.logits
    learnt = result.priors[min(result.priors, key=lambda n: (abs(n - number), n))]
    if learnt is None:
        return answer.logits
    image = tracker.render(number, result.crop)
    logits = resample(answer.logits, (image.shape[0], image.shape[1]))
    near = ndimage.binary_dilation(logits > 0, iterations=round(image.shape[0] / answer.logits.shape[0]))
    prior = learnt.map(image)
    return logits + np.where(near, prior, np.minimum(prior, 0))


def _tidy(
    tracker: Tracker, results: Mapping[str, ObjectResult], labels: dict[int, NDArray[np.uint8]]
) -> dict[int, NDArray[np.uint8]]:
    """Drop parts that hang on no prompt and fill small holes; never touch a painted slice."""
    if not labels:
        return labels
    first, stop = min(labels), max(labels) + 1
    shape = tracker.frames.shape_hw
    volume = np.zeros((stop - first, *shape), dtype=np.uint8)
    for number, label in labels.items():
        volume[number - first] = label
    for value, result in enumerate(results.values(), start=1):
        _tidy_object(tracker, result, value, volume, first=first)
    return {first + n: label for n, label in enumerate(volume) if label.any()}


def _tidy_object(tracker: Tracker, result: ObjectResult, value: int, volume: NDArray[np.uint8], *, first: int) -> None:
    """Tidy one object of a labelled volume in place, inside its window only."""
    window = _window(result.crop, tracker.frames.shape_hw) if not result.fused else (slice(None),) * 3
    part = volume[window]
    mask = part == value
    if tracker.options.keep_components:
        kept = keep_connected(mask, pointed_at(result.prompts, volume.shape, first=first)[window])
        part[mask & ~kept] = 0
        mask = kept
    painted = _painted(result)
    for n in range(len(mask)):
        if first + n not in painted:
            filled = fill_holes(mask[n], up_to_px=tracker.options.fill_holes_px)
            said = _clicked(tracker, result, first + n)
            denied = np.zeros_like(filled) if said is None else (said < 0)[window[1:]]
            part[n][filled & (part[n] == 0) & ~denied] = value


def pointed_at(prompts: Iterable[SlicePrompt], shape: tuple[int, ...], *, first: int = 0) -> NDArray[np.bool_]:
    """Mark what the annotator pointed at: painted pixels, the inside of boxes, positive clicks.

    Args:
        prompts: of one object.
        shape: (N, H, W).
        first: number of the first of these slices.

    Returns:
        (N, H, W) bool.
    """
    seeds = np.zeros(shape, dtype=bool)
    for prompt in prompts:
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


def _window(crop: CropWindow, shape_hw: tuple[int, int]) -> tuple[slice, slice, slice]:
    rows = slice(max(crop.y0, 0), min(crop.y0 + crop.height, shape_hw[0]))
    columns = slice(max(crop.x0, 0), min(crop.x0 + crop.width, shape_hw[1]))
    return slice(None), rows, columns


def _painted(result: ObjectResult) -> dict[int, NDArray[np.bool_]]:
    return {p.slice: p.mask for p in result.prompts if p.mask is not None}


MAX_EXPONENT = 60.0


def slice_confidence(answer: SliceAnswer) -> float:
    """Return predicted IoU x probability of presence x agreement of the tracks, in [0, 1].

    For a slice without the object it is the probability of absence x agreement.
    """
    presence = probability_of_presence(answer)
    if not answer.present:
        return (1 - presence) * answer.agreement
    return float(np.clip(answer.predicted_iou, 0, 1)) * presence * answer.agreement


def probability_of_presence(answer: SliceAnswer) -> float:
    """Return the model's own probability that the object is on the slice."""
    return 1.0 / (1.0 + math.exp(-max(-MAX_EXPONENT, min(MAX_EXPONENT, answer.object_score))))
