"""Whether a mask still covers what its anchor covered: the range of grey values inside it.

Past an object's end a model often goes on with the same outline over other tissue, and is sure of it. The window
is fixed over the volume, so grey values can be compared between slices. (A gate on sudden changes of intensity is
what He et al., arXiv 2408.11210, found missing; the numbers here were chosen on generated volumes and the pool of
`hippocampus`, see docs/decisions/0007-stop-rule.md.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.crop_window import resample

PERCENTILES = (5.0, 95.0)  # The range of an object's grey values; a mask's outermost pixels are often its neighbours'

SLACK_SHARE, SLACK_GREY = 0.1, 0.03
"""The range is widened on both sides by this share of it, or at least by this much of the window."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """The grey values of an object on its anchor slice."""

    low: float  # lower end of their range, in [0, 1] of the window
    high: float  # upper end
    inside: float  # share of the anchor's own pixels in that range

    @staticmethod
    def of(image: NDArray[np.float32], logits: NDArray[np.float32]) -> "Appearance | None":
        """Take it from a slice (S, S) and its mask logits (m, m); None where the mask is empty."""
        return Appearance.of_pixels(_covered(image, logits))

    @staticmethod
    def of_pixels(pixels: NDArray[np.float32]) -> "Appearance | None":
        """Take it from an object's grey values (N,) in [0, 1]; None where there are none."""
        if pixels.size == 0:
            return None
        low, high = np.percentile(pixels, PERCENTILES)
        slack = max(SLACK_GREY, SLACK_SHARE * (high - low))
        low, high = float(low - slack), float(high + slack)
        return Appearance(low, high, _share_inside(pixels, low, high))

    def fits(self, image: NDArray[np.float32], logits: NDArray[np.float32], *, share: float) -> bool:
        """Tell whether at least ``share`` as many of a mask's pixels are in the range as on the anchor."""
        pixels = _covered(image, logits)
        return pixels.size > 0 and self.likeness(pixels) >= share

    def likeness(self, pixels: NDArray[np.float32]) -> float:
        """Return the share of grey values (N,), at least one, in the range, over that on the anchor."""
        return _share_inside(pixels, self.low, self.high) / self.inside


def _covered(image: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = image.shape
    return image[resample(logits, (rows, columns)) > 0]


def _share_inside(pixels: NDArray[np.float32], low: float, high: float) -> float:
    return float(((pixels >= low) & (pixels <= high)).mean())


BINS = 32  # Of the window's grey values
SMOOTH_BINS = 1.0  # Standard deviation by which histograms are smoothed
UNSEEN_SHARE = 0.1  # Share of a uniform distribution in either, so that a value never seen says little
LIMIT = 3.0  # Prior is clipped to this: logits of one doubtful witness
LEAST_PIXELS = 8  # Smaller masks teach nothing

TRUST_FROM, TRUST_FULL = 0.5, 0.8
"""Predicted IoU of the anchor at which its prior begins to count, and from which on it counts in full."""


@dataclass(frozen=True, slots=True, eq=False)
class AppearancePrior:
    """A table from grey value to logit."""

    table: NDArray[np.float32]  # (BINS,) float32, positive where the object is the likelier

    @staticmethod
    def of(
        image: NDArray[np.float32], mask: NDArray[np.bool_], *, predicted_iou: float = 1.0
    ) -> "AppearancePrior | None":
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
        return AppearancePrior((trust * np.clip(ratio, -LIMIT, LIMIT)).astype(np.float32))

    def map(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of a slice (S, S), float32 of its shape."""
        return self.table[_bins(image)]


def _bins(image: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.clip((image * BINS).astype(np.intp), 0, BINS - 1)


def _distribution(bins: NDArray[np.intp]) -> NDArray[np.float64]:
    counts = ndimage.gaussian_filter1d(np.bincount(bins, minlength=BINS).astype(np.float64), SMOOTH_BINS)
    return (1 - UNSEEN_SHARE) * counts / counts.sum() + UNSEEN_SHARE / BINS
