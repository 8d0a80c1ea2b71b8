"""Which volume next: what is known of volumes, the strategies by name, and the settings of their use.

`rank(NAME, candidates, labelled, rng=...)` orders the candidates, best first; everything follows from
the arguments. Offered are the strategies that were measured (docs/results/active-learning.md): `random`,
`strat_random` and `coverage`. Formulas: docs/active-learning.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist

from slicecast.config import build, read_config, require_numbers
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

LONELY_NEIGHBOURS = 5  # A volume is as lonely as it is far from so many others

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
    lonely = _deviations(neighbour_distance(points, neighbours=LONELY_NEIGHBOURS))
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
    above = values - np.median(values)
    return above / max(float(np.median(np.abs(above))) / MAD_OF_NORMAL, 1e-3)


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 1.0


MOST_STRATA = 8
MAD_OF_NORMAL = 0.6745
"""Median absolute deviation of a normal distribution, in standard deviations. (`scipy.stats` takes 0.3 s to import.)"""

COLD_START = 5
"""Labels below which coverage picks typical volumes; from then on the ones farthest from all that are labelled."""

NEIGHBOURS = 10  # A typical volume is near to so many others
GREEDY = 256  # Volumes ordered one by one; the order is made anew before the ones behind them are reached


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What a strategy is asked."""

    candidates: Sequence[VolumeFeatures]
    labelled: Sequence[VolumeFeatures]
    rng: np.random.Generator


Order = list[VolumeChoice]
Strategy = Callable[[_Question], Order]
Placed = tuple[int, float | None, str]  # A point's number, its score, and the reason for its place


def rank(
    strategy: str,
    candidates: Sequence[VolumeFeatures],
    labelled: Sequence[VolumeFeatures] = (),
    *,
    rng: np.random.Generator,
) -> tuple[VolumeChoice, ...]:
    """Order volumes without a label, the one to be labelled next first; every candidate is in the answer once.

    Damaged and empty volumes, far outliers and copies come last, with any strategy but plain `random`.

    Args:
        strategy: a name in STRATEGIES.
        candidates: without a label.
        labelled: with one.
        rng: source of all chance.

    Raises:
        ConfigError: there is no such strategy, or two volumes have one name.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"There is no strategy '{strategy}'. Choose one of {', '.join(STRATEGIES)}.")
    names = [v.name for v in (*candidates, *labelled)]
    if len(set(names)) != len(names):
        raise ConfigError("Two volumes have the same name; give each volume once, labelled or not.")
    ordered = sorted(candidates, key=lambda v: v.name)
    doubted = {} if strategy == "random" else doubts(ordered, labelled)
    fine = [v for v in ordered if v.name not in doubted]
    order = STRATEGIES[strategy](_Question(fine, labelled, rng)) if fine else []
    last = [VolumeChoice(v.name, None, f"comes last: {doubted[v.name]}") for v in ordered if v.name in doubted]
    return (*order, *last)


def _random(question: _Question) -> Order:
    candidates = question.candidates
    reason = f"random among {len(candidates)} without a label"
    return [VolumeChoice(candidates[n].name, None, reason) for n in question.rng.permutation(len(candidates))]


def _stratified(question: _Question) -> Order:
    """Shuffle within groups that look alike, and take from each in proportion to its size.

    Labelled volumes count as taken. Volumes that were not encoded yet follow at random.
    """
    seen, unseen = _encoded(question.candidates), [v for v in question.candidates if v.embedding is None]
    order = _in_proportion(seen, _encoded(question.labelled), rng=question.rng) if seen else []
    rest = _random(replace(question, candidates=unseen))
    return order + [replace(c, reason=f"{c.reason}, not encoded yet") if seen else c for c in rest]


def _coverage(question: _Question) -> Order:
    """Put first what stands for most of the others; later what is unlike all that is labelled.

    Below COLD_START labels: the most typical volume of each of COLD_START groups without a label, largest group first
    (TypiClust, Hacohen et al., ICML 2022). After that the volume farthest from those labelled or chosen (k-center).
    """
    seen, unseen = _encoded(question.candidates), [v for v in question.candidates if v.embedding is None]
    if not seen:
        return [replace(c, reason=f"no volume has been encoded yet: {c.reason}") for c in _random(question)]
    known = _encoded(question.labelled)
    points, taken = _points([*known, *seen]), list(range(len(known)))
    placed = _typical(points, known=len(known), rng=question.rng) if len(question.labelled) < COLD_START else []
    taken += [number for number, _, _ in placed]
    placed += _farthest(points, taken, [n for n in range(len(known), len(points)) if n not in taken])
    order = [VolumeChoice(seen[n - len(known)].name, score, reason) for n, score, reason in placed]
    rest = _random(replace(question, candidates=unseen))
    return order + [VolumeChoice(c.name, None, "not encoded yet") for c in rest]


STRATEGIES: dict[str, Strategy] = {
    "random": _random,
    "strat_random": _stratified,
    "coverage": _coverage,
}
"""Every strategy by its name."""


def _encoded(volumes: Sequence[VolumeFeatures]) -> list[VolumeFeatures]:
    return [v for v in volumes if v.embedding is not None]


def _points(volumes: Sequence[VolumeFeatures]) -> Points:
    return to_points([v.embedding for v in volumes if v.embedding is not None])


def _in_proportion(
    seen: Sequence[VolumeFeatures], known: Sequence[VolumeFeatures], *, rng: np.random.Generator
) -> Order:
    """Take from the stratum that has got least of its share so far."""
    points = _points([*known, *seen])
    strata = clusters(points, min(MOST_STRATA, int(np.ceil(np.sqrt(len(points) / 2)))), rng=rng)
    sizes = np.bincount(strata).astype(float)
    taken = np.bincount(strata[: len(known)], minlength=len(sizes)).astype(float)
    waiting = {s: [n for n in rng.permutation(len(seen)) if strata[len(known) + n] == s] for s in range(len(sizes))}
    order: Order = []
    for _ in seen:
        owed = [sizes[s] * (taken.sum() + 1) / sizes.sum() - taken[s] + 1e-3 * rng.random() for s in waiting]
        stratum = max((s for s in waiting if waiting[s]), key=lambda s: owed[s])
        volume = seen[waiting[stratum].pop()]
        about = f"{sizes[stratum]:.0f} volumes, {taken[stratum]:.0f} of them labelled or offered before"
        order.append(VolumeChoice(volume.name, None, f"random within stratum {stratum + 1} of {len(sizes)} ({about})"))
        taken[stratum] += 1
    return order


def _typical(points: Points, *, known: int, rng: np.random.Generator) -> list[Placed]:
    """Place the most typical point of each group that has no known one."""
    groups = clusters(points, max(COLD_START, known + 1), rng=rng)
    near = neighbour_distance(points, neighbours=NEIGHBOURS)
    covered = set(groups[:known].tolist())
    sizes = np.bincount(groups)
    found: list[Placed] = []
    for group in sorted(set(groups.tolist()) - covered, key=lambda g: (-sizes[g], g)):
        members = np.flatnonzero(groups == group)
        best = int(members[near[members].argmin()])
        reason = f"most typical of {sizes[group]} volumes that look alike and have no label"
        found.append((best, 1.0 / max(float(near[best]), 1e-6), reason))
    return found


def _farthest(points: Points, chosen: Sequence[int], waiting: Sequence[int]) -> list[Placed]:
    """Place points by how far they are from all chosen ones, each counting as chosen in its turn."""
    rest = np.array(waiting, dtype=np.intp)
    far = cdist(points[rest], points[list(chosen)]).min(axis=1) if chosen else np.full(len(rest), np.inf)
    order: list[Placed] = []
    while len(rest) and len(order) < GREEDY:
        best = int(far.argmax()) if np.isfinite(far).all() else _central(points[rest])
        order.append(_placed(int(rest[best]), float(far[best])))
        far = np.minimum(far, cdist(points[rest], points[rest[best]][None])[:, 0])
        rest, far = np.delete(rest, best), np.delete(far, best)
    return order + [_placed(int(rest[n]), float(far[n])) for n in np.argsort(-far, kind="stable")]


def _placed(number: int, distance: float) -> Placed:
    if not np.isfinite(distance):
        return number, None, "nearest to the middle of all volumes"
    nearest = "the nearest volume that is labelled or comes before"
    return number, distance, f"{distance:.2f} of the usual distance from {nearest}"


def _central(points: Points) -> int:
    return int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())


FILE = "active.yaml"


@dataclass(frozen=True, slots=True)
class ActiveSettings:
    """What `configs/active.yaml` says; raises ConfigError if a value is unknown or out of range."""

    strategy: str = "strat_random"  # the campaign's own
    offered: tuple[str, ...] = ("random", "strat_random", "coverage")  # names in the clients' menus
    # embed volumes while the server is idle; otherwise strategies that need embeddings choose by chance
    background: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.offered:
            if name not in STRATEGIES:
                raise ConfigError(f"The setting offered in {FILE} names '{name}', which is no strategy. Remove it.")
        require_numbers(self, "seed", low=0, where=FILE)


def active_settings() -> ActiveSettings:
    """Read `configs/active.yaml`.

    Raises:
        ConfigError: the file is missing, or a setting is unknown or out of range.
    """
    return build(ActiveSettings, read_config(FILE), where=FILE)
