"""Tidy a segmented volume, on the CPU, the same on every machine."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CONNECTED_26 = np.ones((3, 3, 3), dtype=bool)
"""Voxels that touch by a corner belong together: thin structures step diagonally between slices."""


def keep_connected(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the components of a volume that contain a seed; all of them if none does.

    Args:
        mask: (N, H, W) bool.
        seeds: (N, H, W) bool.
    """
    place = extent(mask)
    if place is None:
        return mask
    part = mask[place]
    labels, count = ndimage.label(part, structure=CONNECTED_26)
    wanted = np.zeros(count + 1, dtype=bool)
    wanted[labels[seeds[place] & part]] = True
    if count <= 1 or not wanted.any():
        return mask
    kept = np.zeros_like(mask)
    kept[place] = wanted[labels]
    return kept


def fill_holes(mask: NDArray[np.bool_], *, up_to_px: int) -> NDArray[np.bool_]:
    """Fill holes of a slice (H, W) that are at most ``up_to_px`` pixels large."""
    place = extent(mask) if up_to_px else None
    if place is None:
        return mask
    # What is not mask falls into parts; the one that the frame around it belongs to is the outside.
    parts, count = ndimage.label(np.pad(~mask[place], 1, constant_values=True))
    if count <= 1:
        return mask
    small = np.bincount(parts.ravel()) <= up_to_px
    small[[0, parts[0, 0]]] = False
    filled = mask.copy()
    filled[place] |= small[parts[1:-1, 1:-1]]
    return filled


def extent(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """Return the smallest box of indices that holds a mask of any dimension; None where it is empty."""
    axes = range(mask.ndim)
    lines = (np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes)
    found = [slice(line[0], line[-1] + 1) for line in lines if line.size]
    return tuple(found) or None
