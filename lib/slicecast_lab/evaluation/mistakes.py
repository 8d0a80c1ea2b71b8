"""Where an answer is wrong: on the prompted slice, on the object's other slices, or past its ends."""

import numpy as np
from numpy.typing import NDArray

from slicecast_lab.evaluation.cases import Case

KINDS = {
    "prompted": "the prompted slice itself",
    "missed": "object missed on other slices",
    "excess": "too much on the object's other slices",
    "beyond": "carried past the object's ends",
}
"""Kind of mistake -> words."""


def mistake_shares(case: Case, mask: NDArray[np.bool_], number: int) -> dict[str, float]:
    """Return which share of the wrong voxels is of each kind; zeros where nothing is wrong.

    Args:
        mask: bool [k, j, i], as stored.
        number: the prompted canonical slice.
    """
    missed, excess = _by_slice(case, case.truth & ~mask), _by_slice(case, mask & ~case.truth)
    first, last = case.extent
    inside = np.zeros(len(missed), dtype=bool)
    inside[first : last + 1] = True
    elsewhere = inside & (np.arange(len(missed)) != number)
    counts = {
        "prompted": missed[number] + excess[number],
        "missed": missed[elsewhere].sum(),
        "excess": excess[elsewhere].sum(),
        "beyond": excess[~inside].sum(),
    }
    wrong = max(int(missed.sum() + excess.sum()), 1)
    return {kind: float(count) / wrong for kind, count in counts.items()}


def _by_slice(case: Case, voxels: NDArray[np.bool_]) -> NDArray[np.int64]:
    stack = case.slices(voxels)
    return np.array([np.count_nonzero(stack.slice(n)) for n in range(stack.count)])
