"""Whether a mask still covers what its anchor covered: the range of grey values inside it.

Past an object's end a model often goes on with the same outline over other tissue, and is sure of it. The window
is fixed over the volume, so grey values can be compared between slices. (A gate on sudden changes of intensity is
what He et al., arXiv 2408.11210, found missing; the numbers here were chosen on generated volumes and the pool of
`hippocampus`, see docs/decisions/0007-stop-rule.md.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.frames import resample

PERCENTILES = (5.0, 95.0)
"""The range of an object's grey values; a mask's outermost pixels are often its neighbours'."""

SLACK_SHARE, SLACK_GREY = 0.1, 0.03
"""The range is widened on both sides by this share of it, or at least by this much of the window."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """The grey values of an object on its anchor slice.

    Args:
        low: lower end of their range, in [0, 1] of the window.
        high: upper end.
        inside: share of the anchor's own pixels in that range.
    """

    low: float
    high: float
    inside: float

    @staticmethod
    def of(image: NDArray[np.float32], logits: NDArray[np.float32]) -> "Appearance | None":
        """Take it from a slice (S, S) and its mask logits (m, m); None where the mask is empty."""
        pixels = _covered(image, logits)
        if pixels.size == 0:
            return None
        low, high = np.percentile(pixels, PERCENTILES)
        slack = max(SLACK_GREY, SLACK_SHARE * (high - low))
        low, high = float(low - slack), float(high + slack)
        return Appearance(low, high, _share_inside(pixels, low, high))

    def fits(self, image: NDArray[np.float32], logits: NDArray[np.float32], *, share: float) -> bool:
        """Tell whether at least ``share`` as many of a mask's pixels are in the range as on the anchor."""
        pixels = _covered(image, logits)
        return pixels.size > 0 and _share_inside(pixels, self.low, self.high) >= share * self.inside


def _covered(image: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = image.shape
    return image[resample(logits, (rows, columns)) > 0]


def _share_inside(pixels: NDArray[np.float32], low: float, high: float) -> float:
    return float(((pixels >= low) & (pixels <= high)).mean())
