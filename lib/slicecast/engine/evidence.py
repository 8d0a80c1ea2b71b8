"""How much each pixel looks like the object: a log-likelihood ratio of grey values, learnt from one answered slice.

The grey values under a mask are compared with those in a ring around it, its competition. The window is fixed over
the volume, so what was learnt on the anchor holds on every slice. A weak witness, but one that does not drift: masks
of a propagation are each made from the one before, this is made from the anchor alone. (Histogram likelihoods as the
unary term of interactive segmentation: Boykov and Jolly, ICCV 2001.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BINS = 32
"""Of the window's grey values."""

SMOOTH_BINS = 1.0
"""Standard deviation by which histograms are smoothed."""

UNSEEN_SHARE = 0.1
"""Share of a uniform distribution in either, so that a value never seen says little."""

LIMIT = 3.0
"""Evidence is clipped to this: logits of one doubtful witness."""

LEAST_PIXELS = 8
"""Smaller masks teach nothing."""

TRUST_FROM, TRUST_FULL = 0.5, 0.8
"""Predicted IoU of the anchor at which its evidence begins to count, and from which on it counts in full."""


@dataclass(frozen=True, slots=True, eq=False)
class GreyEvidence:
    """A table from grey value to logit.

    Args:
        table: (BINS,) float32, positive where the object is the likelier.
    """

    table: NDArray[np.float32]

    @staticmethod
    def of(image: NDArray[np.float32], mask: NDArray[np.bool_], *, predicted_iou: float = 1.0) -> "GreyEvidence | None":
        """Learn it from a slice (S, S) in [0, 1] and its mask (S, S); None where there is nothing to learn.

        Args:
            predicted_iou: how far the mask can be trusted.
        """
        trust = float(np.clip((predicted_iou - TRUST_FROM) / (TRUST_FULL - TRUST_FROM), 0, 1))
        area = int(mask.sum())
        if trust == 0 or area < LEAST_PIXELS:
            return None
        ring = ~mask & (ndimage.distance_transform_edt(~mask) <= np.sqrt(area / np.pi))
        if ring.sum() < LEAST_PIXELS:
            return None
        bins = _bins(image)
        ratio = np.log(_distribution(bins[mask]) / _distribution(bins[ring]))
        return GreyEvidence((trust * np.clip(ratio, -LIMIT, LIMIT)).astype(np.float32))

    def map(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of a slice (S, S), float32 of its shape."""
        return self.table[_bins(image)]


def _bins(image: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.clip((image * BINS).astype(np.intp), 0, BINS - 1)


def _distribution(bins: NDArray[np.intp]) -> NDArray[np.float64]:
    counts = ndimage.gaussian_filter1d(np.bincount(bins, minlength=BINS).astype(np.float64), SMOOTH_BINS)
    return (1 - UNSEEN_SHARE) * counts / counts.sum() + UNSEEN_SHARE / BINS
