"""Find an object in a volume that nobody has touched, from annotated slices of another one.

A support is such a slice: the model reads its mask once and remembers it. The memory is then put where a track's anchor
would be, and the model is asked for the slice at the same place of the body. Where that is comes from outside, as a
box around the body in each volume: the model's own confidence cannot tell, it is as sure of a wrong slice.
(Support slices as memory: FATE-SAM, arXiv 2501.09138; RevSAM2, arXiv 2409.04298, propagates back as well.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from slicecast.engine.appearance import AppearancePrior
from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.crop_window import (
    CropWindow,
    centred_crop,
    crop_around,
    paste,
    resample,
    to_model_prompt,
    whole_crop,
)
from slicecast.engine.options import EngineOptions
from slicecast.engine.ports import Bank, Observation, PromptJob, SliceMemory, TrackJob
from slicecast.engine.tracks import Tracker
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.studies import Study
from slicecast.labelling.strategies import CACHE_BYTES
from slicecast.prompts import SlicePrompt
from slicecast.volume import SliceAxis, SliceStack, choose_axis
from slicecast.volume.slices import box_of

Extent = NDArray[np.float64]
"""(2, 3): lowest and highest corner of the body as (x, y, slice number), in pixels of a volume's slices."""

BODY_VOXELS = 64  # Voxels per axis to which a scan is thinned out before its body is found
MOST_TIMES = 3.0  # A mask so many times as large or as small as the support's is not the same object


@dataclass(frozen=True, slots=True, eq=False)
class SupportSlice:
    """An annotated slice, remembered.

    Args:
        slice: its number.
        mask: (H, W) bool.
        place: (3,) where the middle of its window lies, as shares of the body's extent.
        side_mm: of its window.
        offset_mm: (4,) from the middle of its window to the box around the object.
        area_mm2: of the object.
        memory: what the model keeps of it.
        priors: what was learnt of its grey values.
    """

    slice: int
    mask: NDArray[np.bool_]
    place: NDArray[np.float64]
    side_mm: float
    offset_mm: NDArray[np.float64]
    area_mm2: float
    memory: SliceMemory
    prior: AppearancePrior | None


@dataclass(frozen=True, slots=True, eq=False)
class SupportMatch:
    """What a support called up in another volume."""

    slice: int  # where it was looked for
    mask: NDArray[np.bool_]  # (H, W) bool; empty where the model says that the object is not there
    expected_xyxy: NDArray[np.float32]  # (4,) the box around the object if it lay here as it does on the support
    likely: bool  # the mask is not empty, and neither much larger nor much smaller than the support's

    @property
    def box_xyxy(self) -> NDArray[np.float32]:
        """The box (4,) around the mask, or the expected one where the mask cannot be the object."""
        return box_of(self.mask) if self.likely else self.expected_xyxy


def read_support(
    tracker: Tracker, masks: Sequence[tuple[int, NDArray[np.bool_]]], extent: Extent, *, margin: float
) -> list[SupportSlice]:
    """Remember annotated slices.

    Args:
        masks: slice numbers and masks (H, W), none of them empty.
        extent: of the body in this volume.
        margin: side of the window over that of the object, as `EngineOptions.zoom_margin`.
    """
    size, frames = tracker.predictor.image_size, tracker.frames
    crops = [_window(tracker, mask, margin=margin) for _, mask in masks]
    embeddings = tracker.embed([(number, crop) for (number, _), crop in zip(masks, crops, strict=True)])
    drawn = [_drawn(number, mask) for number, mask in masks]
    words = [to_model_prompt(prompt, crop, size=size) for prompt, crop in zip(drawn, crops, strict=True)]
    jobs = [PromptJob(e, w) for e, w in zip(embeddings, words, strict=True)]
    seen = tracker.predictor.prompt(jobs, num_slices=frames.count)
    return [
        _support_slice(tracker, number, mask, crop, answer, extent)
        for (number, mask), crop, answer in zip(masks, crops, seen, strict=True)
    ]


def match_support(tracker: Tracker, slices: Sequence[SupportSlice], extent: Extent) -> list[SupportMatch]:
    """Ask the model for each support's object at the same place of this volume; one answer a support, in one batch."""
    places = [_place(tracker, support, extent) for support in slices]
    embeddings = tracker.embed(places)
    hints = [_hint(tracker, support, *place) for support, place in zip(slices, places, strict=True)]
    jobs = [
        TrackJob(e, Bank(((0, support.memory),)), hint)
        for e, support, hint in zip(embeddings, slices, hints, strict=True)
    ]
    seen = tracker.predictor.track(jobs, num_slices=tracker.frames.count)
    return [
        _match(tracker, support, number, _mask(tracker, crop, answer, hint), extent)
        for support, (number, crop), answer, hint in zip(slices, places, seen, hints, strict=True)
    ]


def _drawn(number: int, mask: NDArray[np.bool_]) -> SlicePrompt:
    """Return a painted slice as a prompt."""
    return SlicePrompt(number, np.zeros((0, 2), np.float32), np.zeros(0, np.int32), mask=mask)


def _support_slice(
    tracker: Tracker, number: int, mask: NDArray[np.bool_], crop: CropWindow, answer: Observation, extent: Extent
) -> SupportSlice:
    spacing = np.array(tracker.frames.spacing_xy_mm)
    middle = _middle(crop, number)
    return SupportSlice(
        slice=number,
        mask=mask,
        place=(middle - extent[0]) / _sides(extent),
        side_mm=crop.width * float(spacing[0]),
        offset_mm=(box_of(mask) - np.tile(middle[:2], 2)) * np.tile(spacing, 2),
        area_mm2=float(mask.sum() * spacing.prod()),
        memory=answer.memory,
        prior=_prior(tracker, number, crop, answer),
    )


def _match(
    tracker: Tracker, support: SupportSlice, number: int, mask: NDArray[np.bool_], extent: Extent
) -> SupportMatch:
    spacing, shape_hw = np.array(tracker.frames.spacing_xy_mm), tracker.frames.shape_hw
    share = float(mask.sum() * spacing.prod()) / support.area_mm2
    x, y, _ = extent[0] + support.place * _sides(extent)
    box = np.array([x, y, x, y]) + support.offset_mm / np.tile(spacing, 2)
    inside = np.clip(box, 0, np.array([shape_hw[1], shape_hw[0]] * 2) - 1).astype(np.float32)
    return SupportMatch(number, mask, inside, 1 / MOST_TIMES <= share <= MOST_TIMES)


def _window(tracker: Tracker, mask: NDArray[np.bool_], *, margin: float) -> CropWindow:
    zoom = tracker.predictor.zoom if tracker.options.zoom == "auto" else tracker.options.zoom == "on"
    return crop_around(tracker.frames, box_of(mask)[None], margin=margin) if zoom else whole_crop(tracker.frames)


def _middle(crop: CropWindow, number: int) -> NDArray[np.float64]:
    return np.array([crop.x0 + (crop.width - 1) / 2, crop.y0 + (crop.height - 1) / 2, number])


def _sides(extent: Extent) -> NDArray[np.float64]:
    return np.maximum(extent[1] - extent[0], 1.0)


def _place(tracker: Tracker, support: SupportSlice, extent: Extent) -> tuple[int, CropWindow]:
    """Return the slice and the window at a support's place in this volume."""
    x, y, number = extent[0] + support.place * _sides(extent)
    crop, whole = centred_crop(tracker.frames, (x, y), support.side_mm), whole_crop(tracker.frames)
    return int(np.clip(round(number), 0, tracker.frames.count - 1)), crop if crop.width < whole.width else whole


def _prior(tracker: Tracker, number: int, crop: CropWindow, answer: Observation) -> AppearancePrior | None:
    if not tracker.uses_prior:
        return None
    image = tracker.render(number, crop)
    return AppearancePrior.of(image, resample(answer.logits, (image.shape[0], image.shape[1])) > 0)


def _hint(tracker: Tracker, support: SupportSlice, number: int, crop: CropWindow) -> NDArray[np.float32] | None:
    return None if support.prior is None else support.prior.map(tracker.render(number, crop))


def _mask(
    tracker: Tracker, crop: CropWindow, answer: Observation, hint: NDArray[np.float32] | None
) -> NDArray[np.bool_]:
    if answer.object_score <= 0:
        return np.zeros(tracker.frames.shape_hw, dtype=bool)
    size = tracker.predictor.image_size
    logits = answer.logits if hint is None else resample(answer.logits, (size, size)) + hint
    return paste(logits, crop, tracker.frames.shape_hw) > 0


PAGES = (0.25, 0.5, 0.75)  # Where along an object its support slices lie, as shares of its extent

QUICK = EngineOptions(zoom_rounds=0)


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """A labelled case as the model's memory."""

    study: Study
    slices: Sequence[SupportSlice]  # empty where the label is

    @classmethod
    def learn(cls, predictor: QueuedPredictor, study: Study, label: NDArray[np.bool_]) -> "Support":
        """Turn a labelled case into a support.

        Args:
            label: [k, j, i], canonical, on the scan's grid.
        """
        axis = choose_axis(study.volume.geometry)
        stack = SliceStack(label, axis)
        shown = np.flatnonzero(label.any(axis=tuple(n for n in range(3) if n != 2 - axis)))
        if not len(shown):
            return cls(study, ())
        numbers = sorted({int(shown[round(share * (len(shown) - 1))]) for share in PAGES})
        masks = [(number, np.ascontiguousarray(stack.slice(number))) for number in numbers]
        tracker = _tracker(predictor, study, axis)
        return cls(study, read_support(tracker, masks, extent_of(study, axis), margin=QUICK.zoom_margin))

    def prompt(self, predictor: QueuedPredictor, study: Study) -> Mapping[int, NDArray[np.float32]]:
        """Return boxes (4,) xyxy by slice number of the study.

        Where the model matches nothing of a likely size, the support's own box is used.
        """
        axis = choose_axis(self.study.volume.geometry)
        if not self.slices:
            return {}
        found = match_support(_tracker(predictor, study, axis), self.slices, extent_of(study, axis))
        return {match.slice: match.box_xyxy for match in found}


def _tracker(predictor: QueuedPredictor, study: Study, axis: SliceAxis) -> Tracker:
    frames = study.frames(axis, study.window("auto"))
    return Tracker(predictor, frames, EmbeddingCache(CACHE_BYTES), QUICK)


def extent_of(study: Study, axis: SliceAxis) -> Extent:
    """Return the corners of the body in a volume, (2, 3) voxels: in-plane x and y, slice."""
    array = study.volume.array
    step = [max(1, length // BODY_VOXELS) for length in array.shape]
    coarse = array[:: step[0], :: step[1], :: step[2]]
    bright = coarse > threshold_otsu(coarse) if coarse.min() < coarse.max() else np.ones(coarse.shape, bool)
    parts, _ = ndimage.label(bright)
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    corners = (np.argwhere(parts == largest) * step)[:, ::-1]
    order = [*axis.in_plane, int(axis)]
    return np.stack([corners.min(axis=0), corners.max(axis=0)]).astype(float)[:, order]
