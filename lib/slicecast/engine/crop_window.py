"""Which window of the slice the model looks at: zoom around the object, in plane.

The model's mask has a quarter of its input's resolution, so an object of a few pixels in a large slice
is lost. The window follows from what the annotator gave; after a click alone, from a look at several
scales (after the automatic zoom of nnInteractive, arXiv 2503.08373, done here in one batch).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.caches import prompt_name
from slicecast.engine.frames import Frames, View, centred_view, whole_view
from slicecast.engine.ports import ModelPrompt, Observation, PromptJob
from slicecast.engine.tracker import SliceAnswer, Tracker
from slicecast.prompts import SlicePrompt, first_clicked

CLICK_SCALES = (1.0, 0.5, 0.25, 0.125)
"""Windows tried after clicks alone, as shares of the whole slice."""

MIN_SIDE_PX = 24
"""No window is smaller: there is nothing to see in fewer pixels."""

MIN_CLICKED_SIDE_PX = 28
"""No window tried after a click is smaller: the bundled model was trained on windows of 28 native pixels or more. With
less around it, it often takes a part of the object for all of it (hippocampus pool, 32 cases, one click: Dice 0.37 with
windows down to 24 pixels, 0.47 without)."""

FILL_RANGE = (0.01, 0.6)
"""Share of a window that an object may fill for the window to suit it."""

BORDER_CELLS = 1
"""Mask cells along the window's border that must stay empty."""

GROWTH = 1.5
"""How much a window grows when the object reaches its border."""

ROOM_SHARE = 0.125
"""A window stays as it is for what is said later, if that keeps this share of the side from each border."""


def choose_view(tracker: Tracker, prompts: Sequence[SlicePrompt], *, zoom: bool) -> View:
    """Choose one window for all slices of an object."""
    whole = whole_view(tracker.frames)
    if not zoom:
        return whole
    drawn = sorted((p for p in prompts if _extent(p) is not None), key=lambda p: (p.drawn, p.slice))
    boxes = [box for p in drawn if (box := _extent(p)) is not None]
    if not boxes:
        found = _look_at_scales(tracker, first_clicked(prompts))
        if found is None:
            return whole
        boxes = [found]
    clicked = sorted((p for p in prompts if (p.labels == 1).any()), key=lambda p: (p.order, p.slice))
    boxes += [_points_box(p.points_xy[p.labels == 1]) for p in clicked]
    return _view_of(tracker, boxes)


def said_first(prompts: Sequence[SlicePrompt]) -> Sequence[SlicePrompt]:
    """Return what an object was found from: the slice drawn or boxed first, else the one clicked on first."""
    drawn = sorted((p for p in prompts if _extent(p) is not None), key=lambda p: (p.drawn, p.slice))
    return drawn[:1] or [first_clicked(prompts)]


def _view_of(tracker: Tracker, boxes: Sequence[NDArray[np.floating]]) -> View:
    """Return the window around the first box (4,), wider only for those of the others that have no room in it.

    So a further click leaves the window where it is, and with it all that was found in it.
    """
    margin = tracker.options.zoom_margin
    view = view_around(tracker.frames, np.array(boxes[:1]), margin=margin)
    for count, box in enumerate(boxes, start=1):
        if not _has_room(view, box):
            view = view_around(tracker.frames, np.array(boxes[:count]), margin=margin)
    return view


def _has_room(view: View, box_xyxy: NDArray[np.floating]) -> bool:
    room = View(
        view.x0 + round(view.width * ROOM_SHARE),
        view.y0 + round(view.height * ROOM_SHARE),
        view.width - 2 * round(view.width * ROOM_SHARE),
        view.height - 2 * round(view.height * ROOM_SHARE),
    )
    return room.contains(box_xyxy.reshape(2, 2))


def view_around(frames: Frames, boxes_xyxy: NDArray[np.floating], *, margin: float) -> View:
    """Return the window around boxes (N, 4), ``margin`` times their extent, at most the whole slice."""
    low, high = boxes_xyxy[:, :2].min(axis=0), boxes_xyxy[:, 2:].max(axis=0)
    spacing = np.array(frames.spacing_xy_mm)
    side_mm = max(((high - low + 1) * spacing).max() * margin, MIN_SIDE_PX * spacing.max())
    view = centred_view(frames, tuple((low + high) / 2), side_mm)
    whole = whole_view(frames)
    return view if view.width < whole.width else whole


def touches_border(view: View, answers: Mapping[int, SliceAnswer], shape_hw: tuple[int, int]) -> bool:
    """Tell whether the object reaches the window's border where the slice goes on."""
    open_sides = np.array(view.open_sides(shape_hw))
    return any(answer.present and bool((_rim(answer.logits > 0) & open_sides).any()) for answer in answers.values())


def _rim(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which borders (left, top, right, bottom) a mask reaches."""
    edge = BORDER_CELLS
    return np.array([part.any() for part in (mask[:, :edge], mask[:edge], mask[:, -edge:], mask[-edge:])])


def grown(view: View, frames: Frames) -> View:
    """Return a larger window with the same centre, at most the whole slice."""
    centre = (view.x0 + (view.width - 1) / 2, view.y0 + (view.height - 1) / 2)
    view = centred_view(frames, centre, view.width * frames.spacing_xy_mm[0] * GROWTH)
    whole = whole_view(frames)
    return view if view.width < whole.width else whole


def to_model_prompt(prompt: SlicePrompt, view: View, *, size: int) -> ModelPrompt:
    """Carry a slice's prompts into model pixels; clicks outside the window say nothing there."""
    inside = [n for n, xy in enumerate(prompt.points_xy) if view.contains(xy[None])]
    box = prompt.box_xyxy
    return ModelPrompt(
        points_xy=view.to_model_xy(prompt.points_xy[inside], size=size),
        labels=prompt.labels[inside].astype(np.int32),
        box_xyxy=None if box is None else view.to_model_xy(box.reshape(2, 2), size=size).reshape(4),
    )


def _extent(prompt: SlicePrompt) -> NDArray[np.floating] | None:
    """Return the box (4,) of a painted or boxed object on its slice."""
    if prompt.mask is not None:
        rows, columns = np.flatnonzero(prompt.mask.any(axis=1)), np.flatnonzero(prompt.mask.any(axis=0))
        return np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float64)
    return None if prompt.box_xyxy is None else prompt.box_xyxy.astype(np.float64)


def _points_box(points_xy: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.concatenate([points_xy.min(axis=0), points_xy.max(axis=0)])


def _look_at_scales(tracker: Tracker, seed: SlicePrompt) -> NDArray[np.floating] | None:
    """Return the object's box (4,) on its clicked slice, from the scale that suits its first click best.

    From the first alone, so that a correction leaves the window where it is, with all that was found in it. (With every
    click of the slice looked at: structures of the sample scans after five clicks 0.64, with the first alone 0.78.)
    """
    first = np.flatnonzero(seed.labels == 1)[:1]
    seed = replace(seed, points_xy=seed.points_xy[first], labels=seed.labels[first])
    centre = tuple(seed.points_xy[0])
    whole = whole_view(tracker.frames)
    sides = [whole.width * share for share in CLICK_SCALES[1:] if whole.width * share >= MIN_CLICKED_SIDE_PX]
    spacing = tracker.frames.spacing_xy_mm[0]
    views = [whole, *(centred_view(tracker.frames, centre, side * spacing) for side in sides)]
    size = tracker.predictor.image_size
    words = [to_model_prompt(seed, view, size=size) for view in views]

    def ask(missing: list[int]) -> list[Observation]:
        embeddings = tracker.embed([(seed.slice, views[n]) for n in missing])
        jobs = [PromptJob(e, words[n]) for e, n in zip(embeddings, missing, strict=True)]
        return tracker.predictor.prompt(jobs, num_slices=tracker.frames.count)

    # The same name as an anchor's: the answer at the scale that wins may be asked for again.
    names = [tracker.name("alone", view, seed.slice, prompt_name(w)) for view, w in zip(views, words, strict=True)]
    seen = [known.observation for known in tracker.answers(names, ask)]
    rated = [(_suits(o, view, tracker.frames.shape_hw), o, view) for o, view in zip(seen, views, strict=True)]
    score, best, view = max(rated, key=lambda item: item[0])
    return _mask_box(best.logits > 0, view) if score > 0 else None


def _suits(seen: Observation, view: View, shape_hw: tuple[int, int]) -> float:
    """Rate a window by how sure the model is of what it sees in it; 0 where the object does not fit."""
    mask = seen.logits > 0
    share = float(mask.mean())
    answer = SliceAnswer.of(seen)
    if not answer.present or not FILL_RANGE[0] <= share <= FILL_RANGE[1]:
        return 0.0
    if touches_border(view, {0: answer}, shape_hw):
        return 0.0
    return seen.predicted_iou


def _mask_box(mask: NDArray[np.bool_], view: View) -> NDArray[np.floating]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cell = np.array([view.width, view.height]) / mask.shape[0]
    origin = np.array([view.x0, view.y0])
    low = origin + np.array([columns[0], rows[0]]) * cell
    high = origin + np.array([columns[-1] + 1, rows[-1] + 1]) * cell - 1
    return np.concatenate([low, high])
