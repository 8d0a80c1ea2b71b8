"""What else the clicks or the box on a slice may mean, for a person to choose from.

A network answers with one mask; the wall, the part or the whole that was meant often differs from it by its grey
values alone. They are divided as Otsu does (IEEE TSMC 9(1), 1979; into three: Liao et al., J. Inf. Sci. Eng. 17, 2001):
around a click, in disks of several sizes, and what holds the click is a reading; in a box, in the ellipse that touches
its sides, and the largest bright and the largest dark part are. (docs/decisions/0032-other-readings.md)
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from slicecast.engine.fusion import dice
from slicecast.prompts import SlicePrompt

DISK_SHARES = (0.5, 0.25, 0.125)  # Diameters around a click, over the larger side of the slice
LEAST_DISK_PX = 16  # In fewer pixels there is little but noise
KINDS = (2, 3)  # Into so many ranges the grey values around a click are divided, one after the other
MOST = 4  # More are no choice but a search
ALIKE = 0.85  # Of two readings with this Dice the first is enough
LEAST_PX = 4  # Smaller ones are noise

Mask = NDArray[np.bool_]


def other_readings(image: NDArray[np.float32], prompt: SlicePrompt) -> list[Mask]:
    """Return masks (H, W) that agree with every click, no two alike, at most :data:`MOST`.

    Args:
        image: (H, W) float32 in [0, 1].
        prompt: the clicks and the box on the slice; without a box or a positive click there is no reading.
    """
    found: list[Mask] = []
    for mask in _in_box(image, prompt.box_xyxy) if prompt.box_xyxy is not None else _around_click(image, prompt):
        x, y = prompt.points_xy.astype(int).T
        agrees = mask.sum() >= LEAST_PX and np.array_equal(mask[y, x], prompt.labels == 1)
        if agrees and all(dice(mask, other) < ALIKE for other in found):
            found.append(mask)
    return found[:MOST]


def _in_box(image: NDArray[np.float32], box_xyxy: NDArray[np.floating]) -> Iterator[Mask]:
    x0, y0, x1, y1 = box_xyxy
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    across, down = (2 * columns - x0 - x1) / (x1 - x0 + 1), (2 * rows - y0 - y1) / (y1 - y0 + 1)
    ellipse = across**2 + down**2 <= 1
    ranges = _ranges(image, ellipse, 2)
    for wanted in (1, 0) if ranges is not None else ():
        parts, count = ndimage.label(ellipse & (ranges == wanted))
        if count:
            yield parts == 1 + np.bincount(parts.ravel())[1:].argmax()


def _around_click(image: NDArray[np.float32], prompt: SlicePrompt) -> Iterator[Mask]:
    for x, y in prompt.points_xy[prompt.labels == 1][:1].astype(int):
        rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
        distance = np.hypot(columns - x, rows - y)
        diameters = [share * max(image.shape) for share in DISK_SHARES]
        large = [diameter for diameter in diameters if diameter >= LEAST_DISK_PX] or diameters[:1]
        for disk in (distance <= diameter / 2 for diameter in large):
            for kinds in KINDS:
                ranges = _ranges(image, disk, kinds)
                if ranges is not None:
                    parts, _ = ndimage.label(disk & (ranges == ranges[y, x]))
                    yield parts == parts[y, x]


def _ranges(image: NDArray[np.float32], region: Mask, kinds: int) -> NDArray[np.intp] | None:
    """Return which range each pixel's grey value lies in, (H, W), by those of a region; None where they are too few."""
    try:
        return np.digitize(image, threshold_multiotsu(image[region], kinds))
    except ValueError:
        return None
