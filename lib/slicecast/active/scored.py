"""Orders by a score, and what may be put around one: chance, structures, cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from slicecast.active.features import HIGHER_IS_SURER, Choice, VolumeFeatures

MIXED = ("disagree", "cycle", "object_entropy")
"""The scores whose ranks `mean_rank` averages."""

SCORED = ("entropy_roi", "bald_roi", "disagree", "cycle", "confidence", "object_entropy", "mean_rank")
"""Scores that a strategy may be named after."""

STRUCTURE_SHARE = 0.66
"""Share of places that `clasp_` deals out among the structures (ClaSP PE, arXiv 2601.13677)."""

FIRST_BETA, LAST_BETA = 1.0, 100.0
"""How greedy `power_` is at the campaign's beginning and end."""

CHEAP, DEAR = 0.5, 2.0
"""Costs are clipped to these shares of the median: a prediction is no measurement."""

LEAST_SCORE = 1e-6


@dataclass(frozen=True, slots=True)
class Wish:
    """A score, and what is put around it.

    Args:
        score: its name.
        power: add chance.
        clasp: deal places out among the structures.
        per_cost: divide by the cost.
    """

    score: str
    power: bool = False
    clasp: bool = False
    per_cost: bool = False

    @staticmethod
    def parse(name: str) -> "Wish | None":
        """Read a strategy's name; None where it is not one."""
        rest, per_cost = name.removesuffix("_per_cost"), name.endswith("_per_cost")
        power, rest = rest.startswith("power_"), rest.removeprefix("power_")
        clasp, rest = rest.startswith("clasp_"), rest.removeprefix("clasp_")
        return Wish(rest, power, clasp, per_cost) if rest in SCORED else None

    @property
    def parts(self) -> tuple[str, ...]:
        """The scores that it is made of."""
        return MIXED if self.score == "mean_rank" else (self.score,)

    def split(self, volumes: Sequence[VolumeFeatures]) -> tuple[list[VolumeFeatures], list[VolumeFeatures]]:
        """Return the volumes that have a score, and those that have none."""
        has = [any(part in v.scores for part in self.parts) for v in volumes]
        pairs = list(zip(volumes, has, strict=True))
        return [v for v, known in pairs if known], [v for v, known in pairs if not known]


def scored_order(
    wish: Wish,
    volumes: Sequence[VolumeFeatures],
    labelled: Sequence[VolumeFeatures] = (),
    *,
    rng: np.random.Generator,
    progress: float = 0.0,
) -> list[Choice]:
    """Order volumes that all have the score, the most wanted first."""
    values = _wanted(wish, volumes, [v.scores for v in volumes])
    whole = _sorted(wish, volumes, values, rng=rng, progress=progress)
    structures = _structures(volumes, labelled) if wish.clasp else []
    if len(structures) < 2:
        return whole
    orders = {s: _order_of(wish, s, volumes, rng=rng, progress=progress) for s in structures}
    return _dealt(whole, orders, rng=rng)


def mean_rank(scores: Sequence[Mapping[str, float]], parts: Sequence[str]) -> NDArray[np.float64]:
    """Return each volume's mean rank over several scores, (N,) in (0, 1]: 1 is first in all of them.

    A score that a volume lacks does not count for it; equal values share their ranks.
    """
    ranks = np.full((len(parts), len(scores)), np.nan)
    for row, part in enumerate(parts):
        has = [n for n, own in enumerate(scores) if part in own]
        values = np.array([scores[n][part] for n in has])
        for n, value in zip(has, values, strict=True):
            below, same = (values < value).sum(), (values == value).sum()
            ranks[row, n] = (below + (same + 1) / 2) / len(values)
    counted = (~np.isnan(ranks)).sum(axis=0)
    return np.where(counted, np.nansum(ranks, axis=0) / np.maximum(counted, 1), 0.0)


def _wanted(
    wish: Wish, volumes: Sequence[VolumeFeatures], scores: Sequence[Mapping[str, float]]
) -> NDArray[np.float64]:
    """Return how much each volume is wanted, (N,): larger is more."""
    if wish.score == "mean_rank":
        wanted = mean_rank(scores, MIXED)
    else:
        raw = np.array([own[wish.score] for own in scores])
        wanted = 1.0 - raw if wish.score in HIGHER_IS_SURER else raw
    return wanted / _relative_cost(volumes) if wish.per_cost else wanted


def _relative_cost(volumes: Sequence[VolumeFeatures]) -> NDArray[np.float64]:
    """Return each volume's cost in units of the median, (N,); 1 where it is unknown."""
    known = [v.cost_s for v in volumes if v.cost_s is not None]
    middle = float(np.median(known)) if known else 1.0
    return np.array([1.0 if v.cost_s is None else np.clip(v.cost_s / middle, CHEAP, DEAR) for v in volumes])


def _sorted(
    wish: Wish,
    volumes: Sequence[VolumeFeatures],
    values: NDArray[np.float64],
    *,
    rng: np.random.Generator,
    progress: float,
    of: str = "",
) -> list[Choice]:
    keys = values
    if wish.power:
        beta = FIRST_BETA * (LAST_BETA / FIRST_BETA) ** progress
        keys = np.log(np.maximum(values, LEAST_SCORE)) + rng.gumbel(scale=1.0 / beta, size=len(values))
    place = {int(n): position for position, n in enumerate(np.argsort(-values, kind="stable"), start=1)}
    chosen = [int(n) for n in np.argsort(-keys, kind="stable")]
    chance = ", drawn with chance by score" if wish.power else ""
    about = {n: _said(wish, volumes[n], float(values[n]), of=of) for n in chosen}
    reasons = {n: f"{about[n]}: number {place[n]} of {len(values)} that were scored{chance}" for n in chosen}
    return [Choice(volumes[n].name, float(values[n]), reasons[n]) for n in chosen]


def _said(wish: Wish, volume: VolumeFeatures, value: float, *, of: str) -> str:
    """Word a volume's scores."""
    own = volume.scores_by_structure[of] if of else volume.scores
    said = ", ".join(f"{part} {own[part]:.3f}" for part in wish.parts if part in own)
    if wish.score == "mean_rank" and not wish.per_cost:
        said = f"mean rank {value:.2f} of {said}"
    if wish.per_cost:
        said += ", its cost is unknown" if volume.cost_s is None else f" for about {volume.cost_s:.0f} s of work"
    return f"{said} for '{of}'" if of else said


def _structures(volumes: Sequence[VolumeFeatures], labelled: Sequence[VolumeFeatures]) -> list[str]:
    """Return the structures that have scores, the one labelled least often first."""
    names = {name for v in volumes for name in v.scores_by_structure}
    return sorted(names, key=lambda name: (sum(name in v.scores_by_structure for v in labelled), name))


def _order_of(
    wish: Wish, structure: str, volumes: Sequence[VolumeFeatures], *, rng: np.random.Generator, progress: float
) -> list[Choice]:
    """Order the volumes by one structure's scores."""
    shown = [replace(v, scores=v.scores_by_structure.get(structure, {})) for v in volumes]
    has, _ = wish.split(shown)
    if not has:
        return []
    values = _wanted(wish, has, [v.scores for v in has])
    return _sorted(wish, has, values, rng=rng, progress=progress, of=structure)


def _dealt(whole: list[Choice], orders: Mapping[str, list[Choice]], *, rng: np.random.Generator) -> list[Choice]:
    """Deal out places: most go to the structures in turn, the others to the order by the whole volume's score."""
    taken: set[str] = set()
    rest, waiting = iter(whole), cycle([iter(order) for order in orders.values()])
    dealt: list[Choice] = []
    for special in rng.random(len(whole)) < STRUCTURE_SHARE:
        choice = _untaken(next(waiting), taken) if special else None
        choice = choice or _untaken(rest, taken)
        if choice is not None:
            taken.add(choice.name)
            dealt.append(choice)
    return dealt


def _untaken(order: Iterator[Choice], taken: set[str]) -> Choice | None:
    return next((choice for choice in order if choice.name not in taken), None)
