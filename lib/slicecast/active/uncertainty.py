"""Scores of how unsure the model is of a volume: formulas, arrays in, one number out.

Several passes segment the same structure from different prompts or directions and ought to agree.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import InputError


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient; two empty masks agree (1), an empty and another one do not (0)."""
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0


def disagreement(masks: Sequence[NDArray[np.bool_]]) -> float:
    """Return 1 - the mean Dice of all pairs of passes, 0 to 1.

    Raises:
        InputError: fewer than two masks, or of different shapes.
    """
    if len(masks) < 2 or len({mask.shape for mask in masks}) != 1:
        raise InputError(f"Disagreement needs two or more masks of one shape; got {[m.shape for m in masks]}.")
    return 1.0 - float(np.mean([overlap(a, b) for a, b in combinations(masks, 2)]))


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
