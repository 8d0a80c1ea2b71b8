"""From the engine's answers to what comes back: the stored grid, its slice numbers, seconds and warnings."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from slicecast.active.slices import SliceChoice
from slicecast.engine.crop_window import paste
from slicecast.engine.postprocess import slice_confidence
from slicecast.engine.propagation import Prompts, Segmentation
from slicecast.engine.tracks import SliceResult
from slicecast.inference.advice import Advice
from slicecast.inference.request import SegmentRequest
from slicecast.inference.results import NextSlice, OnSlice, SegmentResult, SliceConfidence, SliceUpdate, StoppedAt
from slicecast.inference.studies import Study
from slicecast.volume import SliceAxis, SliceStack, Window


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
    request: SegmentRequest,
    study: Study,
    axis: SliceAxis,
    window: Window,
    found: Segmentation,
    advice: Advice,
    mask: NDArray[np.uint8],
    seconds: Mapping[str, float],
) -> SegmentResult:
    """Say what was found in the stored grid's terms."""

    def stored(number: int) -> int:
        return study.reorientation.to_source_slice(axis, number)

    name = axis.name.lower()
    slices = (SliceConfidence(stored(n), j.quality, j.features) for n, j in advice.slices.items())
    return SegmentResult(
        mask=mask,
        geometry=study.reorientation.source,
        labels={entry: n for n, entry in enumerate(request.prompts.names, start=1)},
        confidence=tuple(sorted(slices, key=lambda c: c.slice)),
        calibrated=advice.calibrated,
        next_slice=next_slice(advice.choice, name, stored),
        good_enough="" if advice.choice is None or advice.choice.slice is not None else advice.choice.reason,
        seconds=dict(seconds),
        warnings=_warnings(study, found, request),
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
    """Return a choice in the stored grid's terms; None where nothing is worth a look."""
    if choice is None or choice.slice is None:
        return None
    return NextSlice(stored(choice.slice), axis, choice.reason, choice.score, choice.strategy, choice.question)


def result_callback(
    on_slice: OnSlice | None, study: Study, axis: SliceAxis, prompts: Prompts, clock: Clock
) -> Callable[[SliceResult], None]:
    """Return what carries the engine's answers to whoever wants them, on the stored grid."""
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


def _warnings(study: Study, found: Segmentation, request: SegmentRequest) -> tuple[str, ...]:
    flat = ["All voxels have the same value: there is nothing to see."] if study.constant else []
    missing = [
        f"'{name}' was not found from these prompts. Add a click, or paint it on one slice."
        for value, name in enumerate(request.prompts.names, start=1)
        if not found.partial and not any((label == value).any() for label in found.labels.values())
    ]
    unused = [
        f"Clicks on a painted slice of '{name}' were not used: what is painted stands. Paint the correction instead."
        for name, track in found.objects.items()
        if any(p.mask is not None and len(p.labels) for p in track.prompts)
    ]
    return (*study.volume.warnings, *flat, *missing, *unused)
