"""Estimates the quality of each slice of a result, and chooses the slice to annotate next.

The engine reports what it found and `active/` knows how to judge that; neither imports the other, so they meet here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicecast.active.calibration import Calibration, SliceFeatures
from slicecast.active.slices import SliceChoice, SliceEvidence, best_of, suggest
from slicecast.engine.postprocess import ObjectResult, probability_of_presence, slice_confidence
from slicecast.engine.propagation import Segmentation

BY_QUALITY = ("worst", "value")
"""Strategies that go by the confidence, and are useless where it does not rank."""

INSTEAD = "strided"


@dataclass(frozen=True, slots=True)
class Judged:
    """A slice's quality, calibrated or not, and what it was judged by; a prompted slice teaches nothing."""

    quality: float
    features: SliceFeatures | None


@dataclass(frozen=True, slots=True)
class Advice:
    """Quality and next slice of a result.

    Args:
        slices: by canonical number, of the object with the lowest quality there.
        choice: the next slice; None where there is no object at all.
        calibrated: whether the qualities were fitted to submitted labels.
    """

    slices: Mapping[int, Judged]
    choice: SliceChoice | None
    calibrated: bool


def advise(found: Segmentation, *, count: int, strategy: str, calibration: Calibration) -> Advice:
    """Judge every slice that was answered, and choose the next one.

    Args:
        count: slices of the volume.
        strategy: see `active/slices`.
        calibration: what submitted labels taught.
    """
    worst: dict[int, Judged] = {}
    choices = []
    for value, (name, track) in enumerate(found.objects.items(), start=1):
        areas = areas_of(found.labels, value, count=count)
        judged = judge(track, areas, calibration)
        for number, entry in judged.items():
            if number not in worst or entry.quality < worst[number].quality:
                worst[number] = entry
        choice = choose(evidence_of(track, areas, judged, calibrated=calibration.holds), strategy, calibration)
        choices.append(replace(choice, reason=f"{name}: {choice.reason}"))
    return Advice(dict(sorted(worst.items())), best_of(choices), calibration.holds)


def judge(track: ObjectResult, areas: NDArray[np.float64], calibration: Calibration) -> dict[int, Judged]:
    """Return the quality of every answered slice of one object."""
    features = dict(slice_features(track, areas))
    free = [number for number, answer in track.answers.items() if not answer.prompted and number in features]
    known = dict(zip(free, calibration.qualities([features[n] for n in free]).tolist(), strict=True))
    return {
        number: Judged(known[number], features[number]) if number in known else Judged(slice_confidence(answer), None)
        for number, answer in track.answers.items()
    }


def slice_features(track: ObjectResult, areas: NDArray[np.float64]) -> Iterator[tuple[int, SliceFeatures]]:
    """Yield (slice, features) of every answered slice of one object."""
    prompted = np.array([prompt.slice for prompt in track.prompts])
    for number, answer in track.answers.items():
        yield (
            number,
            SliceFeatures(
                raw=slice_confidence(answer),
                seen=answer.present,
                predicted_iou=float(np.clip(answer.predicted_iou, 0, 1)),
                presence=probability_of_presence(answer),
                agreement=answer.agreement,
                distance=float(np.abs(prompted - number).min()) if len(prompted) else float(len(areas)),
                area_ratio=_area_ratio(areas, number),
            ),
        )


def evidence_of(
    track: ObjectResult, areas: NDArray[np.float64], judged: Mapping[int, Judged], *, calibrated: bool
) -> SliceEvidence:
    """Return what a slice strategy goes by.

    The raw confidence of a slice without the object means nothing (docs/decisions/0021-slices-and-calibration.md), so
    such a slice is no candidate until labels were submitted.
    """
    quality, agreement = np.full(len(areas), np.nan), np.full(len(areas), np.nan)
    annotated, absent = np.zeros(len(areas), dtype=bool), np.zeros(len(areas), dtype=bool)
    met = track.met
    for number, answer in track.answers.items():
        if calibrated or answer.present:
            quality[number] = judged[number].quality
        if number in met:
            agreement[number] = answer.agreement
    for prompt in track.prompts:
        annotated[prompt.slice], absent[prompt.slice] = True, prompt.absent
    return SliceEvidence(quality, areas, agreement, annotated, absent, calibrated)


def choose(evidence: SliceEvidence, strategy: str, calibration: Calibration) -> SliceChoice:
    """Choose the next slice; by even steps where the confidence is known not to rank slices."""
    if strategy not in BY_QUALITY or not calibration.failed or calibration.after is None:
        return suggest(strategy, evidence)
    choice = suggest(INSTEAD, evidence)
    rank = f"rank correlation {calibration.after.spearman:.2f} on {calibration.slices} slices"
    return replace(choice, reason=f"{choice.reason}; the confidence does not rank slices here ({rank})")


def areas_of(labels: Mapping[int, NDArray[np.uint8]], value: int, *, count: int) -> NDArray[np.float64]:
    """Return an object's pixels on each slice, (count,)."""
    areas = np.zeros(count)
    for number, label in labels.items():
        areas[number] = np.count_nonzero(label == value)
    return areas


def _area_ratio(areas: NDArray[np.float64], number: int) -> float:
    """Return the smaller of a slice's and a neighbour's area over the larger, of both neighbours the less."""
    own = areas[number]
    beside = (areas[n] if 0 <= n < len(areas) else 0.0 for n in (number - 1, number + 1))
    return float(min(min(own, other) / max(own, other, 1.0) for other in beside))
