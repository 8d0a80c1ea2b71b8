"""How long a volume will take to label, learnt from those that were timed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_TIMED = 10
"""Fewer timed volumes teach nothing."""

PENALTY = 1.0
"""Of the ridge regression, for features of unit deviation."""

TOLD_BY = ("disagree", "object_entropy", "confidence")
"""Scores that the time is predicted from."""


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """A ridge regression of the logarithm of the seconds.

    Args:
        middle: (F,) means of the features.
        spread: (F,) their deviations.
        weights: (F,).
        offset: mean of the logarithms.
    """

    middle: NDArray[np.float64]
    spread: NDArray[np.float64]
    weights: NDArray[np.float64]
    offset: float

    def seconds(self, scores: Mapping[str, float]) -> float | None:
        """Predict; None for a volume without the scores."""
        if not all(name in scores for name in TOLD_BY):
            return None
        row = (np.array([scores[name] for name in TOLD_BY]) - self.middle) / self.spread
        return float(np.exp(self.offset + row @ self.weights))


def learn_cost(timed: Sequence[tuple[Mapping[str, float], float]]) -> CostModel | None:
    """Learn from the scores of labelled volumes and the seconds they took; None from fewer than LEAST_TIMED."""
    known = [(scores, seconds) for scores, seconds in timed if seconds > 0 and all(n in scores for n in TOLD_BY)]
    if len(known) < LEAST_TIMED:
        return None
    rows = np.array([[scores[name] for name in TOLD_BY] for scores, _ in known])
    target = np.log([seconds for _, seconds in known])
    middle, spread = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
    scaled, offset = (rows - middle) / spread, float(target.mean())
    gram = scaled.T @ scaled + PENALTY * np.eye(len(TOLD_BY))
    return CostModel(middle, spread, np.linalg.solve(gram, scaled.T @ (target - offset)), offset)
