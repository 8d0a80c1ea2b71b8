"""Slices as a model sees them: a square window of the slice, resampled to S x S.

::

    slice, pixels               view: x0, y0, width, height (may reach past the slice)
    0 . . . . . . . W           x0 . . . . x0+width
    .   +-----------+---+       edges lie between pixels: pixel i covers [i, i+1)
    .   |  view     |pad|       model pixel u = (x + 0.5 - x0) * S / width - 0.5
    H   +-----------+---+

A view is square in millimetres, so anisotropic pixels are not squashed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

OUTSIDE_LOGIT = -20.0
"""Logit of pixels that a view does not cover."""


@dataclass(frozen=True, slots=True, order=True)
class View:
    """A rectangle of a slice in whole pixels; part of it may lie outside the slice.

    Args:
        x0: left edge, pixels.
        y0: top edge, pixels.
        width: pixels.
        height: pixels.
    """

    x0: int
    y0: int
    width: int
    height: int

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

    def open_sides(self, shape_hw: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
        """Tell behind which borders (left, top, right, bottom) the slice goes on."""
        height, width = shape_hw
        return self.x0 > 0, self.y0 > 0, self.x0 + self.width < width, self.y0 + self.height < height


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A volume's slices along one axis, windowed to [0, 1].

    Args:
        count: number of slices.
        shape_hw: (rows, columns) of each.
        spacing_xy_mm: pixel size (x, y) in mm.
        read: slice number -> (H, W) float32 in [0, 1].
        key: names the content: voxels, window and axis.
    """

    count: int
    shape_hw: tuple[int, int]
    spacing_xy_mm: tuple[float, float]
    read: Callable[[int], NDArray[np.float32]]
    key: str

    def render(self, number: int, view: View, *, size: int) -> NDArray[np.float32]:
        """Return slice ``number`` seen through a view, (size, size) float32."""
        return resample(cut(self.read(number), view), (size, size))


def whole_view(frames: Frames) -> View:
    """Return the smallest view, square in mm, that covers the slice and shares its centre."""
    height, width = frames.shape_hw
    side_mm = max(width * frames.spacing_xy_mm[0], height * frames.spacing_xy_mm[1])
    return centred_view(frames, ((width - 1) / 2, (height - 1) / 2), side_mm)


def centred_view(frames: Frames, centre_xy: tuple[float, float], side_mm: float) -> View:
    """Return a view of ``side_mm`` around a point in slice pixels."""
    width, height = (max(1, round(side_mm / s)) for s in frames.spacing_xy_mm)
    x0 = round(centre_xy[0] + 0.5 - width / 2)
    y0 = round(centre_xy[1] + 0.5 - height / 2)
    return View(x0, y0, width, height)


def cut(image: NDArray, view: View, *, fill: float = 0.0) -> NDArray:
    """Return the view's pixels (height, width), ``fill`` where it leaves the image."""
    rows, columns = image.shape
    top, left = max(view.y0, 0), max(view.x0, 0)
    bottom, right = min(view.y0 + view.height, rows), min(view.x0 + view.width, columns)
    out = np.full((view.height, view.width), fill, dtype=image.dtype)
    if top < bottom and left < right:
        target = np.s_[top - view.y0 : bottom - view.y0, left - view.x0 : right - view.x0]
        out[target] = image[top:bottom, left:right]
    return out


def paste(values: NDArray[np.float32], view: View, shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Resample (m, m) logits to a view and lay them into a slice; :data:`OUTSIDE_LOGIT` elsewhere."""
    seen = resample(values, (view.height, view.width))
    back = View(-view.x0, -view.y0, shape_hw[1], shape_hw[0])
    return cut(seen, back, fill=OUTSIDE_LOGIT)


def resample(image: NDArray[np.float32], shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Resample bilinearly, with antialiasing where it shrinks."""
    if image.shape == shape_hw:
        return np.ascontiguousarray(image, dtype=np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    out = F.interpolate(tensor, size=shape_hw, mode="bilinear", align_corners=False, antialias=True)
    return out[0, 0].numpy()
