"""Which slice to look at next: pure functions from what is known of an object's slices to one of them.

`u` is what is expected to be wrong on a slice, one minus its quality. Slice numbers are those of the evidence; the
reasons name none, since a caller may count slices otherwise.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import ConfigError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SliceEvidence:
    """What is known of one object on each of a volume's N slices; raises ConfigError if the arrays differ in length."""

    quality: Floats  # (N,) float in [0, 1], expected IoU; NaN where no track reached
    area_px: Floats  # (N,) predicted pixels, 0 where the object is not seen
    agreement: Floats  # (N,) Dice of the tracks from both sides; NaN where not two of them met
    annotated: Bools  # (N,) bool, has a prompt ("absent" included), or was accepted and locked
    clicks: Ints  # (N,) int, clicks on an annotated slice; 0 where something settled it: painted, accepted, absent
    calibrated: bool = False  # the qualities were fitted to true ones, so that the stop rule can trust their values

    def __post_init__(self) -> None:
        arrays = (self.quality, self.area_px, self.agreement, self.annotated, self.clicks)
        if len({array.shape for array in arrays}) != 1 or self.quality.ndim != 1:
            raise ConfigError(f"Evidence of slices has shapes {[a.shape for a in arrays]}; give one length for all.")

    @property
    def free(self) -> Bools:
        """Slices that may be suggested: answered by a track and not annotated."""
        return ~self.annotated & np.isfinite(self.quality)

    @property
    def doubtful(self) -> Bools:
        """Slices that were clicked on, and of which the model still expects an outline that is not good."""
        few = (self.clicks > 0) & (self.clicks < MOST_CLICKS)
        return few & (np.nan_to_num(self.quality, nan=1.0) < SETTLED)

    @property
    def wrong(self) -> Floats:
        """Expected share that is wrong, u = 1 - quality; 0 where annotated or unknown."""
        return np.where(self.free, 1.0 - np.nan_to_num(self.quality, nan=1.0), 0.0)

    @property
    def extent(self) -> tuple[int, int] | None:
        """First and last slice on which the object is seen, or None."""
        seen = np.flatnonzero(self.area_px > 0)
        return (int(seen[0]), int(seen[-1])) if len(seen) else None


@dataclass(frozen=True, slots=True)
class SliceChoice:
    """The slice to look at next, or that none is worth a look."""

    slice: int | None  # its number; None: good enough
    reason: str  # why, in words and numbers
    score: float  # the strategy's own measure, larger is more worth a look; comparable between objects
    strategy: str  # name of what chose, which differs from what was asked for where that had nothing to go by


SliceStrategy = Callable[[SliceEvidence], SliceChoice]

DEFAULT = "strided"

RHO = 0.85  # What a correction is worth one slice further on, as a share
ENOUGH = 0.1  # Nothing more is suggested where every calibrated u is below this
LOOK_COST = 0.2  # Nor where the best gain, in slices put right, is below what a look costs

SETTLED, MOST_CLICKS = 0.85, 4
"""A clicked slice is suggested again while its quality is below this and it has fewer clicks (decision 21)."""

ALIKE, JUMP_SHARE = 0.8, 0.4
"""Passes below this Dice, and neighbours' areas beyond this change, are named as what is striking."""


def suggest(strategy: str, evidence: SliceEvidence) -> SliceChoice:
    """Choose the next slice: one that was clicked on and is still doubtful, else what the strategy says.

    Raises:
        ConfigError: no strategy has that name.
    """
    choose = strategy_named(strategy)
    return _once_more(strategy, evidence) if evidence.doubtful.any() else choose(evidence)


def strategy_named(name: str) -> SliceStrategy:
    """Return a strategy; raises ConfigError if none has that name."""
    if name not in STRATEGIES:
        raise ConfigError(f"There is no slice strategy '{name}'. Choose one of: {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]


def best_of(choices: Iterable[SliceChoice]) -> SliceChoice | None:
    """Return the choice most worth a look, of several objects; None of none."""
    ranked = sorted(choices, key=lambda choice: (choice.slice is None, -choice.score, choice.slice or 0))
    return ranked[0] if ranked else None


def values(evidence: SliceEvidence, *, rho: float = RHO) -> Floats:
    """Return what annotating each slice is worth, (N,): u of the slices it would become nearest to, less with distance.

    V(z) = sum of u(z') rho^|z - z'| over all z' that are nearer to z than to every annotated slice.
    """
    numbers = np.arange(len(evidence.quality))
    apart = np.abs(numbers[:, None] - numbers[None, :])
    annotated = evidence.annotated
    nearest = apart[annotated].min(axis=0) if annotated.any() else np.full(len(numbers), np.inf)
    shares = np.where(apart < nearest, rho**apart, 0.0)
    return np.asarray(shares @ evidence.wrong, dtype=np.float64)


def _once_more(strategy: str, evidence: SliceEvidence) -> SliceChoice:
    """Take the clicked slice of the lowest quality: it comes before the widest gap."""
    number = _largest(1.0 - evidence.quality, evidence.doubtful)
    why = f"it was clicked on, but its quality is {evidence.quality[number]:.2f}: click where it is wrong, or lock it"
    return SliceChoice(number, why, float(len(evidence.quality)), strategy)


def _strided(evidence: SliceEvidence) -> SliceChoice:
    """Take the middle of the widest gap between annotated slices where the object is seen, then those past its ends."""
    if evidence.extent is None:
        return _enough("strided", "it is seen on no slice")
    first, last = _extent(evidence)
    annotated = np.flatnonzero(evidence.annotated[first : last + 1]) + first
    borders = [first - 1, *annotated.tolist(), last + 1]
    for low, high in sorted(pairwise(borders), key=lambda gap: gap[0] - gap[1]):
        free = [n for n in range(low + 1, high) if evidence.free[n]]
        if free:
            middle, width = min(free, key=lambda n: abs(2 * n - low - high)), high - low - 1
            return SliceChoice(middle, f"the middle of the widest gap, {_slices(width)}", float(width), "strided")
    for beyond in (first - 1, last + 1):
        if 0 <= beyond < len(evidence.annotated) and not evidence.annotated[beyond]:
            return SliceChoice(beyond, "the object may go on past its end", 1.0, "strided")
    return _enough("strided", "no gap is left between the annotated slices, nor past the ends")


def _worst(evidence: SliceEvidence) -> SliceChoice:
    """Take the slice of the lowest quality."""
    return _where_seen_first("worst", evidence, lambda part: part.wrong, least=ENOUGH)


def _disagree(evidence: SliceEvidence) -> SliceChoice:
    """Take the slice on which the passes from both sides differ most; where none met, the widest gap."""
    met = evidence.free & np.isfinite(evidence.agreement)
    if not met.any():
        choice = _strided(evidence)
        return replace(choice, reason=f"no slice was reached from two sides yet: {choice.reason}")
    apart = np.where(met, 1.0 - np.nan_to_num(evidence.agreement, nan=1.0), 0.0)
    number = _largest(apart, met)
    if apart[number] < ENOUGH:
        return _enough("disagree", f"the passes from both sides agree to Dice {1 - apart[number]:.2f} or better")
    why = f"the passes from both sides agree least here (Dice {1 - apart[number]:.2f})"
    return SliceChoice(number, why, float(apart[number]), "disagree")


def _value(evidence: SliceEvidence) -> SliceChoice:
    """Take the slice whose correction is worth most to itself and to those it would become nearest to."""
    return _where_seen_first("value", evidence, values, least=LOOK_COST)


def _where_seen_first(
    name: str, evidence: SliceEvidence, worth: Callable[[SliceEvidence], Floats], *, least: float
) -> SliceChoice:
    """Take the slice of the largest worth among those that show the object; if those are good enough, of all.

    Where the object is not seen the expected error is large and a correction changes few voxels: asking there first
    measured worse (docs/decisions/0021-slices-and-calibration.md). Only calibrated qualities can be good enough.
    """
    if not evidence.free.any():
        return _enough(name, "every slice is annotated")
    shown = replace(evidence, quality=np.where(evidence.area_px > 0, evidence.quality, np.nan))
    for part in (shown, evidence):
        gains = worth(part)
        number = _largest(gains, part.free)
        good = evidence.calibrated and (part.wrong.max() < ENOUGH or gains[number] < least)
        if part.free[number] and not good:
            return _chosen(name, part, gains, number)
    most, gain = evidence.wrong.max(), worth(evidence)[evidence.free].max()
    return _enough(
        name, f"no slice's expected error is above {most:.2f}, no correction is worth over {gain:.2f} slices"
    )


def _chosen(name: str, evidence: SliceEvidence, worth: Floats, number: int) -> SliceChoice:
    quality, gain = 1 - evidence.wrong[number], float(worth[number])
    if name == "worst":
        why = f"its quality is lowest ({quality:.2f})"
    else:
        why = f"a correction is worth most here, {gain:.2f} slices; its quality is {quality:.2f}"
    return SliceChoice(number, f"{why}: {_cause(evidence, number)}", gain, name)


def _cause(evidence: SliceEvidence, number: int) -> str:
    """Name what is most striking about a slice."""
    areas, agreement = evidence.area_px, evidence.agreement[number]
    if agreement < ALIKE:
        return f"the passes from both sides agree only to Dice {agreement:.2f}"
    if not areas[number]:
        return "the object may have been lost there"
    beside = [areas[n] for n in (number - 1, number + 1) if 0 <= n < len(areas)]
    jump = max((abs(area - areas[number]) / max(area, areas[number]) for area in beside), default=0.0)
    if jump > JUMP_SHARE:
        return f"the area changes by {jump:.0%} next to it"
    return "the model expects the outline to be least accurate there"


def _enough(name: str, why: str) -> SliceChoice:
    return SliceChoice(None, f"good enough: {why}", 0.0, name)


def _extent(evidence: SliceEvidence) -> tuple[int, int]:
    found = evidence.extent
    return (0, -1) if found is None else found


def _largest(measure: Floats, among: Bools) -> int:
    return int(np.argmax(np.where(among, measure, -np.inf)))


def _slices(count: int) -> str:
    return f"{count} slice" if count == 1 else f"{count} slices"


STRATEGIES: dict[str, SliceStrategy] = {
    "strided": _strided,
    "worst": _worst,
    "disagree": _disagree,
    "value": _value,
}
"""Every slice strategy by its name."""
