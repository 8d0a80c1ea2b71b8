"""What a model's mask lacks on the very slice on which the object was painted.

A model may draw an object too small wherever it tracks it, and smaller from slice to slice, for each mask is made from
the one before. Asked for the painted slice itself, from the memory of it, it does the same there, where the outline is
known. So the logit that is lacking is measured there, for each painted slice, and given to all masks of its tracks
before they are remembered (docs/decisions/0038-calibrated-tracks.md).
"""

import numpy as np
from numpy.typing import NDArray

SPARE_LOGIT = 0.5  # What is lacking beyond this is given: an object drawn as large as it is often runs over with more
MOST_LOGIT = 3.0  # No more is given, as of a pixel's look (`appearance`)


def lacking_logit(logits: NDArray[np.float32], painted: NDArray[np.bool_]) -> float:
    """Return what to add to a mask's logits (S, S), so that it becomes about as large as what was painted (S, S).

    It is 0 where the mask is large enough, or nothing or all is painted.
    """
    area = np.count_nonzero(painted)
    if not 0 < area < painted.size:
        return 0.0
    smallest_inside = np.partition(logits, -area, axis=None)[-area]
    return float(np.clip(-smallest_inside - SPARE_LOGIT, 0.0, MOST_LOGIT))
