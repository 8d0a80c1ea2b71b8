"""From prompts to a segmented volume: the use of all other parts, in order.

1. choose a window for each object (``zoom``), 2. settle the prompted slices (``anchors``), 3. walk all lanes
together (``lanes``), 4. where the object reached its window's border, widen and walk again, 5. fuse what
met (``fuse``), tidy (``postprocess``) and say how sure each slice is (``confidence``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.anchors import anchors_alone, find_anchors
from slicecast.engine.appearance import Appearance
from slicecast.engine.confidence import Suggestion, least_sure, slice_confidence, suggest_slice
from slicecast.engine.frames import OUTSIDE_LOGIT, View, paste
from slicecast.engine.fuse import exact_logits, fuse_lanes, label_slice
from slicecast.engine.lanes import Anchor, Lane, walk
from slicecast.engine.postprocess import fill_holes, keep_connected
from slicecast.engine.tracker import SliceAnswer, Tracker
from slicecast.engine.zoom import choose_view, grown, touches_border
from slicecast.prompts import SlicePrompt

Prompts = Mapping[str, Sequence[SlicePrompt]]
"""Each object's prompts by name, one SlicePrompt a slice, ascending."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One object through the volume.

    Args:
        view: window of all its answers.
        answers: by slice number; slices no lane reached are not listed and do not show the object.
        prompts: what it came from.
    """

    view: View
    answers: Mapping[int, SliceAnswer]
    prompts: Sequence[SlicePrompt]


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The result of :func:`segment`.

    Args:
        labels: label slices (H, W) uint8 by slice number, 1.. in the order of the objects; slices not
            listed are empty.
        tracks: each object's answers.
        confidence: lowest confidence of any object, by slice number, for all slices walked.
        suggestion: the slice worth looking at next.
        slices_encoded: slices that had to be encoded.
        slices_walked: slices answered, over all objects.
    """

    labels: Mapping[int, NDArray[np.uint8]]
    tracks: Mapping[str, Track]
    confidence: Mapping[int, float]
    suggestion: Suggestion | None
    slices_encoded: int
    slices_walked: int


def segment(
    tracker: Tracker,
    prompts: Prompts,
    *,
    limits: Mapping[str, tuple[int, int]] | None = None,
    slices_only: bool = False,
) -> Segmentation:
    """Segment all objects.

    Args:
        limits: half-open range of slices for each object. Default: all slices.
        slices_only: answer the prompted slices and nothing else.

    Raises:
        Cancelled: the user stopped the work.
    """
    zoom = tracker.predictor.zoom if tracker.options.zoom == "auto" else tracker.options.zoom == "on"
    views = {name: choose_view(tracker, given, zoom=zoom) for name, given in prompts.items()}
    if slices_only:
        tracks = {n: _track_alone(tracker, given, views[n]) for n, given in prompts.items()}
    else:
        ranges = {n: (limits or {}).get(n, (0, tracker.frames.count)) for n in prompts}
        tracks = _propagate(tracker, prompts, views, ranges)
    return _finish(tracker, tracks)


def _track_alone(tracker: Tracker, given: Sequence[SlicePrompt], view: View) -> Track:
    anchors = anchors_alone(tracker, given, view)
    return Track(view, {a.slice: a.answer for a in anchors}, given)


def _propagate(
    tracker: Tracker, prompts: Prompts, views: Mapping[str, View], ranges: Mapping[str, tuple[int, int]]
) -> dict[str, Track]:
    """Walk all objects together; those that reached their window's border walk again in a wider one."""
    tracks: dict[str, Track] = {}
    todo = dict(views)
    for rounds_left in range(tracker.options.zoom_rounds, -1, -1):
        tracks |= _walk_objects(tracker, prompts, todo, ranges)
        todo = _wider(tracker, {name: tracks[name] for name in todo}) if rounds_left else {}
        if not todo:
            break
    return tracks


def _wider(tracker: Tracker, tracks: Mapping[str, Track]) -> dict[str, View]:
    """Return a wider window for each object that reached the border of its own."""
    shape = tracker.frames.shape_hw
    cramped = {n: t for n, t in tracks.items() if touches_border(t.view, t.answers, shape)}
    return {n: grown(t.view, tracker.frames) for n, t in cramped.items()}


def _walk_objects(
    tracker: Tracker, prompts: Prompts, views: Mapping[str, View], ranges: Mapping[str, tuple[int, int]]
) -> dict[str, Track]:
    anchors = {n: find_anchors(tracker, prompts[n], view) for n, view in views.items()}
    lanes = {n: _plan(tracker, prompts[n], view, anchors[n], ranges[n]) for n, view in views.items()}
    walk(tracker, [lane for pairs in lanes.values() for pair in pairs for lane in pair])
    return {n: Track(view, _collect(anchors[n], lanes[n]), prompts[n]) for n, view in views.items()}


def _plan(
    tracker: Tracker,
    given: Sequence[SlicePrompt],
    view: View,
    anchors: Sequence[Anchor],
    limits: tuple[int, int],
) -> list[tuple[Lane, Lane]]:
    """Return the lane pairs (upward, downward) of each interval between neighbouring anchors.

    An object's first lane walks down to the range's end and its last one up; an absent slice is a wall.
    """
    options = tracker.options
    walls = sorted(p.slice for p in given if p.absent)
    down_end = max([limits[0] - 1, *(w for w in walls if w < anchors[0].slice)])
    up_end = min([limits[1], *(w for w in walls if w > anchors[-1].slice)])
    first, last = anchors[0], anchors[-1]
    outer = (
        _outer_lane(tracker, view, last, stop=max(up_end, last.slice)),
        _outer_lane(tracker, view, first, stop=min(down_end, first.slice)),
    )
    inner = []
    for low, high in pairwise(anchors):
        between = [w for w in walls if low.slice < w < high.slice]
        ahead = (high, low) if options.far_anchor and not between else (None, None)
        up = Lane(view, low, min([high.slice, *between]), ahead[0])
        down = Lane(view, high, max([low.slice, *between]), ahead[1])
        inner.append((up, down))
    return [outer, *inner]


def _outer_lane(tracker: Tracker, view: View, anchor: Anchor, *, stop: int) -> Lane:
    """Return a lane that walks away from all anchors, so that only the stop rules end it before ``stop``."""
    options = tracker.options
    look = options.like_share > 0 and stop != anchor.slice
    appearance = Appearance.of(tracker.look(anchor.slice, view), anchor.answer.logits) if look else None
    return Lane(view, anchor, stop, gone_slices=options.gone_slices, appearance=appearance)


def _collect(anchors: Sequence[Anchor], lanes: Sequence[tuple[Lane, Lane]]) -> dict[int, SliceAnswer]:
    (up, down), *inner = lanes
    answers = {**down.answers, **up.answers, **{a.slice: a.answer for a in anchors}}
    for low_lane, high_lane in inner:
        low, high = low_lane.anchor.slice, high_lane.anchor.slice
        answers |= fuse_lanes(low_lane.answers, high_lane.answers, start=low, stop=high)
    return dict(sorted(answers.items()))


def _finish(tracker: Tracker, tracks: Mapping[str, Track]) -> Segmentation:
    confidence: dict[int, float] = {}
    for track in tracks.values():
        for number, answer in track.answers.items():
            confidence[number] = min(confidence.get(number, 1.0), slice_confidence(answer))
    return Segmentation(
        labels=_tidy(tracker, tracks, _label(tracker, tracks)),
        tracks=tracks,
        confidence=dict(sorted(confidence.items())),
        suggestion=least_sure(suggest_slice(n, t.answers) for n, t in tracks.items()),
        slices_encoded=tracker.encoded,
        slices_walked=tracker.done,
    )


def _label(tracker: Tracker, tracks: Mapping[str, Track]) -> dict[int, NDArray[np.uint8]]:
    shape = tracker.frames.shape_hw
    numbers: set[int] = set()
    for track in tracks.values():
        # A painted object may be too small for the model to see; it is on its slice all the same.
        numbers |= {k for k, answer in track.answers.items() if answer.present} | _painted(track).keys()
    return {k: label_slice([_logits(track, k, shape) for track in tracks.values()]) for k in sorted(numbers)}


def _logits(track: Track, number: int, shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Return one object's logits (H, W) on a slice."""
    painted, answer = _painted(track).get(number), track.answers.get(number)
    if painted is not None:
        return exact_logits(painted)
    if answer is None or not answer.present:
        return np.full(shape_hw, OUTSIDE_LOGIT, dtype=np.float32)
    return paste(answer.logits, track.view, shape_hw)


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
