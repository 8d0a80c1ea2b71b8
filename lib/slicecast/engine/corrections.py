"""How far a corrective click may change an answer.

Asked with one click more, a network often redraws the whole slice: a click beside the object halves it, one at its edge
takes in what lies behind. What the answers before and after a click agree on stands; what they dispute is decided by
the image: a random walker (Grady, IEEE TPAMI 28(11), 2006) starts from what is agreed and from the clicks.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import random_walker

from slicecast.engine.crop_window import OUTSIDE_LOGIT, resample
from slicecast.engine.ports import ModelPrompt

MAX_SIDE_PX = 256  # A larger input is thinned to this: the walker solves one equation for each disputed pixel

CLICK_RADIUS_SHARE = 1 / 32
"""Radius of the disk that a click settles, over the side of the input: one cell of the bundled network's mask."""

MARGIN_PX = 2  # What lies so near to a dispute is disputed too, so that the outline may settle on the edge beside it
ROOM_PX = 3  # Agreed pixels around the dispute that the walker sees
CLICK_LOGIT = 1e4  # Logit of a pixel clicked on, which no model outvotes, and only a painted slice does
OBJECT, OTHER = 1, 2  # The walker's labels; 0 is disputed


def decide(
    image: NDArray[np.float32], before: NDArray[np.float32], after: NDArray[np.float32], prompt: ModelPrompt
) -> NDArray[np.bool_]:
    """Return the mask of a slice after a click.

    Args:
        image: (S, S) as the model sees it.
        before: (m, m) logits of the answer that the click corrects.
        after: (m, m) logits of the network's answer to it.
        prompt: all clicks so far.

    Returns:
        (S, S) bool.
    """
    size = len(image)
    side = min(size, MAX_SIDE_PX)
    old, new = (resample(logits, (side, side)) > 0 for logits in (before, after))
    seeds = np.where(new, OBJECT, OTHER)
    seeds[ndimage.binary_dilation(old != new, iterations=MARGIN_PX)] = 0
    _draw_clicks(seeds, prompt, scale=side / size)
    mask = _walk(resample(image, (side, side)), seeds) == OBJECT
    return mask if side == size else resample(mask.astype(np.float32), (size, size)) >= np.float32(0.5)


def clicked_logits(
    points_xy: NDArray[np.floating], labels: NDArray[np.int_], *, radius_px: float, shape_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """Return logits (H, W) of what the clicks on a slice settle, NaN elsewhere; between clicks the nearest counts.

    Args:
        points_xy: (N, 2) pixels of the slice.
        labels: (N,), 1 on the object, 0 off it.
        radius_px: around each; what the model sees as one pixel.
    """
    said = np.full(shape_hw, np.nan, dtype=np.float32)
    nearest = np.full_like(said, np.inf)
    for (x, y), label in zip(points_xy, labels, strict=True):
        place = tuple(
            slice(max(math.ceil(at - radius_px), 0), min(math.floor(at + radius_px) + 1, end))
            for at, end in zip((y, x), said.shape, strict=True)
        )
        rows, columns = np.ogrid[place]
        distance = np.hypot(rows - y, columns - x)
        closer = (distance <= radius_px) & (distance < nearest[place])
        nearest[place][closer] = distance[closer]
        said[place][closer] = CLICK_LOGIT - distance[closer] if label == 1 else OUTSIDE_LOGIT
    return said


def _draw_clicks(seeds: NDArray[np.int_], prompt: ModelPrompt, *, scale: float) -> None:
    """Settle the disk around each click in place; between clicks the nearest counts."""
    rows, columns = np.indices(seeds.shape)
    nearest = np.full(seeds.shape, CLICK_RADIUS_SHARE * len(seeds))
    for (x, y), label in zip((prompt.points_xy + 0.5) * scale - 0.5, prompt.labels, strict=True):
        distance = np.hypot(columns - x, rows - y)
        closer = distance <= nearest
        nearest[closer] = distance[closer]
        seeds[closer] = OBJECT if label == 1 else OTHER


def _walk(image: NDArray[np.float32], seeds: NDArray[np.int_]) -> NDArray[np.int_]:
    """Decide what is disputed; where only one side has seeds beside it, it wins."""
    found = seeds.copy()
    disputed = ndimage.find_objects((seeds == 0).view(np.uint8))
    if disputed:
        place = tuple(slice(max(part.start - ROOM_PX, 0), part.stop + ROOM_PX) for part in disputed[0])
        seen, own = image[place], seeds[place]
        sides = np.setdiff1d(own, [0])
        if len(sides) == 2 and np.ptp(seen) > 0:
            # Only the likelier label is used; how far rounding takes a probability past 0 or 1 does not matter.
            own = random_walker(seen, own, mode="bf", prob_tol=math.inf)
        found[place] = own if len(sides) == 2 else sides[0]
    return found
