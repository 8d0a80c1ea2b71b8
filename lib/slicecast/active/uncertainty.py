"""How much several views of one volume leave open: formulas, arrays in, one number out.

Views are masks or probabilities of one structure from passes that ought to agree: [view, k, j, i]. A lost object has
probability 0 everywhere, and so no entropy: `object_entropy` is what sees that it may be there after all.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.errors import InputError

MARGIN_VOXELS = 3
"""The region of interest is what any view covers, and so much around it."""

TOP_SHARE = 0.5
"""Of the region's voxels, this share with the largest values counts: a mean over all would measure its size."""


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient; two empty masks agree (1), an empty and another one do not (0)."""
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0


def disagreement(masks: Sequence[NDArray[np.bool_]]) -> float:
    """Return 1 - the mean Dice of all pairs of views, 0 to 1.

    Raises:
        InputError: fewer than two views, or of different shapes.
    """
    if len(masks) < 2 or len({mask.shape for mask in masks}) != 1:
        raise InputError(f"Disagreement needs two or more masks of one shape; got {[m.shape for m in masks]}.")
    return 1.0 - float(np.mean([overlap(a, b) for a, b in combinations(masks, 2)]))


def entropy_roi(probabilities: NDArray[np.floating]) -> float:
    """Return the entropy in bits of the views' mean probability, over the least certain half of the region, 0 to 1.

    Args:
        probabilities: (K, k, j, i) in [0, 1].
    """
    return _top_mean(entropy(probabilities.mean(axis=0)), _region(probabilities))


def bald_roi(probabilities: NDArray[np.floating]) -> float:
    """Return how much of that entropy is because the views differ (mutual information), in bits, 0 to 1.

    Args:
        probabilities: (K, k, j, i) in [0, 1].
    """
    differ = entropy(probabilities.mean(axis=0)) - entropy(probabilities).mean(axis=0)
    return _top_mean(np.maximum(differ, 0.0), _region(probabilities))


def object_entropy(logits: NDArray[np.floating]) -> float:
    """Return the mean entropy in bits of whether the object is there, over slices, 0 to 1; 0 for no slices.

    Args:
        logits: (Z,) object scores.
    """
    if not len(logits):
        return 0.0
    return float(entropy(1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))).mean())


def cycle_error(returned: Sequence[NDArray[np.bool_]], truth: Sequence[NDArray[np.bool_]]) -> float:
    """Return 1 - the mean Dice of what came back with the known truth, over supports, 0 to 1."""
    return 1.0 - float(np.mean([overlap(a, b) for a, b in zip(returned, truth, strict=True)]))


def entropy(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the entropy of a yes or no, in bits, both terms."""
    p = np.clip(probability.astype(np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))


def _region(probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
    covered = (probabilities > 0.5).any(axis=0)
    if not covered.any():
        return np.ones(covered.shape, dtype=bool)
    return np.asarray(ndimage.binary_dilation(covered, iterations=MARGIN_VOXELS))


def _top_mean(values: NDArray[np.floating], region: NDArray[np.bool_]) -> float:
    inside = values[region]
    count = max(1, int(TOP_SHARE * len(inside)))
    return float(np.partition(inside, len(inside) - count)[-count:].mean())
