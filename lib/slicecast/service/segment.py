"""Segment an image from prompts: what the command line, the app and the server call."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.embeddings import EmbeddingCache
from slicecast.engine.options import EngineOptions
from slicecast.engine.ports import SlicePredictor
from slicecast.engine.propagate import Prompts, Segmentation, segment
from slicecast.engine.tracker import Progress, Tracker
from slicecast.errors import PromptError
from slicecast.models.sam2 import load_predictor
from slicecast.models.weights import choose_model
from slicecast.prompts import PromptSet, slice_ranges, to_slice_prompts
from slicecast.service.queue import DeviceQueue
from slicecast.service.studies import Studies, Study
from slicecast.service.turns import SharedPredictor, Work
from slicecast.volume import Geometry, Reorientation, SliceAxis, SliceStack, Window, choose_axis

EMBEDDING_BYTES = 1 << 30
"""Budget of encoded slices kept between requests."""

MAX_OBJECTS = 255
"""Labels are uint8."""


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """What to segment.

    Args:
        image: file or DICOM folder.
        prompts: in stored voxel indices.
        axis: ``auto``, ``axial``, ``coronal`` or ``sagittal``.
        range: half-open, slice numbers along the axis, counted as stored. Default: all.
        window: window's name or ``auto``.
        slices_only: answer the prompted slices only.
        options: settings of the engine.
    """

    image: Path
    prompts: PromptSet
    axis: str = "auto"
    range: tuple[int, int] | None = None
    window: str = "auto"
    slices_only: bool = False
    options: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True, slots=True)
class SliceConfidence:
    """How sure the model is of a slice (counted as stored): an order, not a probability."""

    slice: int
    value: float


@dataclass(frozen=True, slots=True)
class NextSlice:
    """The slice worth annotating next, counted as stored along the axis, and why."""

    slice: int
    axis: str
    reason: str
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class SegmentResult:
    """A segmented image.

    Args:
        mask: uint8 [k, j, i] on the stored grid; 1.. in the order of the prompts' objects.
        geometry: the stored grid.
        labels: object name to value.
        confidence: for every slice a lane reached.
        next_slice: None where no slice but the prompted ones shows an object.
        seconds: read, encode (part of propagate), propagate, post, total.
        warnings: what the user should know about the image.
        axis: along which it was sliced.
        window: the window used.
        slices_encoded: slices that were not in the cache.
        slices_walked: slices answered, over all objects.
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


class SegmentService:
    """Segments images; safe to share between threads, and without memory of earlier requests but caches.

    Args:
        model: name in the registry. Default: see ``slicecast.models.weights``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
        predictor: use this one instead of loading a model.
        embedding_bytes: budget of encoded slices.
        queue: orders the work of all users.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        device: str = "auto",
        predictor: SlicePredictor | None = None,
        embedding_bytes: int = EMBEDDING_BYTES,
        queue: DeviceQueue | None = None,
    ) -> None:
        self._model = model
        self._device = device
        self.queue = queue or DeviceQueue()
        self._guard = threading.Lock()
        self._predictor = None if predictor is None else SharedPredictor(predictor, self.queue)
        self.studies = Studies()
        self.cache = EmbeddingCache(embedding_bytes)

    @property
    def predictor(self) -> SharedPredictor:
        """Return the model, loaded at first use.

        Raises:
            ResourceError: weights or device are missing.
        """
        with self._guard:
            if self._predictor is None:
                loaded = load_predictor(choose_model(self._model), device=self._device)
                self._predictor = SharedPredictor(loaded, self.queue)
            return self._predictor

    @property
    def work(self) -> Work:
        """What the model has done so far; nothing while it is not loaded."""
        return Work() if self._predictor is None else self._predictor.work

    def segment(
        self,
        request: SegmentRequest,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> SegmentResult:
        """Carry out a request.

        Raises:
            VolumeError: the image cannot be used.
            PromptError: the prompts do not fit it.
            ConfigError: unknown axis, window or model.
            ResourceError: weights or device are missing.
            Cancelled: the user stopped it.
        """
        clock = _Clock()
        study = self.studies.open(Path(request.image))
        axis = choose_axis(study.volume.geometry, request.axis)
        window = study.window(request.window)
        prompts, limits = _place(request, study.reorientation, axis)
        clock.lap("read")
        tracker = Tracker(
            self.predictor,
            study.frames(axis, window),
            self.cache,
            request.options,
            progress or (lambda done, what: None),
            cancelled or (lambda: False),
        )
        found = segment(tracker, prompts, limits=limits, slices_only=request.slices_only)
        clock.lap("propagate")
        mask = _to_stored(found, study, axis)
        clock.lap("post")
        return _result(request, study, axis, window, found, mask, clock.seconds(encode=tracker.encode_s))


class _Clock:
    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = now - self._last
        self._last = now

    def seconds(self, **others: float) -> dict[str, float]:
        """Return the laps and, of ``propagate``, the part that was spent otherwise."""
        laps = {**self._laps, **others}
        laps["propagate"] -= sum(others.values())
        return {**laps, "total": self._last - self._start}


def _place(
    request: SegmentRequest, reorientation: Reorientation, axis: SliceAxis
) -> tuple[Prompts, dict[str, tuple[int, int]]]:
    """Bring prompts and ranges to canonical slices.

    Raises:
        PromptError: a prompt lies outside the range, or there are too many objects.
    """
    if len(request.prompts.objects) > MAX_OBJECTS:
        raise PromptError(
            f"{len(request.prompts.objects)} objects were given; one mask holds at most {MAX_OBJECTS}. "
            "Segment them in several requests."
        )
    prompts = to_slice_prompts(request.prompts, reorientation, axis)
    count = reorientation.geometry.size_ijk[axis]
    chosen = _canonical_range(request.range, reorientation, axis, count)
    boxes = slice_ranges(request.prompts, reorientation, axis)
    limits = {name: _overlap(boxes[name] or chosen, chosen) for name in prompts}
    for name, (low, high) in limits.items():
        for prompt in prompts[name]:
            if not low <= prompt.slice < high and not prompt.absent:
                stored = reorientation.to_source_slice(axis, prompt.slice)
                raise PromptError(
                    f"'{name}' has a prompt on {axis.name.lower()} slice {stored}, outside the range or the 3D box "
                    "it is confined to. Widen that or remove the prompt."
                )
    return prompts, limits


def _canonical_range(
    asked: tuple[int, int] | None, reorientation: Reorientation, axis: SliceAxis, count: int
) -> tuple[int, int]:
    if asked is None:
        return 0, count
    start, stop = asked
    if not 0 <= start < stop <= count:
        raise PromptError(
            f"The range {start}:{stop} does not fit the {count} {axis.name.lower()} slices. "
            f"Give start:stop with 0 <= start < stop <= {count}."
        )
    ends = sorted(reorientation.to_canonical_slice(axis, n) for n in (start, stop - 1))
    return ends[0], ends[1] + 1


def _overlap(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return max(first[0], second[0]), min(first[1], second[1])


def _to_stored(found: Segmentation, study: Study, axis: SliceAxis) -> NDArray[np.uint8]:
    canonical = SliceStack(study.volume.array, axis).assemble(found.labels, dtype=np.uint8)
    return np.ascontiguousarray(study.reorientation.to_source_array(canonical))


def _result(
    request: SegmentRequest,
    study: Study,
    axis: SliceAxis,
    window: Window,
    found: Segmentation,
    mask: NDArray[np.uint8],
    seconds: Mapping[str, float],
) -> SegmentResult:
    def stored(number: int) -> int:
        return study.reorientation.to_source_slice(axis, number)

    name = axis.name.lower()
    hint = found.suggestion
    return SegmentResult(
        mask=mask,
        geometry=study.reorientation.source,
        labels={entry: n for n, entry in enumerate(request.prompts.names, start=1)},
        confidence=tuple(
            sorted((SliceConfidence(stored(n), v) for n, v in found.confidence.items()), key=lambda c: c.slice)
        ),
        next_slice=None if hint is None else NextSlice(stored(hint.slice), name, hint.reason, hint.score),
        seconds=dict(seconds),
        warnings=_warnings(study, found, request),
        axis=name,
        window=window,
        slices_encoded=found.slices_encoded,
        slices_walked=found.slices_walked,
    )


def _warnings(study: Study, found: Segmentation, request: SegmentRequest) -> tuple[str, ...]:
    flat = ["All voxels have the same value: there is nothing to see."] if study.constant else []
    present = {int(v) for label in found.labels.values() for v in np.unique(label)}
    missing = [
        f"'{name}' was not found from these prompts. Add a click, or paint it on one slice."
        for value, name in enumerate(request.prompts.names, start=1)
        if value not in present
    ]
    unused = [
        f"Clicks on a painted slice of '{name}' were not used: what is painted stands. Paint the correction instead."
        for name, track in found.tracks.items()
        if any(p.mask is not None and len(p.labels) for p in track.prompts)
    ]
    return (*study.volume.warnings, *flat, *missing, *unused)
