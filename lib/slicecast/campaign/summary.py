"""Numbers about a campaign, for pages and reports. Pure; what there is too little of is absent, never guessed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median
from typing import Any

from slicecast.campaign.state import Case, State, Status, Task

MIN_POINTS = 3
"""Fewer submitted cases do not make a curve."""

MIN_SLICES = 50
"""Fewer slices do not make a calibration."""

BINS = 10


@dataclass(frozen=True, slots=True)
class Person:
    """What one person did.

    Args:
        cases: submitted.
        minutes: of active time a case, median; None without any.
    """

    who: str
    cases: int
    minutes: float | None
    total_minutes: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """A comparison of two labels of one case."""

    case: str
    against: str
    who: str
    dice: float
    nsd: float
    hd95_mm: float | None
    tolerance_mm: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Slices of like confidence: what was said, and what was so."""

    confidence: float
    dice: float
    slices: int


def progress(state: State) -> dict[str, int]:
    """Count the cases by status; gold ones are left out."""
    counts = {str(status): 0 for status in Status}
    for case in _ordinary(state):
        counts[str(case.status)] += 1
    return counts


def people(state: State) -> list[Person]:
    """Say what each person did, the busiest first."""
    readings = [reading for case in state.cases.values() for reading in case.readings if reading.who != "server"]
    names = sorted({reading.who for reading in readings})
    found = [_person(name, [reading.active_s / 60 for reading in readings if reading.who == name]) for name in names]
    return sorted(found, key=lambda person: (-person.cases, person.who))


def agreements(state: State, *, against: Iterable[str] = (Task.SECOND,)) -> list[Agreement]:
    """Return the comparisons with second readings or gold truths, oldest first."""
    wanted = {str(name) for name in against}
    found = [(c["when_s"], case.name, c) for case in state.cases.values() for c in case.comparisons]
    return [
        Agreement(name, c["against"], c["who"], c["dice"], c["nsd"], c["hd95_mm"], c["tolerance_mm"])
        for _, name, c in sorted(found, key=lambda entry: entry[:2])
        if c["against"] in wanted
    ]


def learning_curve(state: State) -> list[tuple[int, float, float]]:
    """Return (cases so far, Dice of the model's first answer with what was submitted, minutes so far)."""
    found = []
    for case in _ordinary(state):
        reading = case.reading(Task.ANNOTATE)
        drafts = [c for c in case.comparisons if c["against"] == "draft"]
        if reading is not None and drafts:
            found.append((reading.when_s, drafts[-1]["dice"], reading.active_s / 60))
    found.sort()
    total, curve = 0.0, []
    for count, (_, dice, minutes) in enumerate(found, start=1):
        total += minutes
        curve.append((count, dice, total))
    return curve if len(curve) >= MIN_POINTS else []


def calibration(state: State) -> list[Bin]:
    """Return BINS groups of slices of equal size by confidence, with their true Dice; empty with too few."""
    pairs = sorted(
        (float(said), float(so))
        for case in state.cases.values()
        for c in case.comparisons
        for said, so in c.get("slices") or ()
        if c["against"] == "draft"
    )
    if len(pairs) < MIN_SLICES:
        return []
    edges = [round(n * len(pairs) / BINS) for n in range(BINS + 1)]
    groups = [pairs[low:high] for low, high in pairwise(edges)]
    return [Bin(mean(p[0] for p in group), mean(p[1] for p in group), len(group)) for group in groups]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of confidence from Dice, weighted by slices."""
    return sum(abs(b.confidence - b.dice) * b.slices for b in bins) / sum(b.slices for b in bins)


def rows(state: State) -> list[dict[str, Any]]:
    """Return one row per case for a table."""
    return [_row(case) for case in sorted(state.cases.values(), key=lambda case: case.name)]


def _row(case: Case) -> dict[str, Any]:
    reading = case.reading(Task.ANNOTATE)
    second: Mapping[str, Any] = next((c for c in reversed(case.comparisons) if c["against"] == Task.SECOND), {})
    data: Mapping[str, Any] = reading.data if reading else {}
    return {
        "case": case.name,
        "status": str(case.status),
        "annotator": reading.who if reading else "",
        "submitted_s": reading.when_s if reading else "",
        "active_s": round(reading.active_s, 1) if reading else "",
        "predictions": case.predictions,
        "version": data.get("version", ""),
        "label_sha256": data.get("sha256", ""),
        "model": data.get("model", ""),
        "model_hash": data.get("model_hash", ""),
        "note": case.note,
        "second_reader": second.get("who", ""),
        "second_dice": second.get("dice", ""),
        "second_nsd": second.get("nsd", ""),
        "second_hd95_mm": second.get("hd95_mm", ""),
        "gold": int(case.gold),
    }


def _person(name: str, minutes: Sequence[float]) -> Person:
    return Person(name, len(minutes), median(minutes) if minutes else None, sum(minutes))


def _ordinary(state: State) -> list[Case]:
    return [case for case in state.cases.values() if not case.gold]
