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
    labels, count = ndimage.label(mask, structure=CONNECTED_26)
    if count <= 1:
        return mask
    wanted = np.unique(labels[seeds & mask])
    wanted = wanted[wanted > 0]
    return np.isin(labels, wanted) if wanted.size else mask


def fill_holes(mask: NDArray[np.bool_], *, up_to_px: int) -> NDArray[np.bool_]:
    """Fill holes of a slice (H, W) that are at most ``up_to_px`` pixels large."""
    if up_to_px == 0 or not mask.any():
        return mask
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    if count == 0:
        return mask
    areas = np.bincount(holes.ravel())
    small = areas <= up_to_px
    small[0] = False
    return mask | small[holes]
