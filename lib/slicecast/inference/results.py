"""The result of a request on the stored grid, and its making from the engine's answer."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicecast.active.calibration import SliceFeatures
from slicecast.active.slices import Question, SliceChoice
from slicecast.engine.crop_window import paste
from slicecast.engine.postprocess import slice_confidence
from slicecast.engine.propagation import Prompts, Segmentation
from slicecast.engine.tracks import SliceResult
from slicecast.inference.advice import Advice
from slicecast.inference.studies import Study
from slicecast.volume import Geometry, SliceAxis, SliceStack, Window


@dataclass(frozen=True, slots=True)
class SliceConfidence:
    """How sure the model is of a slice (counted as stored).

    Args:
        value: expected IoU where the result is calibrated; else an order and no more.
        features: what it was judged by; None where the slice was prompted.
    """

    slice: int
    value: float
    features: SliceFeatures | None = None


@dataclass(frozen=True, slots=True)
class NextSlice:
    """The slice worth annotating next, counted as stored along the axis, and why.

    Args:
        score: the strategy's own measure; larger is more urgent.
        strategy: that chose it.
        question: `outline`: correct the outline; `present`: only answer whether the object is there.
    """

    slice: int
    axis: str
    reason: str
    score: float
    strategy: str = ""
    question: Question = "outline"


@dataclass(frozen=True, slots=True)
class StoppedAt:
    """Where an object's propagation ended before the volume, its range or the next prompted slice did.

    Args:
        object: its name.
        slice: the last slice that was answered, counted as stored.
        reason: ``gone``: the object is not there any more.
    """

    object: str
    slice: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class SliceUpdate:
    """One object on one slice, as soon as it is known.

    Args:
        slice: counted as stored along the slice axis.
        object: its name.
        mask: bool (H, W), the plane of the stored array [k, j, i] at that slice. Not yet tidied: the result is.
        confidence: in [0, 1], an order, not a probability.
        seconds: since the request began.
        reused: it was known from an earlier request.
        final: False where a second track is still to come.
    """

    slice: int
    object: str
    mask: NDArray[np.bool_]
    confidence: float
    seconds: float
    reused: bool = False
    final: bool = True


OnSlice = Callable[[SliceUpdate], None]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentResult:
    """A segmented image.

    Args:
        mask: uint8 [k, j, i] on the stored grid; 1.. in the order of the prompts' objects.
        geometry: the stored grid.
        labels: object name to value.
        confidence: of every slice that a track reached.
        next_slice: None where no slice needs one.
        seconds: read, encode (part of propagate), propagate, post, total.
        warnings: what the user should know about the image.
        axis: along which it was sliced.
        window: the window used.
        slices_encoded: slices that were not in the cache.
        slices_walked: slices answered, over all objects.
        slices_recomputed: answers that the model was asked for.
        slices_reused: answers known from earlier requests.
        stopped: where propagation ended early.
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
    found: Segmentation,
    advice: Advice,
    mask: NDArray[np.uint8],
    seconds: Mapping[str, float],
) -> SegmentResult:
    """Return what was found, with the stored grid's slice numbers.

    Args:
        names: of the objects, in the order of their labels.
        axis, window: along which, and with which, the volume was sliced.
        mask: see `to_stored`.
        seconds: see `Clock.seconds`.
    """

    def stored(number: int) -> int:
        return study.reorientation.to_source_slice(axis, number)

    name = axis.name.lower()
    slices = (SliceConfidence(stored(n), j.quality, j.features) for n, j in advice.slices.items())
    return SegmentResult(
        mask=mask,
        geometry=study.reorientation.source,
        labels={entry: n for n, entry in enumerate(names, start=1)},
        confidence=tuple(sorted(slices, key=lambda c: c.slice)),
        calibrated=advice.calibrated,
        next_slice=next_slice(advice.choice, name, stored),
        good_enough="" if advice.choice is None or advice.choice.slice is not None else advice.choice.reason,
        seconds=dict(seconds),
        warnings=_warnings(study, found, names),
        axis=name,
        window=window,
        slices_encoded=found.slices_encoded,
        slices_walked=found.slices_answered,
        slices_recomputed=found.slices_recomputed,
        slices_reused=found.slices_reused,
        stopped=tuple(
            StoppedAt(entry, stored(n), "gone") for entry, track in found.objects.items() for n in track.stopped
        ),
        partial=found.partial,
    )


def next_slice(choice: SliceChoice | None, axis: str, stored: Callable[[int], int]) -> NextSlice | None:
    """Return a choice with its stored slice number; None where no slice needs annotation."""
    if choice is None or choice.slice is None:
        return None
    return NextSlice(stored(choice.slice), axis, choice.reason, choice.score, choice.strategy, choice.question)


def result_callback(
    on_slice: OnSlice | None, study: Study, axis: SliceAxis, prompts: Prompts, clock: Clock
) -> Callable[[SliceResult], None]:
    """Return the engine's callback, which passes slices on to `on_slice` on the stored grid."""
    if on_slice is None:
        return lambda found: None
    shape = SliceStack(study.volume.array, axis).shape_hw
    painted = {(name, p.slice): p.mask for name, given in prompts.items() for p in given if p.mask is not None}

    def report(found: SliceResult) -> None:
        mask = painted.get((found.object, found.slice))
        if mask is None:
            there = found.answer.present
            mask = paste(found.answer.logits, found.crop, shape) > 0 if there else np.zeros(shape, dtype=bool)
        on_slice(
            SliceUpdate(
                slice=study.reorientation.to_source_slice(axis, found.slice),
                object=found.object,
                mask=study.reorientation.to_source_plane(axis, mask),
                confidence=slice_confidence(found.answer),
                seconds=clock.since_start(),
                reused=found.reused,
                final=found.final,
            )
        )

    return report


def _warnings(study: Study, found: Segmentation, names: Sequence[str]) -> tuple[str, ...]:
    flat = ["All voxels have the same value: there is nothing to see."] if study.constant else []
    missing = [
        f"'{name}' was not found from these prompts. Add a click, or paint it on one slice."
        for value, name in enumerate(names, start=1)
        if not found.partial and not any((label == value).any() for label in found.labels.values())
    ]
    unused = [
        f"Clicks on a painted slice of '{name}' were not used: what is painted stands. Paint the correction instead."
        for name, track in found.objects.items()
        if any(p.mask is not None and len(p.labels) for p in track.prompts)
    ]
    return (*study.volume.warnings, *flat, *missing, *unused)
