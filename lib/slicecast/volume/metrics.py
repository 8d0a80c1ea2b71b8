"""Overlap and surface metrics of two masks, and means with bootstrap intervals over many cases.

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

NSD_TOLERANCE_MM = 2.0
"""As in the challenges; in voxels where a data set stores no true spacing."""

AUC_CLICKS = 5
"""The challenge's area is that under Dice over the first five clicks: at most 4."""

RESAMPLES = 10_000
SEED = 20240805
"""Of the bootstrap."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Surface:
    """Distances between two surfaces; None where one of the masks is empty (NSD is 0 then).

    Args:
        nsd: share of both surfaces within the tolerance.
        hd95: 95th percentile of the distances, the larger of both directions.
    """

    nsd: float
    hd95: float | None


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    count: int


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
    first, second = (torch.from_numpy(np.pad(part, 1)[None, None].astype(np.uint8)) for part in _crop(found, truth))
    spacing = [float(mm) for mm in spacing_kji]
    with warnings.catch_warnings():
        # MONAI calls its own function with an argument that it has itself deprecated.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        nsd = compute_surface_dice(
            first, second, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
        )
        hd95 = compute_hausdorff_distance(first, second, include_background=True, percentile=95, spacing=spacing)
    return Surface(float(nsd), float(hd95))


def plain_surface_dice(found: Mask, truth: Mask, *, tolerance: float) -> float:
    """Return MONAI's surface Dice of two masks as published protocols use it: in voxels, each surface voxel equal."""
    if not (found.any() and truth.any()):
        return float(found.any() == truth.any())
    first, second = (torch.from_numpy(np.pad(part, 1)[None, None].astype(np.uint8)) for part in _crop(found, truth))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        return float(compute_surface_dice(first, second, [tolerance], include_background=True))


def _crop(found: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Crop both masks to their common bounding box: distances outside are not used, and cost minutes on a CT."""
    window = ndimage.find_objects((found | truth).view(np.uint8))[0]
    return found[window], truth[window]


def bootstrap_mean(
    values: Sequence[float], groups: Sequence[str] | None = None, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Mean:
    """Return the mean and its 95 % percentile interval, drawing whole groups with replacement.

    Args:
        groups: of each value (its patient); None: each value is its own.
    """
    numbers = np.asarray(values, dtype=float)
    names = np.arange(len(numbers)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = np.bincount(names, weights=numbers), np.bincount(names)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(float(numbers.mean()), float(low), float(high), len(numbers))


def click_auc(dice_by_click: Sequence[float]) -> float | None:
    """Return the area under Dice over clicks 1 to 5, or None with fewer clicks."""
    if len(dice_by_click) < AUC_CLICKS:
        return None
    first = np.asarray(dice_by_click[:AUC_CLICKS])
    return float((first[1:] + first[:-1]).sum() / 2)


def clicks_to_reach(dice_by_click: Sequence[float], goal: float) -> int | None:
    """Return after how many clicks the goal was first reached, or None."""
    return next((n for n, value in enumerate(dice_by_click, start=1) if value >= goal), None)
