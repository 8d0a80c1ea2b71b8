"""Orders by chance and by place: plain random, random within strata, and coverage of what there is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slicecast.active.features import (
    Points,
    VolumeChoice,
    VolumeFeatures,
    clusters,
    distances,
    neighbour_distance,
    to_points,
)

MOST_STRATA = 8
COLD_START = 5
"""Labels below which coverage picks typical volumes; from then on the ones farthest from all that are labelled."""

NEIGHBOURS = 10
"""Typical is what is near to so many others."""

GREEDY = 256
"""Volumes ordered one by one; nobody gets to the ones behind before the order is made anew."""

Order = list[VolumeChoice]


def random_order(candidates: Sequence[VolumeFeatures], *, rng: np.random.Generator) -> Order:
    """Shuffle."""
    reason = f"random among {len(candidates)} without a label"
    return [VolumeChoice(candidates[n].name, None, reason) for n in rng.permutation(len(candidates))]


def stratified_order(
    candidates: Sequence[VolumeFeatures], labelled: Sequence[VolumeFeatures], *, rng: np.random.Generator
) -> Order:
    """Shuffle within groups that look alike, and take from each in proportion to its size.

    Labelled volumes count as taken. Volumes that were not encoded yet follow at random.
    """
    seen, unseen = _by_embedding(candidates)
    known, _ = _by_embedding(labelled)
    order = _in_proportion(seen, known, rng=rng) if seen else []
    rest = random_order(unseen, rng=rng)
    return order + [VolumeChoice(c.name, None, f"{c.reason}, not encoded yet") if seen else c for c in rest]


def coverage_order(
    candidates: Sequence[VolumeFeatures], labelled: Sequence[VolumeFeatures], *, rng: np.random.Generator
) -> Order:
    """Put first what stands for most of the others; later what is unlike all that is labelled.

    Below COLD_START labels: the most typical volume of each of COLD_START groups without a label, largest group first
    (TypiClust, Hacohen et al., ICML 2022). After that the volume farthest from those labelled or chosen (k-center).
    """
    seen, unseen = _by_embedding(candidates)
    if not seen:
        order = random_order(candidates, rng=rng)
        return [VolumeChoice(c.name, None, f"no volume has been encoded yet: {c.reason}") for c in order]
    known, _ = _by_embedding(labelled)
    points = _points([*known, *seen])
    numbers = range(len(known), len(points))
    typical = _typical(points, known=len(known), rng=rng) if len(labelled) < COLD_START else []
    taken = {number for number, _ in typical}
    rest = _farthest(points, list(range(len(known))) + list(taken), [n for n in numbers if n not in taken])
    names = [v.name for v in (*known, *seen)]
    order = [VolumeChoice(names[n], score, reason) for n, score, reason in _worded(typical, rest)]
    return order + [VolumeChoice(c.name, None, "not encoded yet") for c in random_order(unseen, rng=rng)]


def _by_embedding(
    volumes: Sequence[VolumeFeatures],
) -> tuple[list[VolumeFeatures], list[VolumeFeatures]]:
    return [v for v in volumes if v.embedding is not None], [v for v in volumes if v.embedding is None]


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


Placed = tuple[int, float, str]


def _typical(points: Points, *, known: int, rng: np.random.Generator) -> list[tuple[int, tuple[float, str]]]:
    """Return the most typical point of each group that has no known one: its number, and how typical."""
    groups = clusters(points, max(COLD_START, known + 1), rng=rng)
    near = neighbour_distance(points, neighbours=NEIGHBOURS)
    covered = set(groups[:known].tolist())
    sizes = np.bincount(groups)
    found = []
    for group in sorted(set(groups.tolist()) - covered, key=lambda g: (-sizes[g], g)):
        members = np.flatnonzero(groups == group)
        best = int(members[near[members].argmin()])
        typicality = 1.0 / max(float(near[best]), 1e-6)
        reason = f"most typical of {sizes[group]} volumes that look alike and have no label"
        found.append((best, (typicality, reason)))
    return found


def _farthest(points: Points, chosen: Sequence[int], waiting: Sequence[int]) -> list[tuple[int, float]]:
    """Order points by how far they are from all chosen ones, each counting as chosen in its turn."""
    rest = np.array(waiting, dtype=np.intp)
    far = distances(points[rest], points[list(chosen)]).min(axis=1) if chosen else np.full(len(rest), np.inf)
    order: list[tuple[int, float]] = []
    while len(rest) and len(order) < GREEDY:
        best = int(far.argmax()) if np.isfinite(far).all() else _central(points[rest])
        order.append((int(rest[best]), float(far[best])))
        far = np.minimum(far, distances(points[rest], points[rest[best]][None])[:, 0])
        rest, far = np.delete(rest, best), np.delete(far, best)
    behind = np.argsort(-far, kind="stable")
    return order + [(int(rest[n]), float(far[n])) for n in behind]


def _central(points: NDArray[np.float64]) -> int:
    return int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())


def _worded(
    typical: Sequence[tuple[int, tuple[float, str]]], rest: Sequence[tuple[int, float]]
) -> list[tuple[int, float | None, str]]:
    first: list[tuple[int, float | None, str]] = [(n, score, reason) for n, (score, reason) in typical]
    middle = "nearest to the middle of all volumes"
    far = "{:.2f} of the usual distance from the nearest volume that is labelled or comes before"
    return first + [(n, d if np.isfinite(d) else None, far.format(d) if np.isfinite(d) else middle) for n, d in rest]
