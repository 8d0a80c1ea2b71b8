"""What is known of volumes when the next one is chosen: how alike they look, and which are not worth a first look:
damaged, empty, far from all others, or seen before."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from scipy.stats import median_abs_deviation

from slicecast.errors import ConfigError

Points = NDArray[np.float64]  # (N, d) positions
DIMENSIONS = 32  # Of the space that distances are measured in
SCALE_SAMPLE = 400  # Points whose distances tell what a usual distance is


@dataclass(frozen=True, slots=True, eq=False)
class VolumeFeatures:
    """A volume as the strategies see it.

    Raises:
        ConfigError: the embedding is no vector.
    """

    name: str  # of the case
    # (D,) float32, what it looks like to the model; None when it was not encoded yet
    embedding: NDArray[np.float32] | None = None
    content: str = ""  # names its voxels; two volumes of the same content are copies. Empty when unknown.
    flaw: str = ""  # what is wrong with its voxels, in words; empty when nothing is

    def __post_init__(self) -> None:
        if self.embedding is not None and self.embedding.ndim != 1:
            raise ConfigError(f"The embedding of '{self.name}' has shape {self.embedding.shape}; give a vector.")


@dataclass(frozen=True, slots=True)
class VolumeChoice:
    """A volume, and why it has its place."""

    name: str
    score: float | None  # what it was ranked by; None where chance or its place among the others decided
    reason: str


def to_points(embeddings: Sequence[NDArray[np.float32]]) -> Points:
    """Turn embeddings (D,) into points: centred, the most telling directions only, in units of the usual distance."""
    rows = np.stack(embeddings).astype(np.float64)
    points = rows - rows.mean(axis=0)
    if min(points.shape) > DIMENSIONS:
        from sklearn.decomposition import PCA

        points = PCA(DIMENSIONS, svd_solver="full").fit_transform(points)
    some = pdist(points[:: max(1, len(points) // SCALE_SAMPLE)])
    usual = np.median(some) if len(some) else 0.0
    return points / usual if usual > 0 else points


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
    from sklearn.cluster import KMeans  # takes a second, see cli/main.py

    means = KMeans(count, n_init=4, random_state=int(rng.integers(2**31 - 1)))
    return np.asarray(means.fit_predict(points), dtype=np.intp)


DUPLICATE = 0.06  # Two volumes nearer than this share of the usual distance show the same

OUTLIER_DEVIATIONS = 6.0
"""A volume is far from all others when it is so many robust deviations further than the middle one."""

OUTLIER_SHARE = 0.05  # No more of them are set aside: a rare kind of scan is no fault
LEAST_FOR_OUTLIERS = 10  # Among fewer volumes, none can be called unusual

NEIGHBOURS = 5

NOISE_CORRELATION = 0.15  # Neighbouring voxels of a scan are alike; where their correlation is less, it is noise
LEAST_VALUES = 3  # A scan has more grey values


def flaw_of(array: NDArray[np.generic]) -> str:
    """Say what is wrong with a volume's voxels [k, j, i]; empty when nothing is."""
    values = array.astype(np.float32)
    if not np.isfinite(values).all():
        return f"{(~np.isfinite(values)).mean():.1%} of its voxels are no numbers"
    if len(np.unique(values[:: max(1, len(values) // 8)])) < LEAST_VALUES:
        return "its grey values are constant"
    longest = int(np.argmax(values.shape))
    rows = np.moveaxis(values, longest, -1)
    alike = _correlation(rows[..., :-1].ravel(), rows[..., 1:].ravel())
    return f"neighbouring voxels are unrelated (correlation {alike:.2f})" if alike < NOISE_CORRELATION else ""


def doubts(candidates: Sequence[VolumeFeatures], labelled: Sequence[VolumeFeatures]) -> dict[str, str]:
    """Return why candidates should come last, by name; those that are fine are not listed."""
    found = {c.name: c.flaw for c in candidates if c.flaw}
    found |= {c.name: "its embedding holds no numbers" for c in candidates if not _finite(c) and c.name not in found}
    found |= _copies([c for c in candidates if c.name not in found], labelled)
    healthy = [c for c in candidates if c.name not in found and c.embedding is not None]
    known = [v for v in labelled if v.embedding is not None and _finite(v)]
    if len(healthy) + len(known) < 2:
        return found
    points = to_points([v.embedding for v in (*known, *healthy) if v.embedding is not None])
    names = [v.name for v in (*known, *healthy)]
    return found | _outliers(points, names, known=len(known)) | _near(points, names, known=len(known))


def _finite(volume: VolumeFeatures) -> bool:
    return volume.embedding is None or bool(np.isfinite(volume.embedding).all())


def _copies(candidates: Sequence[VolumeFeatures], labelled: Sequence[VolumeFeatures]) -> dict[str, str]:
    """Find volumes of the same voxels; of several candidates the first by name stays."""
    owners: dict[str, str] = {v.content: v.name for v in labelled if v.content}
    found: dict[str, str] = {}
    for volume in sorted(candidates, key=lambda v: v.name):
        owner = owners.setdefault(volume.content, volume.name) if volume.content else volume.name
        if owner != volume.name:
            found[volume.name] = f"the same voxels as '{owner}'"
    return found


def _outliers(points: Points, names: Sequence[str], *, known: int) -> dict[str, str]:
    """Name the candidates that lie far from all others, or far from the middle of all."""
    if len(points) < LEAST_FOR_OUTLIERS:
        return {}
    lonely = _deviations(neighbour_distance(points, neighbours=NEIGHBOURS))
    remote = _deviations(np.linalg.norm(points - np.median(points, axis=0), axis=1))
    far = np.maximum(lonely, remote)
    order = [int(n) for n in np.argsort(-far, kind="stable") if n >= known and far[n] > OUTLIER_DEVIATIONS]
    allowed = int(np.ceil(OUTLIER_SHARE * (len(points) - known)))
    return {names[n]: f"{far[n]:.0f} robust deviations from the other volumes" for n in order[:allowed]}


def _near(points: Points, names: Sequence[str], *, known: int) -> dict[str, str]:
    """Name the candidates that show the same as a labelled volume, or as a candidate that stays."""
    tree, found = cKDTree(points), {}
    staying = set(range(known))
    for number in range(known, len(names)):
        near = [n for n in tree.query_ball_point(points[number], DUPLICATE) if n in staying]
        if near:
            other = min(near, key=lambda n: (float(np.linalg.norm(points[n] - points[number])), n))
            apart = float(np.linalg.norm(points[other] - points[number]))
            found[names[number]] = f"a near-duplicate of '{names[other]}' ({apart:.3f} of the usual distance)"
        else:
            staying.add(number)
    return found


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many robust deviations each value lies above the median, (N,)."""
    return np.asarray((values - np.median(values)) / max(median_abs_deviation(values, scale="normal"), 1e-3))


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 1.0
