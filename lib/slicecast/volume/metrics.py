"""Overlap and surface metrics of two masks.

Surface metrics are MONAI's; NSD (normalised surface Dice) weights surface elements by area, as challenges do.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

NSD_TOLERANCE_MM = 2.0  # As in the challenges; in voxels where a data set stores no true spacing

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Surface:
    """Distances between two surfaces; None where one of the masks is empty (NSD is 0 then)."""

    nsd: float  # share of both surfaces within the tolerance
    hd95: float | None  # 95th percentile of the distances, the larger of both directions


def dice(first: Mask, second: Mask) -> float:
    """Return the Dice of two bool arrays; 1 when both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 1.0 if total == 0 else 2.0 * np.count_nonzero(first & second) / total


def surface(found: Mask, truth: Mask, *, spacing_kji: Sequence[float], tolerance: float = NSD_TOLERANCE_MM) -> Surface:
    """Compare the surfaces of two masks [k, j, i].

    Args:
        spacing_kji: voxel size in array order; ones give voxels.
        tolerance: of NSD, in the spacing's unit.
    """
    if not (found.any() and truth.any()):
        return Surface(float(found.any() == truth.any()), None)
    first, second = as_batches(found, truth)
    spacing = [float(mm) for mm in spacing_kji]
    with warnings.catch_warnings():
        # MONAI calls its own function with an argument that it has itself deprecated.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        nsd = compute_surface_dice(
            first, second, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
        )
        hd95 = compute_hausdorff_distance(first, second, include_background=True, percentile=95, spacing=spacing)
    return Surface(float(nsd), float(hd95))


def as_batches(found: Mask, truth: Mask) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn two masks into MONAI's batches, uint8 (1, 1, Z, Y, X), cropped to their common box and padded by one voxel.

    Distances outside the box are not used, and would cost minutes on a CT.
    """
    window = ndimage.find_objects((found | truth).view(np.uint8))[0]
    first, second = (torch.from_numpy(np.pad(mask[window], 1)[None, None].astype(np.uint8)) for mask in (found, truth))
    return first, second
