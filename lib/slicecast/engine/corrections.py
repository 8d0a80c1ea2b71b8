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

from slicecast.engine.crop_window import resample
from slicecast.engine.ports import ModelPrompt

MAX_SIDE_PX = 256  # A larger input is thinned to this: the walker solves one equation for each disputed pixel

CLICK_RADIUS_SHARE = 1 / 32
"""Radius of the disk that a click settles, over the side of the input: one cell of the bundled network's mask."""

MARGIN_PX = 2  # What lies so near to a dispute is disputed too, so that the outline may settle on the edge beside it
ROOM_PX = 3  # Agreed pixels around the dispute that the walker sees
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
