"""What is known of a volume when the next one is chosen, and what is answered."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import ConfigError

HIGHER_IS_SURER = frozenset({"confidence"})
"""Scores of which a low value asks for an annotator; of all others a high one does."""


@dataclass(frozen=True, slots=True, eq=False)
class VolumeFeatures:
    """A volume as the strategies see it.

    Args:
        name: of the case.
        embedding: (D,) float32, what it looks like to the model; None when it was not encoded yet.
        scores: by name (see `slicecast.active.scored.SCORED`), finite, from 0.
        scores_by_structure: the same, of each structure; may be empty.
        cost_s: seconds that labelling it will probably take; None when unknown.
        content: names its voxels; two volumes of the same content are copies. Empty when unknown.
        flaw: what is wrong with its voxels, in words; empty when nothing is.

    Raises:
        ConfigError: a score or the cost is negative or no number, or the embedding is no vector.
    """

    name: str
    embedding: NDArray[np.float32] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    scores_by_structure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cost_s: float | None = None
    content: str = ""
    flaw: str = ""

    def __post_init__(self) -> None:
        if self.embedding is not None and self.embedding.ndim != 1:
            raise ConfigError(f"The embedding of '{self.name}' has shape {self.embedding.shape}; give a vector.")
        every = [*self.scores.items(), *(item for part in self.scores_by_structure.values() for item in part.items())]
        for key, value in every:
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"The score {key} of '{self.name}' is {value}; it must be a number from 0.")
        if self.cost_s is not None and not (np.isfinite(self.cost_s) and self.cost_s > 0):
            raise ConfigError(f"The cost of '{self.name}' is {self.cost_s} s; it must be positive.")


@dataclass(frozen=True, slots=True)
class Choice:
    """A volume, and why it has its place.

    Args:
        name: of the case.
        score: what it was ranked by; None where chance or its place among the others decided.
        reason: in words and numbers.
    """

    name: str
    score: float | None
    reason: str
