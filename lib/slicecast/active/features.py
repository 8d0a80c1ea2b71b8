"""What is known of volumes when the next one is chosen, how alike they look, and what is answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans

from slicecast.errors import ConfigError

Points = NDArray[np.float64]
"""(N, d) positions."""

DIMENSIONS = 32
"""Of the space that distances are measured in."""

SCALE_SAMPLE = 400
"""Points whose distances tell what a usual distance is."""


@dataclass(frozen=True, slots=True, eq=False)
class VolumeFeatures:
    """A volume as the strategies see it.

    Args:
        name: of the case.
        embedding: (D,) float32, what it looks like to the model; None when it was not encoded yet.
        scores: by name (see `slicecast.active.volumes.SCORES`), finite, from 0.
        scores_by_structure: the same, of each structure; may be empty.
        content: names its voxels; two volumes of the same content are copies. Empty when unknown.
        flaw: what is wrong with its voxels, in words; empty when nothing is.

    Raises:
        ConfigError: a score is negative or no number, or the embedding is no vector.
    """

    name: str
    embedding: NDArray[np.float32] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    scores_by_structure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    content: str = ""
    flaw: str = ""

    def __post_init__(self) -> None:
        if self.embedding is not None and self.embedding.ndim != 1:
            raise ConfigError(f"The embedding of '{self.name}' has shape {self.embedding.shape}; give a vector.")
        every = [*self.scores.items(), *(item for part in self.scores_by_structure.values() for item in part.items())]
        for key, value in every:
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"The score {key} of '{self.name}' is {value}; it must be a number from 0.")


@dataclass(frozen=True, slots=True)
class VolumeChoice:
    """A volume, and why it has its place.

    Args:
        name: of the case.
        score: what it was ranked by; None where chance or its place among the others decided.
        reason: in words and numbers.
    """

    name: str
    score: float | None
    reason: str


def to_points(embeddings: Sequence[NDArray[np.float32]]) -> Points:
    """Turn embeddings (D,) into points: centred, the most telling directions only, in units of the usual distance."""
    rows = np.stack(embeddings).astype(np.float64)
    centred = rows - rows.mean(axis=0)
    if min(centred.shape) > DIMENSIONS:
        values, directions = np.linalg.eigh(centred.T @ centred)
        centred = centred @ directions[:, np.argsort(values)[::-1][:DIMENSIONS]]
    scale = usual_distance(centred)
    return centred / scale if scale > 0 else centred


def usual_distance(points: Points) -> float:
    """Return the median distance between two points; 0 for a single one."""
    some = points[:: max(1, len(points) // SCALE_SAMPLE)]
    upper = np.triu_indices(len(some), k=1)
    return float(np.median(distances(some, some)[upper])) if len(upper[0]) else 0.0


def distances(first: Points, second: Points) -> NDArray[np.float64]:
    """Return all distances, (N, M)."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0.0))


def neighbour_distance(points: Points, *, neighbours: int) -> NDArray[np.float64]:
    """Return each point's mean distance to its nearest others, (N,); 0 for a single one."""
    count = min(neighbours, len(points) - 1)
    if count < 1:
        return np.zeros(len(points))
    far, _ = cKDTree(points).query(points, k=count + 1)
    return np.asarray(far[:, 1:].mean(axis=1))


def clusters(points: Points, count: int, *, rng: np.random.Generator) -> NDArray[np.intp]:
    """Divide points into at most so many clusters; return each one's number, (N,)."""
    distinct = len(np.unique(points.round(9), axis=0))
    count = max(1, min(count, distinct))
    if count == 1:
        return np.zeros(len(points), dtype=np.intp)
    means = KMeans(count, n_init=4, random_state=int(rng.integers(2**31 - 1)))
    return np.asarray(means.fit_predict(points), dtype=np.intp)
