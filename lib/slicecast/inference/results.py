"""The result of a request on the stored grid, made from the engine's answer: mask, quality of each slice, next slice.

The engine reports what it found and `active/` knows how to judge that; neither imports the other, so they meet here.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicecast.active.calibration import Calibration, SliceFeatures
from slicecast.active.slices import SliceChoice, SliceEvidence, best_of, suggest
from slicecast.engine.anchors import clicks_agree
from slicecast.engine.crop_window import paste
from slicecast.engine.fusion import SliceAnswer
from slicecast.engine.postprocess import ObjectResult, probability_of_presence, slice_confidence
from slicecast.engine.propagation import Prompts, Segmentation
from slicecast.engine.tracks import SliceResult
from slicecast.inference.studies import Study
from slicecast.volume import Geometry, SliceAxis, SliceStack, Window


@dataclass(frozen=True, slots=True)
class SliceConfidence:
    """How sure the model is of a slice: counted as stored in a `SegmentResult`, canonical in an `Advice`."""

    slice: int
    value: float  # expected IoU where the result is calibrated; else an order and no more
    # what it was judged by; None where the slice was prompted, which teaches nothing
    features: SliceFeatures | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """Quality and next slice of a result."""

    slices: Mapping[int, SliceConfidence]  # by canonical number, of the object with the lowest quality there
    choice: SliceChoice | None  # the next slice; None without an object
    calibrated: bool  # whether the qualities were fitted to submitted labels


@dataclass(frozen=True, slots=True)
class NextSlice:
    """The slice worth annotating next, counted as stored along the axis, and why."""

    slice: int
    axis: str
    reason: str
    score: float  # the strategy's own measure; larger is more urgent
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class StoppedAt:
    """Where an object's propagation ended before the volume, its range or the next prompted slice did."""

    object: str
    slice: int  # the last slice that was answered, counted as stored
    reason: str  # ``gone``: the object is not there any more


@dataclass(frozen=True, slots=True, eq=False)
class SliceUpdate:
    """One object on one slice, as soon as it is known."""

    slice: int  # counted as stored along the slice axis
    object: str
    # bool (H, W), the plane of the stored array [k, j, i] at that slice; the last that is told is the result's
    mask: NDArray[np.bool_]
    confidence: float  # in [0, 1], an order, not a probability
    seconds: float  # since the request began
    reused: bool = False  # it was known from an earlier request
    final: bool = True  # False where a second track is still to come


OnSlice = Callable[[SliceUpdate], None]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentResult:
    """A segmented image.

    Args:
        mask: uint8 [k, j, i] on the stored grid; 1.. in the order of the prompts' objects.
        labels: object name to value.
        confidence: of every slice that a track reached.
        next_slice: None where no slice needs one.
        seconds: read, encode (part of propagate), propagate, post, total.
        warnings: what the user should know about the image.
        axis: along which it was sliced.
        slices_encoded: slices that were not in the cache.
        slices_walked: slices answered, over all objects.
        slices_recomputed: answers that the model was asked for.
        slices_reused: answers known from earlier requests.
        partial: the work was cancelled; what was done by then is here.
        calibrated: the confidence was fitted to submitted labels.
        good_enough: why no slice needs annotation; empty where one does.
    """

    mask: NDArray[np.uint8]
    geometry: Geometry
    labels: dict[str, int]
    confidence: tuple[SliceConfidence, ...]
    next_slice: NextSlice | None
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    axis: str = "axial"
    window: Window | None = None
    slices_encoded: int = 0
    slices_walked: int = 0
    slices_recomputed: int = 0
    slices_reused: int = 0
    stopped: tuple[StoppedAt, ...] = ()
    partial: bool = False
    calibrated: bool = False
    good_enough: str = ""


def slice_counts(result: SegmentResult) -> dict[str, Any]:
    """Return what a result cost, and where propagation ended, as JSON values."""
    return {
        "recomputed": result.slices_recomputed,
        "reused": result.slices_reused,
        "encoded": result.slices_encoded,
        "stopped": [asdict(entry) for entry in result.stopped],
        "partial": result.partial,
    }


def voxel_counts(mask: NDArray[np.uint8], *, least: int) -> NDArray[np.int64]:
    """Count the voxels of each value; slice by slice, because counting needs eight bytes a voxel.

    Args:
        mask: uint8 [k, j, i].
        least: number of values to count at least.
    """
    counts = np.zeros(max(256, least), dtype=np.int64)
    for plane in mask:
        found = np.bincount(plane.ravel())
        counts[: len(found)] += found
    return counts


def objects_of(mask: NDArray[np.uint8], values: Mapping[str, int], geometry: Geometry) -> dict[str, dict[str, Any]]:
    """Return value, voxels and ml of each structure of a mask [k, j, i], by name, as JSON values."""
    voxels = voxel_counts(mask, least=max(values.values(), default=0) + 1)
    return {
        name: {
            "value": value,
            "voxels": int(voxels[value]),
            "ml": round(float(voxels[value] * geometry.voxel_volume_ml), 3),
        }
        for name, value in values.items()
    }


class Clock:
    """Seconds of each part of a request."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def since_start(self) -> float:
        """Return the seconds since it was made."""
        return time.perf_counter() - self._start

    def lap(self, name: str) -> None:
        """Note the time since the last lap under a name."""
        now = time.perf_counter()
        self._laps[name] = now - self._last
        self._last = now

    def seconds(self, **others: float) -> dict[str, float]:
        """Return the laps and, of ``propagate``, the part that was spent otherwise."""
        laps = {**self._laps, **others}
        laps["propagate"] -= sum(others.values())
        return {**laps, "total": self._last - self._start}


def to_stored(found: Segmentation, study: Study, axis: SliceAxis) -> NDArray[np.uint8]:
    """Return the labels as a mask [k, j, i] on the stored grid."""
    canonical = SliceStack(study.volume.array, axis).assemble(found.labels, dtype=np.uint8)
    return np.ascontiguousarray(study.reorientation.to_source_array(canonical))


def to_result(
    names: Sequence[str],
    study: Study,
    axis: SliceAxis,
    window: Window,
    advice: Advice,
    mask: NDArray[np.uint8],
    seconds: Mapping[str, float],
    **kind: Any,
) -> SegmentResult:
    """Return what was found, with the stored grid's slice numbers.

    Args:
        names: of the objects, in the order of their labels.
        axis, window: along which, and with which, the volume was sliced.
        mask: on the stored grid.
        kind: the other fields of the result, which each kind of model counts its own way.
    """

    def stored(number: int) -> int:
        return study.reorientation.to_source_slice(axis, number)

    name, choice = axis.name.lower(), advice.choice
    slices = (replace(entry, slice=stored(entry.slice)) for entry in advice.slices.values())
    hint = None
    if choice is not None and choice.slice is not None:
        hint = NextSlice(stored(choice.slice), name, choice.reason, choice.score, choice.strategy)
    return SegmentResult(
        mask=mask,
        geometry=study.reorientation.source,
        labels={entry: n for n, entry in enumerate(names, start=1)},
        confidence=tuple(sorted(slices, key=lambda c: c.slice)),
        calibrated=advice.calibrated,
        next_slice=hint,
        good_enough=choice.reason if choice is not None and hint is None else "",
        seconds=dict(seconds),
        axis=name,
        window=window,
        **kind,
    )


def propagated(found: Segmentation, study: Study, axis: SliceAxis, names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a result that only slices have that were propagated."""
    turn = study.reorientation
    stopped = ((name, number) for name, track in found.objects.items() for number in track.stopped)
    return {
        "warnings": _warnings(study, found, names),
        "slices_encoded": found.slices_encoded,
        "slices_walked": found.slices_answered,
        "slices_recomputed": found.slices_recomputed,
        "slices_reused": found.slices_reused,
        "stopped": tuple(StoppedAt(name, turn.to_source_slice(axis, number), "gone") for name, number in stopped),
        "partial": found.partial,
    }


class SliceTeller:
    """Tells `on_slice` of slices on the stored grid: each as soon as it is known, those that became different again.

    An answer that streams is not tidied yet, nor has it met the other structures' answers or those of further axes.

    Args:
        on_slice: None: nobody listens.
        study: of the request.
        axis: along which slices are counted.
        prompts: of each object; what is painted is shown as it was.
        clock: of the request.
    """

    def __init__(self, on_slice: OnSlice | None, study: Study, axis: SliceAxis, prompts: Prompts, clock: Clock) -> None:
        self._on_slice, self._study, self._axis, self._clock = on_slice, study, axis, clock
        self._shape_hw = SliceStack(study.volume.array, axis).shape_hw
        self._told: dict[tuple[str, int], tuple[bytes, bool]] = {}  # the mask, packed, and whether it was reused
        self._painted = {
            (name, p.slice): p.mask
            for name, given in prompts.items()
            for p in given
            if p.mask is not None and clicks_agree(p, p.mask)
        }

    def tell(self, found: SliceResult) -> None:
        """Tell of a slice as it is known now."""
        if self._on_slice is None:
            return
        mask = self._painted.get((found.object, found.slice))
        if mask is None:
            mask = self._empty
            if found.answer.present:
                mask = paste(found.answer.logits, found.crop, self._shape_hw) > 0
        self._send(found.object, found.slice, mask, found.answer, reused=found.reused, final=found.final)

    def tell_rest(self, found: Segmentation) -> None:
        """Tell again of the slices that are different in the result."""
        if self._on_slice is None:
            return
        for value, (name, result) in enumerate(found.objects.items(), start=1):
            shown = {number for number, label in found.labels.items() if (label == value).any()}
            for number in sorted(shown.union(place for told, place in self._told if told == name)):
                mask = found.labels[number] == value if number in shown else self._empty
                before, reused = self._told.get((name, number), (b"", False))
                if before != np.packbits(mask).tobytes():
                    self._send(name, number, mask, result.answers.get(number), reused=reused)

    @property
    def _empty(self) -> NDArray[np.bool_]:
        return np.zeros(self._shape_hw, dtype=np.bool_)

    def _send(
        self,
        name: str,
        number: int,
        mask: NDArray[np.bool_],
        answer: SliceAnswer | None,
        *,
        reused: bool,
        final: bool = True,
    ) -> None:
        self._told[name, number] = np.packbits(mask).tobytes(), reused
        assert self._on_slice is not None
        self._on_slice(
            SliceUpdate(
                slice=self._study.reorientation.to_source_slice(self._axis, number),
                object=name,
                mask=self._study.reorientation.to_source_plane(self._axis, mask),
                confidence=0.0 if answer is None else slice_confidence(answer),
                seconds=self._clock.since_start(),
                reused=reused,
                final=final,
            )
        )


def _warnings(study: Study, found: Segmentation, names: Sequence[str]) -> tuple[str, ...]:
    flat = ["All voxels have the same value: there is nothing to see."] if study.constant else []
    missing = [
        f"'{name}' was not found from these prompts. Add a click, or paint it on one slice."
        for value, name in enumerate(names, start=1)
        if not found.partial and not any((label == value).any() for label in found.labels.values())
    ]
    kept = [
        f"The clicks on a painted slice of '{name}' would leave nothing of it, so it stays. "
        "Erase it, or mark the slice absent."
        for name, track in found.objects.items()
        if any(p.mask is not None and not clicks_agree(p, p.mask) for p in track.prompts)
    ]
    return (*study.volume.warnings, *flat, *missing, *kept)


BY_QUALITY = ("worst", "value")
"""Strategies that go by the confidence, replaced by INSTEAD where it does not rank slices."""

INSTEAD = "strided"


def advise(found: Segmentation, *, count: int, strategy: str, calibration: Calibration) -> Advice:
    """Judge every slice that was answered, and choose the next one."""
    worst: dict[int, SliceConfidence] = {}
    choices = []
    for value, (name, track) in enumerate(found.objects.items(), start=1):
        areas = areas_of(found.labels, value, count=count)
        judged = judge(track, areas, calibration)
        for number, entry in judged.items():
            if number not in worst or entry.value < worst[number].value:
                worst[number] = entry
        choice = choose(evidence_of(track, areas, judged, calibrated=calibration.holds), strategy, calibration)
        choices.append(replace(choice, reason=f"{name}: {choice.reason}"))
    return Advice(dict(sorted(worst.items())), best_of(choices), calibration.holds)


def judge(track: ObjectResult, areas: NDArray[np.float64], calibration: Calibration) -> dict[int, SliceConfidence]:
    """Return the quality of every answered slice of one object."""
    features = dict(slice_features(track, areas))
    free = [number for number, answer in track.answers.items() if not answer.prompted and number in features]
    known = dict(zip(free, calibration.qualities([features[n] for n in free]).tolist(), strict=True))
    return {
        number: SliceConfidence(number, known[number], features[number])
        if number in known
        else SliceConfidence(number, slice_confidence(answer))
        for number, answer in track.answers.items()
    }


def slice_features(track: ObjectResult, areas: NDArray[np.float64]) -> Iterator[tuple[int, SliceFeatures]]:
    """Yield (slice, features) of every answered slice of one object."""
    prompted = np.array([prompt.slice for prompt in track.prompts if not prompt.passed])
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
    track: ObjectResult, areas: NDArray[np.float64], judged: Mapping[int, SliceConfidence], *, calibrated: bool
) -> SliceEvidence:
    """Return what a slice strategy goes by.

    The raw confidence of a slice without the object means nothing (docs/decisions/0021-slices-and-calibration.md), so
    such a slice is no candidate until labels were submitted.
    """
    quality, agreement = np.full(len(areas), np.nan), np.full(len(areas), np.nan)
    annotated, clicks = np.zeros(len(areas), dtype=bool), np.zeros(len(areas), dtype=np.int64)
    met = track.met
    for number, answer in track.answers.items():
        if calibrated or answer.present:
            quality[number] = judged[number].value
        if number in met:
            agreement[number] = answer.agreement
    for prompt in track.prompts:
        annotated[prompt.slice] = not prompt.passed
        clicks[prompt.slice] = 0 if prompt.passed or prompt.mask is not None else len(prompt.labels)
    return SliceEvidence(quality, areas, agreement, annotated, clicks, calibrated)


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
