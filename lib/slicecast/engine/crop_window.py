"""Slices as a model sees them: a square window of the slice, resampled to S x S.

::

    slice, pixels               crop: x0, y0, width, height (may reach past the slice)
    0 . . . . . . . W           x0 . . . . x0+width
    .   +-----------+---+       edges lie between pixels: pixel i covers [i, i+1)
    .   |  crop     |pad|       model pixel u = (x + 0.5 - x0) * S / width - 0.5
    H   +-----------+---+

A crop is square in millimetres, so anisotropic pixels are not squashed. The model's mask has a quarter of its input's
resolution, so an object of a few pixels in a large slice is lost without a window around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from slicecast.engine.ports import ModelPrompt
from slicecast.prompts import SlicePrompt, found_by_click
from slicecast.volume.slices import box_of

OUTSIDE_LOGIT = -20.0  # Logit of pixels that a crop does not cover
MIN_SIDE_PX = 24  # No window is smaller: there is nothing to see in fewer pixels
BORDER_CELLS = 1  # Mask cells along the window's border that must stay empty
GROWTH = 1.5  # How much a window grows when the object reaches its border

ROOM_SHARE = 0.125
"""A window stays as it is for what is said later, if that keeps this share of the side from each border."""


@dataclass(frozen=True, slots=True, order=True)
class CropWindow:
    """A rectangle of a slice in whole pixels; part of it may lie outside the slice."""

    x0: int  # left edge, pixels
    y0: int  # top edge, pixels
    width: int  # pixels
    height: int  # pixels

    def to_model_xy(self, xy: NDArray[np.floating], *, size: int) -> NDArray[np.float32]:
        """Map slice pixels (N, 2) to model pixels (N, 2) of an input of ``size``."""
        origin = np.array([self.x0, self.y0], dtype=np.float64)
        extent = np.array([self.width, self.height], dtype=np.float64)
        return ((xy + 0.5 - origin) * size / extent - 0.5).astype(np.float32)

    def contains(self, xy: NDArray[np.floating]) -> bool:
        """Tell whether all points (N, 2) lie inside."""
        low = np.array([self.x0, self.y0]) - 0.5
        high = low + np.array([self.width, self.height])
        return bool(((xy >= low) & (xy <= high)).all())

    def pixel_radius(self, size: int) -> float:
        """Return half a pixel of a model's input of ``size``, in slice pixels."""
        return max(self.width, self.height) / size / 2

    def open_sides(self, shape_hw: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
        """Tell behind which borders (left, top, right, bottom) the slice goes on."""
        height, width = shape_hw
        return self.x0 > 0, self.y0 > 0, self.x0 + self.width < width, self.y0 + self.height < height


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A volume's slices along one axis, windowed to [0, 1]."""

    count: int  # number of slices
    shape_hw: tuple[int, int]  # (rows, columns) of each
    spacing_xy_mm: tuple[float, float]  # pixel size (x, y) in mm
    read: Callable[[int], NDArray[np.float32]]  # slice number -> (H, W) float32 in [0, 1]
    key: str  # names the content: voxels, window and axis

    def render(self, number: int, crop: CropWindow, *, size: int) -> NDArray[np.float32]:
        """Return slice ``number`` seen through a crop, (size, size) float32."""
        return resample(cut(self.read(number), crop), (size, size))


def whole_crop(frames: Frames) -> CropWindow:
    """Return the smallest crop, square in mm, that covers the slice and shares its centre."""
    height, width = frames.shape_hw
    side_mm = max(width * frames.spacing_xy_mm[0], height * frames.spacing_xy_mm[1])
    return centred_crop(frames, ((width - 1) / 2, (height - 1) / 2), side_mm)


def centred_crop(frames: Frames, centre_xy: tuple[float, float], side_mm: float) -> CropWindow:
    """Return a crop of ``side_mm`` around a point in slice pixels."""
    width, height = (max(1, round(side_mm / s)) for s in frames.spacing_xy_mm)
    x0 = round(centre_xy[0] + 0.5 - width / 2)
    y0 = round(centre_xy[1] + 0.5 - height / 2)
    return CropWindow(x0, y0, width, height)


def cut(image: NDArray, crop: CropWindow, *, fill: float = 0.0) -> NDArray:
    """Return the crop's pixels (height, width), ``fill`` where it leaves the image."""
    rows, columns = image.shape
    top, left = max(crop.y0, 0), max(crop.x0, 0)
    bottom, right = min(crop.y0 + crop.height, rows), min(crop.x0 + crop.width, columns)
    out = np.full((crop.height, crop.width), fill, dtype=image.dtype)
    if top < bottom and left < right:
        target = np.s_[top - crop.y0 : bottom - crop.y0, left - crop.x0 : right - crop.x0]
        out[target] = image[top:bottom, left:right]
    return out


def paste(
    values: NDArray[np.float32], crop: CropWindow, shape_hw: tuple[int, int], *, fill: float = OUTSIDE_LOGIT
) -> NDArray[np.float32]:
    """Resample (m, m) logits to a crop and lay them into a slice, ``fill`` elsewhere."""
    seen = resample(values, (crop.height, crop.width))
    back = CropWindow(-crop.x0, -crop.y0, shape_hw[1], shape_hw[0])
    return cut(seen, back, fill=fill)


def resample(image: NDArray[np.float32], shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Resample bilinearly, with antialiasing where it shrinks."""
    if image.shape == shape_hw:
        return np.ascontiguousarray(image, dtype=np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    out = F.interpolate(tensor, size=shape_hw, mode="bilinear", align_corners=False, antialias=True)
    return out[0, 0].numpy()


def said_first(prompts: Sequence[SlicePrompt]) -> Sequence[SlicePrompt]:
    """Return what an object was found from: the slice clicked on before any was drawn, else the one drawn first."""
    clicked = found_by_click(prompts)
    drawn = sorted((p for p in prompts if drawn_box(p) is not None), key=lambda p: (p.drawn, p.slice))
    return drawn[:1] if clicked is None else [clicked]


def crop_of_boxes(frames: Frames, boxes: Sequence[NDArray[np.floating]], *, margin: float) -> CropWindow:
    """Return the window around the first box (4,), wider only for those of the others that have no room in it."""
    crop = crop_around(frames, np.array(boxes[:1]), margin=margin)
    for count, box in enumerate(boxes, start=1):
        if not _has_room(crop, box):
            crop = crop_around(frames, np.array(boxes[:count]), margin=margin)
    return crop


def _has_room(crop: CropWindow, box_xyxy: NDArray[np.floating]) -> bool:
    room = CropWindow(
        crop.x0 + round(crop.width * ROOM_SHARE),
        crop.y0 + round(crop.height * ROOM_SHARE),
        crop.width - 2 * round(crop.width * ROOM_SHARE),
        crop.height - 2 * round(crop.height * ROOM_SHARE),
    )
    return room.contains(box_xyxy.reshape(2, 2))


def crop_around(frames: Frames, boxes_xyxy: NDArray[np.floating], *, margin: float) -> CropWindow:
    """Return the window around boxes (N, 4), ``margin`` times their extent, at most the whole slice."""
    low, high = boxes_xyxy[:, :2].min(axis=0), boxes_xyxy[:, 2:].max(axis=0)
    spacing = np.array(frames.spacing_xy_mm)
    side_mm = max(((high - low + 1) * spacing).max() * margin, MIN_SIDE_PX * spacing.max())
    crop = centred_crop(frames, tuple((low + high) / 2), side_mm)
    whole = whole_crop(frames)
    return crop if crop.width < whole.width else whole


def touches_border(crop: CropWindow, mask: NDArray[np.bool_], shape_hw: tuple[int, int]) -> bool:
    """Tell whether a mask (m, m) reaches the window's border where the slice goes on."""
    return bool((_rim(mask) & np.array(crop.open_sides(shape_hw))).any())


def _rim(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which borders (left, top, right, bottom) a mask reaches."""
    edge = BORDER_CELLS
    return np.array([part.any() for part in (mask[:, :edge], mask[:edge], mask[:, -edge:], mask[-edge:])])


def grown(crop: CropWindow, frames: Frames) -> CropWindow:
    """Return a larger window with the same centre, at most the whole slice."""
    centre = (crop.x0 + (crop.width - 1) / 2, crop.y0 + (crop.height - 1) / 2)
    crop = centred_crop(frames, centre, crop.width * frames.spacing_xy_mm[0] * GROWTH)
    whole = whole_crop(frames)
    return crop if crop.width < whole.width else whole


def to_model_prompt(prompt: SlicePrompt, crop: CropWindow, *, size: int) -> ModelPrompt:
    """Carry a slice's prompts into model pixels: a mask resampled, else clicks and a box.

    Clicks outside the window say nothing there.
    """
    if prompt.mask is not None:
        return mask_prompt(prompt.mask, crop, size=size)
    seen, box = clicks_inside(prompt, crop), prompt.box_xyxy
    return ModelPrompt(
        points_xy=crop.to_model_xy(seen.points_xy, size=size),
        labels=seen.labels.astype(np.int32),
        box_xyxy=None if box is None else crop.to_model_xy(box.reshape(2, 2), size=size).reshape(4),
    )


def clicks_inside(prompt: SlicePrompt, crop: CropWindow) -> SlicePrompt:
    """Return a slice's prompts without the clicks that lie outside a window."""
    inside = [n for n, xy in enumerate(prompt.points_xy) if crop.contains(xy[None])]
    return replace(prompt, points_xy=prompt.points_xy[inside], labels=prompt.labels[inside])


def mask_prompt(mask: NDArray[np.bool_], crop: CropWindow, *, size: int) -> ModelPrompt:
    """Carry a slice's mask (H, W) into model pixels."""
    seen = resample(cut(mask.astype(np.float32), crop), (size, size))
    none = np.zeros((0, 2), dtype=np.float32)
    # A mask that is smaller than a model pixel keeps its densest pixel rather than vanish.
    return ModelPrompt(none, np.zeros(0, dtype=np.int32), mask=seen >= min(0.5, float(seen.max())))


def drawn_box(prompt: SlicePrompt) -> NDArray[np.floating] | None:
    """Return the box (4,) of a painted or boxed object on its slice."""
    if prompt.mask is not None:
        return box_of(prompt.mask).astype(np.float64)
    return None if prompt.box_xyxy is None else prompt.box_xyxy.astype(np.float64)


def points_box(points_xy: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the box (4,) around points (N, 2)."""
    return np.concatenate([points_xy.min(axis=0), points_xy.max(axis=0)])
