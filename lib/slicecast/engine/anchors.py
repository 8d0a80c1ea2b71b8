"""Turn what the annotator said into anchors: prompted slices whose answer is settled.

A mask is its own answer, once the clicks that dispute it are carried into it, and a box is segmented alone; where
there are only clicks, so is the slice clicked on first.
Clicks on further slices are corrections: the object is tracked to the slice, and its answer there is corrected with the
track's memory, as SAM 2 was trained (Ravi et al., section 5, interactive training). So a slice with only negative
clicks works too, and no correction is ever lost. A line is a click on its middle slice; on the others that it passes it
corrects only what does not cover it.

The window of the slices that the model looks at follows from what the annotator gave; after a click alone, from renders
at several scales (after the automatic zoom of nnInteractive, arXiv 2503.08373, done here in one batch).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.caches import Known, prompt_key
from slicecast.engine.corrections import clicked_logits, decide
from slicecast.engine.crop_window import (
    CropWindow,
    centred_crop,
    crop_of_boxes,
    drawn_box,
    paste,
    points_box,
    resample,
    to_model_prompt,
    touches_border,
    whole_crop,
)
from slicecast.engine.fusion import SliceAnswer
from slicecast.engine.ports import Bank, ModelPrompt, Observation, PromptJob
from slicecast.engine.tracks import Anchor, SliceResult, Track, Tracker, next_answers, propagate
from slicecast.prompts import SlicePrompt, first_clicked

CLICK_SCALES = (1.0, 0.5, 0.25, 0.125)  # Windows tried after clicks alone, as shares of the whole slice

MIN_CLICKED_SIDE_PX = 28
"""No window tried after a click is smaller: the bundled model was trained on windows of 28 native pixels or more. With
less around it, it often takes a part of the object for all of it (hippocampus pool, 32 cases, one click: Dice 0.37 with
windows down to 24 pixels, 0.47 without)."""

FILL_RANGE = (0.01, 0.6)  # Share of a window that an object may fill for the window to suit it


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """An object's window, with what is needed to ask about it."""

    tracker: Tracker
    crop: CropWindow
    object: str

    def settle(self, prompts: Sequence[SlicePrompt]) -> list[Anchor]:
        """Settle slices without memory of others: from what is said first on each; further clicks correct that."""
        tracker = self.tracker
        said = [self.words(p) for p in prompts]
        first = [_first_said(w) if tracker.options.bounded_clicks else w for w in said]

        def ask(missing: list[int]) -> list[Observation]:
            embeddings = tracker.embed([(prompts[n].slice, self.crop) for n in missing])
            jobs = [PromptJob(e, first[n]) for e, n in zip(embeddings, missing, strict=True)]
            return tracker.predictor.prompt(jobs, num_slices=tracker.frames.count)

        keys = [
            tracker.result_key("alone", self.crop, p.slice, prompt_key(w)) for p, w in zip(prompts, first, strict=True)
        ]
        found = zip(prompts, said, first, tracker.answers(keys, ask), keys, strict=True)
        return [self.corrected(p.slice, w, known, key, heeded=len(f.labels)) for p, w, f, known, key in found]

    def words(self, prompt: SlicePrompt) -> ModelPrompt:
        """Say a slice's prompts in model pixels."""
        return to_model_prompt(prompt, self.crop, size=self.tracker.predictor.image_size)

    def corrected(
        self, number: int, words: ModelPrompt, known: Known, key: Hashable, *, heeded: int, bank: Bank | None = None
    ) -> Anchor:
        """Carry out a slice's clicks one after another, each upon the answer to those before; report the last answer.

        Args:
            known: the answer so far.
            key: says all that it depends on.
            heeded: clicks that it heeds already.
            bank: memory of the track that found it.
        """
        bounded, clicks = self.tracker.options.bounded_clicks, len(words.labels)
        for count in range(heeded + 1, clicks + 1) if bounded or heeded == clicks else (clicks,):
            part = _with_clicks(words, count)
            key = self.tracker.result_key("correction", key, number, prompt_key(part), bounded)
            known = self._click_more(number, part, known.observation, key, bank)
        return self.anchor(number, known, str(key))

    def redrawn(
        self, drawn: ModelPrompt, number: int, clicks: ModelPrompt
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return a drawn slice (S, S) as the network sees it, and after clicks; the same where it loses the object."""
        size = self.tracker.predictor.image_size
        before = self._prompted(number, drawn)
        after = self._prompted(number, clicks, previous=before.logits)
        mask = resample(before.logits, (size, size)) > 0
        if not SliceAnswer.of(after).present:
            return mask, mask
        return mask, decide(self.tracker.render(number, self.crop), before.logits, after.logits, clicks)

    def _prompted(self, number: int, words: ModelPrompt, **given: Any) -> Observation:
        tracker = self.tracker
        job = PromptJob(tracker.embed([(number, self.crop)])[0], words, **given)
        return tracker.predictor.prompt([job], num_slices=tracker.frames.count)[0]

    def _click_more(self, number: int, part: ModelPrompt, before: Observation, key: str, bank: Bank | None) -> Known:
        """Ask about one click more; where the network's answer is another one, the image decides what it may change."""
        tracker = self.tracker

        def ask(missing: list[int]) -> list[Observation]:
            after = self._prompted(number, part, bank=bank, previous=before.logits)
            both = SliceAnswer.of(before).present and SliceAnswer.of(after).present
            if not (both and tracker.options.bounded_clicks):
                return [after]
            mask = decide(tracker.render(number, self.crop), before.logits, after.logits, part)
            settled = self._prompted(number, ModelPrompt(part.points_xy[:0], part.labels[:0], mask=mask))
            return [replace(settled, predicted_iou=after.predicted_iou, object_score=after.object_score)]

        return tracker.answers([key], ask)[0]

    def anchor(self, number: int, known: Known, key: str) -> Anchor:
        """Take an answer as settled, and report it."""
        answer = SliceAnswer.of(known.observation, prompted=True)
        self.tracker.on_result(SliceResult(self.object, number, self.crop, answer, known.reused))
        return Anchor(number, answer, known.observation.memory, key)


def find_anchors(
    tracker: Tracker, prompts: Sequence[SlicePrompt], crop: CropWindow, *, object: str = ""
) -> list[Anchor]:
    """Settle all prompted slices of one object, ascending."""
    place = _Place(tracker, crop, object)
    given = [p for p in prompts if not p.absent]
    alone = _stand_alone(given)
    anchors = place.settle(alone)
    tracker.count(len(alone), "reading prompts")
    settled = {p.slice for p in alone}
    corrections = [p for p in given if p.slice not in settled]
    while corrections:
        corrections.sort(key=lambda p: min(abs(p.slice - a.slice) for a in anchors))
        found = _correct(place, corrections.pop(0), anchors)
        if found is not None and not _swells(found, anchors, largest=tracker.options.leap):
            anchors.append(found)
    return sorted(anchors, key=lambda a: a.slice)


def corrected_paintings(tracker: Tracker, prompts: Sequence[SlicePrompt], crop: CropWindow) -> list[SlicePrompt]:
    """Return an object's prompts; where clicks say otherwise than the painting under them, a painting that heeds them.

    It changes where they change the network's answer (`corrections.decide`), and is as it was painted elsewhere.
    """
    return [p if p.mask is None or clicks_agree(p, p.mask) else _corrected(tracker, p, p.mask, crop) for p in prompts]


def clicks_agree(clicks: SlicePrompt, mask: NDArray[np.bool_]) -> bool:
    """Tell whether a mask (H, W) is what the clicks on its slice say."""
    x, y = clicks.points_xy.round().astype(int).T
    return bool((mask[y, x] == (clicks.labels == 1)).all())


def _corrected(tracker: Tracker, prompt: SlicePrompt, painted: NDArray[np.bool_], crop: CropWindow) -> SlicePrompt:
    def work_out() -> NDArray[np.bool_]:
        mask = _repainted(_Place(tracker, crop, ""), prompt, painted)
        radius_px = crop.pixel_radius(tracker.predictor.image_size)
        shape_hw = tracker.frames.shape_hw
        said = clicked_logits(prompt.points_xy, prompt.labels, radius_px=radius_px, shape_hw=shape_hw)
        return np.where(np.isnan(said), mask, said > 0)

    exact = prompt_key(ModelPrompt(prompt.points_xy, prompt.labels, mask=painted))
    key = tracker.result_key("corrected painting", crop, prompt.slice, exact)
    mask = tracker.result_cache.fact(key, work_out, nbytes=painted.nbytes)
    if not mask.any():  # it cannot be clicked away altogether: that a slice does not show the object is another prompt
        return prompt
    return replace(prompt, points_xy=prompt.points_xy[:0], labels=prompt.labels[:0], mask=mask)


def _repainted(place: _Place, prompt: SlicePrompt, painted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Carry clicks into a painted slice, one after another; each only adds, or only takes away, what hangs together."""
    mask, shape_hw = painted, place.tracker.frames.shape_hw
    pixels = prompt.points_xy.round().astype(int).tolist()
    for count, ((x, y), positive) in enumerate(zip(pixels, prompt.labels == 1, strict=True), start=1):
        if mask[y, x] == positive:
            continue
        clicks = replace(prompt, points_xy=prompt.points_xy[:count], labels=prompt.labels[:count], mask=None)
        before, after = place.redrawn(place.words(replace(clicks, mask=mask)), prompt.slice, place.words(clicks))
        changed = (before != after) & (after == positive)
        where = paste(np.where(changed, np.float32(1), np.float32(-1)), place.crop, shape_hw) > 0
        where[y, x] = True
        parts, _ = ndimage.label(where & (mask != positive))
        mask = np.where(parts == parts[y, x], positive, mask)
    return mask


def anchors_alone(
    tracker: Tracker, prompts: Sequence[SlicePrompt], crop: CropWindow, *, object: str = ""
) -> list[Anchor]:
    """Settle each slice that can be segmented from its own prompts, without memory of others."""
    anchors = _Place(tracker, crop, object).settle([p for p in prompts if p.starts])
    tracker.count(len(anchors), "reading prompts")
    return anchors


def _stand_alone(given: Sequence[SlicePrompt]) -> list[SlicePrompt]:
    """Return the slices to segment without memory: masks and boxes; failing those, the one clicked on first."""
    strong = [p for p in given if p.mask is not None or p.box_xyxy is not None]
    return strong or [first_clicked(given)]


def _swells(found: Anchor, anchors: Sequence[Anchor], *, largest: float) -> bool:
    """Tell whether a corrected slice's mask has run into something else: larger by far than on any other anchor.

    Then the clicks hold on their pixels, and no track starts from it. (Decision 24: one such click cost 0.5 Dice.)
    """
    area, *areas = (int((anchor.answer.logits > 0).sum()) for anchor in (found, *anchors))
    return 0 < largest * max(areas) < area


def _correct(place: _Place, prompt: SlicePrompt, anchors: Sequence[Anchor]) -> Anchor | None:
    """Track to a slice and correct what is found; None where there is nothing to correct."""
    tracker, crop = place.tracker, place.crop
    words = place.words(prompt)
    if not len(words.labels):
        return None  # negative clicks beside the window: nothing of the object is there
    nearest = min(anchors, key=lambda a: (abs(a.slice - prompt.slice), a.slice))
    track = Track(crop, nearest, stop=prompt.slice)
    propagate(tracker, [track], what="walking to a correction")
    tracked = next_answers(tracker, [track], [prompt.slice])[0]
    if not SliceAnswer.of(tracked.observation).present:
        return place.settle([prompt])[0] if prompt.starts else None
    if prompt.passed and _covers(tracked.observation.logits, words, size=tracker.predictor.image_size):
        return None
    return place.corrected(prompt.slice, words, tracked, track.origin, heeded=0, bank=track.bank)


def _covers(logits: NDArray[np.float32], words: ModelPrompt, *, size: int) -> bool:
    """Tell whether a mask's logits (m, m) cover all points, which are in pixels of the network's input."""
    x, y = ((words.points_xy + 0.5) * len(logits) / size).astype(int).clip(0, len(logits) - 1).T
    return bool((logits[y, x] > 0).all())


def _first_said(words: ModelPrompt) -> ModelPrompt:
    """Return what is answered at once: a mask or a box, else the clicks up to the first positive one."""
    if words.mask is not None or words.box_xyxy is not None:
        return _with_clicks(words, 0)
    positive = np.flatnonzero(words.labels == 1)
    return _with_clicks(words, int(positive[0]) + 1) if len(positive) else words


def _with_clicks(words: ModelPrompt, count: int) -> ModelPrompt:
    return replace(words, points_xy=words.points_xy[:count], labels=words.labels[:count])


def choose_crop(tracker: Tracker, prompts: Sequence[SlicePrompt], *, zoom: bool) -> CropWindow:
    """Choose one window for all slices of an object; a click that has no room in it widens it."""
    whole = whole_crop(tracker.frames)
    if not zoom:
        return whole
    drawn = sorted((p for p in prompts if drawn_box(p) is not None), key=lambda p: (p.drawn, p.slice))
    boxes = [box for p in drawn if (box := drawn_box(p)) is not None]
    if not boxes:
        found = _box_from_scales(tracker, first_clicked(prompts))
        if found is None:
            return whole
        boxes = [found]
    clicked = sorted((p for p in prompts if (p.labels == 1).any()), key=lambda p: (p.order, p.slice))
    boxes += [points_box(p.points_xy[p.labels == 1]) for p in clicked]
    return crop_of_boxes(tracker.frames, boxes, margin=tracker.options.zoom_margin)


def _box_from_scales(tracker: Tracker, seed: SlicePrompt) -> NDArray[np.floating] | None:
    """Return the object's box (4,) on its clicked slice, from the scale that suits its first click best.

    From the first alone, so that a correction leaves the window where it is, with all that was found in it. (With every
    click of the slice looked at: structures of the sample scans after five clicks 0.64, with the first alone 0.78.)
    """
    first = np.flatnonzero(seed.labels == 1)[:1]
    seed = replace(seed, points_xy=seed.points_xy[first], labels=seed.labels[first])
    centre = tuple(seed.points_xy[0])
    whole = whole_crop(tracker.frames)
    sides = [whole.width * share for share in CLICK_SCALES[1:] if whole.width * share >= MIN_CLICKED_SIDE_PX]
    spacing = tracker.frames.spacing_xy_mm[0]
    crops = [whole, *(centred_crop(tracker.frames, centre, side * spacing) for side in sides)]
    size = tracker.predictor.image_size
    words = [to_model_prompt(seed, crop, size=size) for crop in crops]

    def ask(missing: list[int]) -> list[Observation]:
        embeddings = tracker.embed([(seed.slice, crops[n]) for n in missing])
        jobs = [PromptJob(e, words[n]) for e, n in zip(embeddings, missing, strict=True)]
        return tracker.predictor.prompt(jobs, num_slices=tracker.frames.count)

    # The same key as an anchor's: the answer at the scale that wins may be asked for again.
    keys = [tracker.result_key("alone", crop, seed.slice, prompt_key(w)) for crop, w in zip(crops, words, strict=True)]
    seen = [known.observation for known in tracker.answers(keys, ask)]
    rated = [(_suits(o, crop, tracker.frames.shape_hw), o, crop) for o, crop in zip(seen, crops, strict=True)]
    score, best, crop = max(rated, key=lambda item: item[0])
    return _mask_box(best.logits > 0, crop) if score > 0 else None


def _suits(seen: Observation, crop: CropWindow, shape_hw: tuple[int, int]) -> float:
    """Rate a window by how sure the model is of what it sees in it; 0 where the object does not fit."""
    mask = seen.logits > 0
    share = float(mask.mean())
    answer = SliceAnswer.of(seen)
    if not answer.present or not FILL_RANGE[0] <= share <= FILL_RANGE[1]:
        return 0.0
    if touches_border(crop, mask, shape_hw):
        return 0.0
    return seen.predicted_iou


def _mask_box(mask: NDArray[np.bool_], crop: CropWindow) -> NDArray[np.floating]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cell = np.array([crop.width, crop.height]) / mask.shape[0]
    origin = np.array([crop.x0, crop.y0])
    low = origin + np.array([columns[0], rows[0]]) * cell
    high = origin + np.array([columns[-1] + 1, rows[-1] + 1]) * cell - 1
    return np.concatenate([low, high])
