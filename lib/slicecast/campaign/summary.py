"""Numbers about a campaign, for pages and reports. Pure; what there is too little of is absent, never guessed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any

from slicecast.active.calibration import GATE, Calibration, Pair, Reliability, SliceFeatures, calibrate
from slicecast.campaign.state import Case, ReadingTask, State, Status

MIN_POINTS = 3  # Fewer submitted cases do not make a curve


@dataclass(frozen=True, slots=True)
class Person:
    """What one person did."""

    who: str
    cases: int  # submitted
    minutes: float | None  # of active time a case, median; None without any
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


def agreements(state: State, *, against: Iterable[str] = (ReadingTask.SECOND,)) -> list[Agreement]:
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
        reading = case.reading(ReadingTask.ANNOTATE)
        drafts = [c for c in case.comparisons if c["against"] == "draft"]
        if reading is not None and drafts:
            found.append((reading.when_s, drafts[-1]["dice"], reading.active_s / 60))
    found.sort()
    total, curve = 0.0, []
    for count, (_, dice, minutes) in enumerate(found, start=1):
        total += minutes
        curve.append((count, dice, total))
    return curve if len(curve) >= MIN_POINTS else []


def calibration(state: State) -> Calibration:
    """Return what the submitted labels taught about the newest model's confidence."""
    pairs, model = slice_pairs(state)
    return _calibrated(tuple(pairs), model)


def slice_pairs(state: State) -> tuple[list[Pair], str]:
    """Return the slices that a model answered and a person submitted, oldest first, and that newest model's hash."""
    found = sorted(
        ((c["when_s"], case.name, c) for case in state.cases.values() for c in case.comparisons if c.get("signs")),
        key=lambda entry: entry[:2],
    )
    model = str(found[-1][2].get("model_hash") or "") if found else ""
    of_model = [(name, c["signs"]) for _, name, c in found if str(c.get("model_hash") or "") == model]
    pairs = [Pair(name, SliceFeatures.from_row(row[:-1]), float(row[-1])) for name, rows in of_model for row in rows]
    return pairs, model


def calibration_words(found: Calibration) -> str:
    """Say in a sentence how well the confidence holds; empty where there is too little."""
    if found.before is None or found.after is None:
        return ""
    use = "The calibrated one is used." if found.holds else f"Below {GATE} it is not used: slices go by even steps."
    counts = f"{found.slices} slices of {found.volumes} submitted cases, each case judged by the others"
    words = f"as the model says it: {reliability_words(found.before)}; calibrated: {reliability_words(found.after)}"
    return f"{counts}. Confidence {words}. {use}"


def reliability_words(found: Reliability) -> str:
    """Return the three numbers in words."""
    return f"rank correlation {found.spearman:.2f}, calibration error {found.ece:.2f}, AURC {found.aurc:.2f}"


@lru_cache(maxsize=2)
def _calibrated(pairs: tuple[Pair, ...], model: str) -> Calibration:
    """The page and the server ask for the same one again and again."""
    return calibrate(pairs, model=model)


def rows(state: State) -> list[dict[str, Any]]:
    """Return one row per case for a table."""
    return [_row(case) for case in sorted(state.cases.values(), key=lambda case: case.name)]


def _row(case: Case) -> dict[str, Any]:
    reading = case.reading(ReadingTask.ANNOTATE)
    second: Mapping[str, Any] = next((c for c in reversed(case.comparisons) if c["against"] == ReadingTask.SECOND), {})
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
