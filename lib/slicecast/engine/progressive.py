"""Let a click change only what hangs together with it, and a painting what is nearest to it, in the whole volume.

Asked with one prompt more, tracks start anew, and far from it an object may be lost or run into something else. So the
answer before it stands, but for what a positive click adds or a negative one takes away, connected with the click, on
slices to which no other prompted slice is nearer. This is the progressive merge of FocalClick (Chen et al., CVPR 2022,
section 3.3), in three dimensions. A slice painted after clicks changes all slices to which no other is nearer; one that
was painted as it had been found, as an accepted one is, changes nothing.

What a click changes on its own slice also says how far it is to be trusted elsewhere: a change much larger than the
click's distance from the outline stays there, and a small addition does not move the object's ends. Neither does
painting a slice that was nearly right. Past its ends an object goes on only as far as it tapers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.fusion import dice
from slicecast.engine.postprocess import CONNECTED_26, ObjectResult, extent, label_slices, object_logits
from slicecast.engine.taper import room
from slicecast.engine.tracks import Tracker

Click = tuple[int, int, int, bool]  # Slice, x, y, and whether the object is there

MOST_DISCS = 4.0  # Discs from the click to the outline: adding so much, or emptying so large a slice, is not meant
LEAST_SHARE = 0.2  # How much of the clicked slice must be new for the object to go on past its ends
MOST_WIDER = 2.0  # Times the area of the object's end: a click past it that adds so much is not meant either
RIGHT_DICE = 0.7  # Painted slices that were right to this or more do not move the object's ends
LEAST_LOGIT = np.float32(1e-3)  # A logit whose sign is decided by the merge is at least so far from 0


@dataclass(frozen=True, slots=True, eq=False)
class ObjectVolume:
    """One object through the volume, and its mask."""

    result: ObjectResult
    mask: NDArray[np.bool_]  # (N, H, W), as it is without other objects


def volume_of(
    tracker: Tracker, result: ObjectResult, labels: Mapping[int, NDArray[np.uint8]] | None = None
) -> ObjectVolume:
    """Return an object's answers with the mask that they make.

    Args:
        labels: the label slices of this object alone, where they are known.
    """
    mask = np.zeros((tracker.frames.count, *tracker.frames.shape_hw), dtype=np.bool_)
    for number, label in (label_slices(tracker, {"": result}) if labels is None else labels).items():
        mask[number] = label != 0
    return ObjectVolume(result, mask)


def click_merged(tracker: Tracker, before: ObjectVolume, after: ObjectVolume, click: Click) -> ObjectResult:
    """Return the answer to all prompts, in which the last click changed only what hangs together with it.

    Where the click's pixel was right before, the changes that touch its slice count as its own.

    Args:
        before: the answer to all prompts but the last click, itself merged.
        after: the answer to all prompts.
        click: the last click.
    """
    taper = tracker.options.taper
    kept = changed_by(click, before.mask, after.mask, prompted=_prompted(after), taper=taper)
    return _merged(tracker, before, after, before.mask | kept if click[3] else before.mask & ~kept)


def painting_merged(
    tracker: Tracker, before: ObjectVolume, after: ObjectVolume, painted: Sequence[int]
) -> ObjectResult:
    """Return the answer to all prompts, in which the slices painted last changed only what is nearest to them.

    Slices painted as they were before, such as accepted ones, change nothing.

    Args:
        before: the answer to all prompts but what was painted last, itself merged.
        after: the answer to all prompts.
        painted: the slices that were painted last.
    """
    taper = tracker.options.taper
    near = changed_near(painted, before.mask, after.mask, prompted=_prompted(after), taper=taper)
    return _merged(tracker, before, after, np.where(near[:, None, None], after.mask, before.mask))


def _prompted(volume: ObjectVolume) -> list[int]:
    return [prompt.slice for prompt in volume.result.prompts if not prompt.passed]


def _merged(tracker: Tracker, before: ObjectVolume, after: ObjectVolume, merged: NDArray[np.bool_]) -> ObjectResult:
    """Return the later answers, with the earlier ones and logits where a merged mask (N, H, W) is not theirs.

    A slice that did not change keeps its earlier answer, confidence included. Painted slices are as they are in
    `after`.
    """
    old, new = before.mask, after.mask
    painted = {prompt.slice for prompt in after.result.prompts if prompt.mask is not None}
    was, became = before.result.answers, after.result.answers
    answers, fused = dict(became), dict(after.result.fused)
    for n in sorted({*was, *became, *before.result.fused} - painted):
        if np.array_equal(merged[n], new[n]):
            continue
        untouched = np.array_equal(merged[n], old[n])
        if untouched:
            answers.pop(n, None)
            answers |= {n: was[n]} if n in was else {}
        own, other = (object_logits(tracker, volume.result, n) for volume in (before, after))
        logits = own if untouched else np.where(merged[n] == new[n], other, own)
        fused[n] = np.where(merged[n], np.maximum(logits, LEAST_LOGIT), np.minimum(logits, -LEAST_LOGIT))
    return replace(after.result, answers=dict(sorted(answers.items())), fused=fused)


def changed_near(
    painted: Sequence[int],
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    *,
    prompted: Sequence[int] = (),
    taper: float = 0.0,
) -> NDArray[np.bool_]:
    """Return which slices (N,) may change where slices were painted: those nearest to one that was not painted so yet.

    Args:
        prompted: all slices with prompts.
        taper: as in `EngineOptions`.
    """
    numbers = np.arange(len(before))
    told = [n for n in painted if not np.array_equal(before[n], after[n])]

    def distance(places: Iterable[int]) -> NDArray[np.int64]:
        return np.min([np.abs(numbers - place) for place in places], axis=0, initial=len(before))

    if not told:
        return np.zeros(len(before), dtype=np.bool_)
    near = distance(told) <= distance(set(prompted) - set(told))
    showed, shows = before.any(axis=(1, 2)), after.any(axis=(1, 2))
    if all(dice(before[n], after[n]) >= RIGHT_DICE for n in told):
        near &= showed == shows
    else:
        near &= showed | _slices_in_room(told, before, lambda n: np.count_nonzero(after[n]), taper=taper)
    near[told] = True
    return near


def changed_by(
    click: Click,
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    *,
    prompted: Sequence[int] = (),
    taper: float = 0.0,
) -> NDArray[np.bool_]:
    """Return the voxels (N, H, W) that differ between two masks and that a click is to change.

    Args:
        prompted: all slices with prompts.
        taper: as in `EngineOptions`.
    """
    n, x, y, positive = click
    kept = np.zeros_like(before)
    changed = after & ~before if positive else before & ~after
    numbers = np.arange(len(before))
    for other in prompted:
        changed[np.abs(numbers - other) < np.abs(numbers - n)] = False
    place = extent(changed)
    if place is None:
        return kept
    parts, _ = ndimage.label(changed[place], structure=CONNECTED_26)
    at = tuple(np.subtract((n, y, x), [part.start for part in place]))
    if before[n, y, x] == positive:  # the pixel was right: what changes on its slice is meant
        wanted = np.unique(parts[at[0]]) if 0 <= at[0] < len(parts) else np.zeros(0, dtype=int)
    else:
        inside = all(0 <= index < size for index, size in zip(at, parts.shape, strict=True))
        wanted = np.array([parts[at]] if inside else [], dtype=int)
    kept[place] = np.isin(parts, wanted[wanted > 0])
    if before.any() and before[n, y, x] != positive:
        kept[~_slices_told(click, before, changed=int(kept[n].sum()))] = False
    if positive:
        in_room = _slices_in_room([n], before, lambda m: np.count_nonzero(before[m] | kept[m]), taper=taper)
        kept[~in_room] = False
    return kept


def _slices_told(click: Click, before: NDArray[np.bool_], *, changed: int) -> NDArray[np.bool_]:
    """Return on which slices (N,) a click may mend what was wrong at it, by how many pixels it changed on its own."""
    n, _, _, positive = click
    told = np.zeros(len(before), dtype=np.bool_)
    told[n] = True
    if _runs_away(click, before, changed=changed):
        return told
    own, shown = np.count_nonzero(before[n]), np.flatnonzero(before.any(axis=(1, 2)))
    small = positive and own and changed < LEAST_SHARE * (own + changed)
    told[slice(shown[0], shown[-1] + 1) if small else slice(None)] = True
    return told


def _runs_away(click: Click, before: NDArray[np.bool_], *, changed: int) -> bool:
    """Tell whether a click changed far more on its slice than it can have meant.

    Who clicks in the middle of what is missing, or of what is too much, says by the distance from the outline how large
    that is. Past the object the slice at its end says so, unless the object had fewer pixels in all than were added.
    """
    n, x, y, positive = click
    if not before[n].any():
        shown = np.flatnonzero(before.any(axis=(1, 2)))
        end = shown[np.abs(shown - n).argmin()]
        beside = np.count_nonzero(before[end])
        return bool(abs(end - n) == 1 and MOST_WIDER * beside <= changed < np.count_nonzero(before))
    if not positive and changed < np.count_nonzero(before[n]):
        return False
    distance_px = ndimage.distance_transform_edt(before[n] != positive)[y, x]
    return bool(changed >= MOST_DISCS * np.pi * distance_px**2)


def _slices_in_room(
    numbers: Sequence[int], before: NDArray[np.bool_], area: Callable[[int], int], *, taper: float
) -> NDArray[np.bool_]:
    """Return the slices (N,) to which an object may go on past the ends that it had, or past the slices `numbers`.

    Args:
        area: its pixels on a slice now.
    """
    areas = np.array([np.count_nonzero(mask) for mask in before])
    slices, shown = np.arange(len(before)), np.flatnonzero(areas)
    allowed = np.ones(len(before), dtype=np.bool_)
    if not shown.size:
        return allowed
    widest = int(areas.argmax())
    for step, end in ((-1, shown[0]), (1, shown[-1])):
        last = max([int(end), *numbers], key=lambda number: number * step)
        left = room(area(last), widest=int(areas[widest]), distance=abs(last - widest), taper=taper)
        allowed &= (slices - last) * step <= left
    return allowed
