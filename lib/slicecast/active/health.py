"""Volumes that are not worth an annotator's first look: damaged, empty, far from all others, or seen before."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import median_abs_deviation

from slicecast.active.features import Points, VolumeFeatures, neighbour_distance, to_points

DUPLICATE = 0.06
"""Two volumes nearer than this share of the usual distance show the same."""

OUTLIER_DEVIATIONS = 6.0
"""A volume is far from all others when it is so many robust deviations further than the middle one."""

OUTLIER_SHARE = 0.05
"""No more of them are set aside: a rare kind of scan is no fault."""

LEAST_FOR_OUTLIERS = 10
"""Among fewer volumes, none can be called unusual."""

NEIGHBOURS = 5

NOISE_CORRELATION = 0.15
"""Neighbouring voxels of a scan are alike; where their correlation is less, it is noise."""

LEAST_VALUES = 3
"""A scan has more grey values."""


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
