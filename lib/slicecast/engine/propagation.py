"""From prompts to a segmented volume: the use of all other parts, in order.

1. choose a window for each object (``zoom``), 2. settle the prompted slices (``anchors``), 3. propagate all
tracks together (``tracks``), 4. where the object reached its window's border, widen and propagate again, 5. fuse what
met (``fuse``) and tidy (``postprocess``).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.anchors import anchors_alone, choose_crop, corrected_paintings, find_anchors
from slicecast.engine.appearance import Appearance
from slicecast.engine.caches import prompt_key
from slicecast.engine.crop_window import (
    CropWindow,
    grown,
    said_first,
    to_model_prompt,
    touches_border,
    whole_crop,
)
from slicecast.engine.fusion import SliceAnswer, fuse_tracks
from slicecast.engine.postprocess import ObjectResult, label_slices
from slicecast.engine.taper import room
from slicecast.engine.tracks import Anchor, Track, Tracker, learn_prior, meet, propagate
from slicecast.errors import Cancelled
from slicecast.prompts import SlicePrompt

NARROW_SHARE = 0.75  # Of the next painted area: an object that is hardly narrower on its outermost one may be long

Prompts = Mapping[str, Sequence[SlicePrompt]]  # Each object's prompts by name, one SlicePrompt a slice, ascending


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The result of :func:`segment`."""

    # label slices (H, W) uint8 by slice number, 1.. in the order of the objects; slices not listed are empty.
    labels: Mapping[int, NDArray[np.uint8]]
    objects: Mapping[str, ObjectResult]  # each object's answers
    slices_encoded: int  # slices that had to be encoded
    slices_answered: int  # slices answered, over all objects
    # answers that the model was asked for, those for choosing windows and corrections included
    slices_recomputed: int = 0
    slices_reused: int = 0  # answers known from earlier requests
    partial: bool = False  # the user stopped it; what was done by then is here


def segment(
    tracker: Tracker,
    prompts: Prompts,
    *,
    limits: Mapping[str, tuple[int, int]] | None = None,
    slices_only: bool = False,
) -> Segmentation:
    """Segment all objects; what the tracker's result cache holds is not computed again.

    Args:
        limits: half-open range of slices for each object. Default: all slices.
        slices_only: answer the prompted slices and nothing else.

    Raises:
        Cancelled: the user stopped the work, and wants no partial result.
    """
    if not tracker.options.progressive:  # then no prompt comes after another
        prompts = {name: [replace(prompt, late=False) for prompt in given] for name, given in prompts.items()}
    crops = dict.fromkeys(prompts, whole_crop(tracker.frames))
    with tracker.until_cancelled():
        crops |= {name: choose_crop(tracker, given) for name, given in prompts.items()}
        prompts = {name: corrected_paintings(tracker, given, crops[name]) for name, given in prompts.items()}
    if slices_only:
        results = {n: _result_alone(tracker, n, given, crops[n]) for n, given in prompts.items()}
    else:
        ranges = {n: (limits or {}).get(n, (0, tracker.frames.count)) for n in prompts}
        results = _propagate(_Request(tracker, prompts, ranges), crops)
    return finish(tracker, results)


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """What is asked for."""

    tracker: Tracker
    prompts: Prompts
    ranges: Mapping[str, tuple[int, int]]


def _result_alone(tracker: Tracker, name: str, given: Sequence[SlicePrompt], crop: CropWindow) -> ObjectResult:
    anchors: list[Anchor] = []
    with tracker.until_cancelled():
        anchors = anchors_alone(tracker, given, crop, object=name)
    return ObjectResult(crop, {a.slice: a.answer for a in anchors}, given)


def _propagate(request: _Request, crops: Mapping[str, CropWindow]) -> dict[str, ObjectResult]:
    """Propagate all objects together; those that reached their window's border once more in a wider one."""
    tracker = request.tracker
    results: dict[str, ObjectResult] = {}
    todo = _decided(request, crops)
    rounds_left = {
        n: 0 if _is_corrected(given) else tracker.options.zoom_rounds for n, given in request.prompts.items()
    }
    while todo:
        found, cramped = _propagate_objects(request, todo, may_grow={name for name in todo if rounds_left[name] > 0})
        for name, result in found.items():
            # A second round that was stopped half-way may have come less far than the first one.
            if name not in results or len(result.answers) >= len(results[name].answers) or not tracker.partial:
                results[name] = result
        todo = {} if tracker.partial else {n: grown(todo[n], tracker.frames) for n in todo if n in cramped}
        rounds_left = {name: rounds_left[name] - 1 for name in todo}
    return {name: results[name] for name in request.prompts}


def _is_corrected(given: Sequence[SlicePrompt]) -> bool:
    return len(said_first(given)) < len(given)


def _decided(request: _Request, crops: Mapping[str, CropWindow]) -> dict[str, CropWindow]:
    """Return each object's window, decided by what was said first; a correction's mask never moves it.

    Where there are corrections, a propagation from what was said first says whether the object reaches its border; most
    of that, or all, was asked before. What was said later widens a window only where it has no room.
    """
    tracker, decided = request.tracker, dict(crops)
    with tracker.until_cancelled(), tracker.silent():
        for name, given in request.prompts.items():
            for _ in range(tracker.options.zoom_rounds if _is_corrected(given) else 0):
                if not _reaches_border(request, name, decided[name]):
                    break
                decided[name] = grown(decided[name], tracker.frames)
    return decided


def _reaches_border(request: _Request, name: str, crop: CropWindow) -> bool:
    """Tell whether an object, propagated from what was said first, reaches its window's border."""
    tracker, first = request.tracker, said_first(request.prompts[name])

    def propagate_first() -> bool:
        _, cramped = _propagate_objects(replace(request, prompts={name: first}), {name: crop}, may_grow={name})
        if tracker.partial:
            raise Cancelled("Stopped, as asked.")
        return name in cramped

    said = [(p.slice, prompt_key(to_model_prompt(p, crop, size=tracker.predictor.image_size))) for p in first]
    key = tracker.result_key("reaches border", crop, said, request.ranges[name], tracker.options)
    return tracker.result_cache.fact(key, propagate_first)


def _propagate_objects(
    request: _Request, crops: Mapping[str, CropWindow], *, may_grow: Collection[str]
) -> tuple[dict[str, ObjectResult], set[str]]:
    """Propagate objects in their windows; return their results, and which of them ended at their window's border."""
    tracker = request.tracker
    anchors: dict[str, list[Anchor]] = {n: [] for n in crops}
    tracks: dict[str, list[tuple[Track, Track]]] = {n: [] for n in crops}
    cramped: set[str] = set()

    def leaves(name: str, crop: CropWindow, answer: SliceAnswer) -> bool:
        return name in may_grow and answer.present and touches_border(crop, answer.logits > 0, tracker.frames.shape_hw)

    with tracker.until_cancelled():
        for name, crop in crops.items():
            anchors[name] = find_anchors(tracker, request.prompts[name], crop, object=name)
            if any(leaves(name, crop, anchor.answer) for anchor in anchors[name]):
                cramped.add(name)
            else:
                tracks[name] = _plan(request, name, crop, anchors[name])
        cramped |= propagate(
            tracker, [track for pairs in tracks.values() for pair in pairs for track in pair], leaves=leaves
        )
    return {n: _result(request, n, crop, anchors[n], tracks[n]) for n, crop in crops.items()}, cramped


def _result(
    request: _Request, name: str, crop: CropWindow, anchors: Sequence[Anchor], pairs: Sequence[tuple[Track, Track]]
) -> ObjectResult:
    tracks = [track for pair in pairs for track in pair]
    stopped = sorted(end for track in tracks if (end := track.stopped) is not None)
    learnt = {anchor.slice: learn_prior(request.tracker, crop, anchor) for anchor in anchors}
    up, down = ({number for track in tracks if track.step == step for number in track.answers} for step in (1, -1))
    answers = _bridged(_collect(anchors, pairs), request.prompts[name])
    return ObjectResult(crop, answers, request.prompts[name], up & down, stopped, learnt)


def _plan(request: _Request, name: str, crop: CropWindow, anchors: Sequence[Anchor]) -> list[tuple[Track, Track]]:
    """Return the track pairs (upward, downward) of each interval between neighbouring anchors.

    An object's first track runs down to the range's end and its last one up; an absent slice is a wall.
    """
    tracker, limits = request.tracker, request.ranges[name]
    walls = sorted(p.slice for p in request.prompts[name] if p.absent)
    first, last = anchors[0], anchors[-1]
    areas = {p.slice: int(np.count_nonzero(p.mask)) for p in request.prompts[name] if p.mask is not None}
    below, above = (_room(areas, anchor.slice, taper=tracker.options.taper) for anchor in (first, last))
    down_end = max([limits[0] - 1, first.slice - below - 1, *(w for w in walls if w < first.slice)])
    up_end = min([limits[1], last.slice + above + 1, *(w for w in walls if w > last.slice)])
    outer = (
        _outer_track(tracker, crop, last, stop=int(max(up_end, last.slice))),
        _outer_track(tracker, crop, first, stop=int(min(down_end, first.slice))),
    )
    inner = []
    for low, high in pairwise(anchors):
        between = [w for w in walls if low.slice < w < high.slice]
        ahead = (high, low) if not between else (None, None)
        up = Track(crop, low, min([high.slice, *between]), ahead[0])
        down = Track(crop, high, max([low.slice, *between]), ahead[1])
        inner.append((up, down) if between else meet(up, down))
    pairs = [outer, *inner]
    for track in (track for pair in pairs for track in pair):
        track.object = name
    return pairs


def _room(areas: Mapping[int, int], outermost: int, *, taper: float) -> float:
    """Return for how many slices an object may go on beyond its outermost anchor; infinity where painting does not say.

    Args:
        areas: pixels of each painted slice.
        outermost: slice of the anchor, painted or not.
    """
    others = [number for number, area in areas.items() if area and number != outermost]
    if not areas.get(outermost) or not others:
        return math.inf
    nearest = min(others, key=lambda number: abs(number - outermost))
    if areas[outermost] > NARROW_SHARE * areas[nearest]:
        return math.inf
    widest = max(areas, key=lambda number: areas[number])
    return room(areas[outermost], widest=areas[widest], distance=abs(widest - outermost), taper=taper)


def _outer_track(tracker: Tracker, crop: CropWindow, anchor: Anchor, *, stop: int) -> Track:
    """Return a track that runs away from all anchors, so that only the stop rules end it before ``stop``."""
    options = tracker.options
    appearance = None
    if options.like_share > 0 and stop != anchor.slice:

        def learn() -> Appearance | None:
            return Appearance.of(tracker.render(anchor.slice, crop), anchor.answer.logits)

        appearance = tracker.result_cache.fact((anchor.key, "appearance"), learn)
    gone, doubted = options.gone_slices, options.least_iou
    return Track(crop, anchor, stop, absent_slices=gone, least_iou=doubted, appearance=appearance)


def _collect(anchors: Sequence[Anchor], tracks: Sequence[tuple[Track, Track]]) -> dict[int, SliceAnswer]:
    answers = {a.slice: a.answer for a in anchors}
    if tracks:
        (up, down), *inner = tracks
        answers = {**down.answers, **up.answers, **answers}
        for low_track, high_track in inner:
            low, high = low_track.anchor.slice, high_track.anchor.slice
            answers |= fuse_tracks(low_track.answers, high_track.answers, start=low, stop=high)
    return dict(sorted(answers.items()))


def _bridged(answers: dict[int, SliceAnswer], prompts: Sequence[SlicePrompt]) -> dict[int, SliceAnswer]:
    """Mark the slices that all tracks lost, between two painted ones with no other prompt between."""
    lost = {
        number
        for low, high in pairwise(p for p in prompts if not p.passed)
        if low.mask is not None and high.mask is not None
        for number in range(low.slice + 1, high.slice)
        if number in answers and not answers[number].present
    }
    bridge = {
        n: replace(answers[n], logits=np.zeros_like(answers[n].logits), agreement=0.0, bridged=True) for n in lost
    }
    return answers | bridge


def finish(tracker: Tracker, results: Mapping[str, ObjectResult]) -> Segmentation:
    """Return what was found of all objects, each pixel given to one, with what the tracker has counted so far."""
    return Segmentation(
        labels=label_slices(tracker, results),
        objects=results,
        slices_encoded=tracker.encoded,
        slices_answered=tracker.done,
        slices_recomputed=tracker.recomputed,
        slices_reused=tracker.reused,
        partial=tracker.partial,
    )
