"""Segment with a volumetric model: the same requests and results as for SAM 2, other work between.

What the annotator said stands, whatever the model: painted slices are as painted, absent ones empty, clicked voxels on
or off the object, and a 3D box or a range confines it. A box, and up to `MOST_PAINTED` painted slices, also become
clicks: in its middle, and where the paint is deepest.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slicecast.active.slices import SliceEvidence, best_of, suggest
from slicecast.engine.caches import Lru
from slicecast.engine.postprocess import keep_connected, pointed_at
from slicecast.engine.tracks import Progress
from slicecast.engine.volumetric import FAR_LOGIT, CubeAnswer, GridClick, ObjectField, VolumePredictor, VolumeTracker
from slicecast.errors import ConfigError, Conflict
from slicecast.inference.queue import DeviceQueue
from slicecast.inference.results import Advice, Clock, OnSlice, SegmentResult, SliceConfidence, SliceUpdate, to_result
from slicecast.inference.segment import SegmentRequest
from slicecast.inference.settings import EngineSettings, engine_settings
from slicecast.inference.studies import Studies, Study
from slicecast.models.volumetric import load_volume_predictor
from slicecast.models.weights import choose_model
from slicecast.prompts import ObjectPrompts, SlicePrompt, first_clicked, place, standing_points
from slicecast.prompts.simulate import deepest_point
from slicecast.volume import Geometry, SliceAxis, SliceStack, Window, choose_axis
from slicecast.volume.isotropic import Isotropic, part_of, resample

Prompts = Mapping[str, Sequence[SlicePrompt]]


class LabelCanvas:
    """Labels of all objects on the canonical grid; 1.. in the order in which they are drawn.

    Args:
        study: the scan.
        axis: of its slices.
    """

    def __init__(self, study: Study, axis: SliceAxis) -> None:
        self._study = study
        self.labels = np.zeros(study.volume.array.shape, dtype=np.uint8)
        self._best = np.zeros(self.labels.shape, dtype=np.float16)  # the logit of each voxel's label
        self.slices = SliceStack(self.labels, axis)
        self._logits = SliceStack(self._best, axis)

    def draw(self, value: int, field: ObjectField, *, limits: tuple[int, int]) -> None:
        """Give an object the voxels where its logits are above 0 and above the others', within its slices."""
        place, logits = self._on_scan(field)
        best, labels = self._best[place], self.labels[place]
        mine, along = logits > best, 2 - self.slices.axis
        numbers = np.arange(self.slices.count)[place[along]]
        np.moveaxis(mine, along, 0)[(numbers < limits[0]) | (numbers >= limits[1])] = False
        best[mine], labels[mine] = logits[mine].astype(np.float16), value

    def _on_scan(self, field: ObjectField) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
        """Return the box of the scan that a field covers, and its logits there."""
        part, scan = part_of(field.grid, field.start, _shape(field)), self._study.reorientation.geometry
        ends = np.stack(np.meshgrid(*((0, n - 1) for n in part.size_ijk), indexing="ij"), axis=-1).reshape(-1, 3)
        corners = scan.world_to_index(part.index_to_world(ends))[:, ::-1]
        low = np.clip(np.floor(corners.min(axis=0)), 0, np.array(self.labels.shape) - 1).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + 1, low + 1, self.labels.shape).astype(int)
        target = part_of(scan, tuple(low.tolist()), tuple((high - low).tolist()))
        logits = resample(part.to_image(field.logits), target, outside=FAR_LOGIT)
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), logits

    def keep_clicked(self, prompts: Prompts) -> None:
        """Keep, of each object, the parts that hold a painted pixel, a boxed one or a positive click."""
        labels = np.moveaxis(self.labels, 2 - self.slices.axis, 0)
        for value, given in enumerate(prompts.values(), start=1):
            mask = labels == value
            labels[mask & ~keep_connected(mask, pointed_at(given, labels.shape))] = 0

    def say(self, prompts: Prompts) -> None:
        """Draw what the annotator said over all else; the object that comes last wins."""
        for value, given in enumerate(prompts.values(), start=1):
            for prompt in given:
                plane = self.slices.slice(prompt.slice)
                if prompt.absent or prompt.mask is not None:
                    plane[plane == value] = 0
                _say(plane, prompt, value)

    def evidence(self, value: int, given: Sequence[SlicePrompt], predicted_iou: float) -> SliceEvidence:
        """Return each slice's quality (mean probability inside the mask times predicted IoU), area and state."""
        count = self.slices.count
        quality, areas = np.full(count, np.nan), np.zeros(count)
        for number in range(count):
            mask = self.slices.slice(number) == value
            areas[number] = np.count_nonzero(mask)
            if areas[number]:
                logits = self._logits.slice(number)[mask].astype(np.float32)
                quality[number] = float((1 / (1 + np.exp(-logits))).mean()) * float(np.clip(predicted_iou, 0, 1))
        annotated = np.zeros(count, dtype=bool)
        annotated[[prompt.slice for prompt in given if not prompt.passed]] = True
        clicks = np.zeros(count, dtype=np.int64)  # when to click once more was measured for SAM 2 only
        return SliceEvidence(quality, areas, np.full(count, np.nan), annotated, clicks)


def _shape(field: ObjectField) -> tuple[int, int, int]:
    k, j, i = field.logits.shape
    return k, j, i


def _say(plane: NDArray, prompt: SlicePrompt, value: int) -> None:
    """Draw a slice's paint and clicks; a negative click takes its pixel from this object only."""
    if prompt.mask is not None:
        plane[prompt.mask] = value
    for (x, y), positive in zip(prompt.points_xy.astype(int).tolist(), prompt.labels.tolist(), strict=True):
        if positive:
            plane[y, x] = value
        elif plane[y, x] == value:
            plane[y, x] = 0


MOST_PAINTED = 5  # Painted slices of an object that become clicks, evenly spread


class Segmenter(Protocol):
    """What sessions, tasks and commands ask of a service, whatever its model."""

    studies: Studies
    settings: EngineSettings
    queue: DeviceQueue

    @property
    def model_name(self) -> str:
        """The model's name in the registry."""
        ...

    def fingerprint_of(self, name: str = "") -> str:
        """Say which weights answer for a version's name; changes whenever answers may change."""
        ...

    def model_for(self, name: str | None) -> str:
        """Return the model, or its version, that answers for a name that somebody asks for.

        Raises:
            Conflict: this service runs another model.
        """
        ...

    def segment(
        self,
        request: SegmentRequest,
        *,
        study: Study | None = None,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_slice: OnSlice | None = None,
        keep_partial: bool = False,
    ) -> SegmentResult:
        """Segment an image as requested; see `SegmentService.segment`."""
        ...


class VolumetricService:
    """Segments images with a volumetric model; safe to share between threads.

    Args:
        model: name in the registry.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
        predictor: use this one instead of loading a model.
        studies: opened images, shared with other services.
        queue: orders the work of all users, shared too.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        predictor: VolumePredictor | None = None,
        studies: Studies | None = None,
        queue: DeviceQueue | None = None,
    ) -> None:
        self.model_name = model
        self.studies = studies or Studies()
        self.queue = queue or DeviceQueue()
        self.settings = engine_settings()
        self._device, self._predictor, self._guard = device, predictor, threading.Lock()
        self._cache: Lru[Any] = Lru(self.settings.embedding_bytes())

    @property
    def predictor(self) -> VolumePredictor:
        """Return the model, loaded at first use; raises ResourceError if weights or device are missing."""
        with self._guard:
            if self._predictor is None:
                self._predictor = load_volume_predictor(
                    choose_model(self.model_name), device=self._device, openvino=self.settings.openvino
                )
            return self._predictor

    def fingerprint_of(self, name: str = "") -> str:
        """Say which weights answer; see `Segmenter`."""
        return self.predictor.fingerprint

    def model_for(self, name: str | None) -> str:
        """Return the model's name if it is asked for; see `Segmenter`."""
        if name not in (None, self.model_name):
            raise Conflict(f"The session asks for '{name}'; this service runs '{self.model_name}'.")
        return self.model_name

    def segment(
        self,
        request: SegmentRequest,
        *,
        study: Study | None = None,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_slice: OnSlice | None = None,
        keep_partial: bool = False,
    ) -> SegmentResult:
        """Segment an image as requested; see `SegmentService.segment`. There is no partial result.

        Raises:
            ConfigError: single slices are asked for, beside what `SegmentService.segment` raises.
        """
        if request.slices_only:
            raise ConfigError(f"{self.model_name} segments volumes, not single slices. Choose a SAM 2 for that.")
        clock = Clock()
        study = study or self.studies.open(request.image)
        axis = choose_axis(study.volume.geometry, request.axis)
        prompts, limits = place(request.prompts, study.reorientation, axis, within=request.range)
        clock.lap("read")
        trackers = self._trackers(study, study.window(request.window), progress, cancelled)
        fields = {e.name: _found(e, prompts[e.name], axis, study, trackers) for e in request.prompts.objects}
        clock.lap("propagate")
        keep = (request.options or self.settings.propagation).keep_components
        canvas = _drawn(study, axis, fields, prompts, limits, keep=keep)
        evidence = [
            canvas.evidence(value, prompts[name], field.predicted_iou)
            for value, (name, field) in enumerate(fields.items(), start=1)
        ]
        clock.lap("post")
        result = self._result(request, study, axis, trackers, canvas, evidence, clock)
        if on_slice is not None:
            for update in _updates(result, study, axis, canvas, evidence):
                on_slice(update)
        return result

    def _trackers(
        self,
        study: Study,
        window: Window,
        progress: Progress | None,
        cancelled: Callable[[], bool] | None,
    ) -> list[VolumeTracker]:
        """Return one for each scale."""
        predictor = _Queued(self.predictor, self.queue)
        stored = study.reorientation.source
        return [
            VolumeTracker(
                predictor,
                Isotropic(study.volume, predictor.grid(stored, scale), outside=predictor.outside),
                window,
                f"{study.digest}/{stored}/{window}/{scale}",  # the grid follows from how the scan lies and is stored
                self._cache,
                progress or (lambda done, what: None),
                cancelled or (lambda: False),
            )
            for scale in predictor.scales
        ]

    def _result(
        self,
        request: SegmentRequest,
        study: Study,
        axis: SliceAxis,
        trackers: Sequence[VolumeTracker],
        canvas: LabelCanvas,
        evidence: Sequence[SliceEvidence],
        clock: Clock,
    ) -> SegmentResult:
        names = request.prompts.names
        worst = np.fmin.reduce([entry.quality for entry in evidence])
        known = {n: SliceConfidence(n, float(worst[n])) for n in np.flatnonzero(np.isfinite(worst)).tolist()}
        strategy = request.slice_strategy or self.settings.slice_strategy
        advice = Advice(known, best_of([suggest(strategy, entry) for entry in evidence]), calibrated=False)
        missing = [name for name, entry in zip(names, evidence, strict=True) if not entry.area_px.any()]
        return to_result(
            names,
            study,
            axis,
            trackers[0].window,
            advice,
            np.ascontiguousarray(study.reorientation.to_source_array(canvas.labels)),
            clock.seconds(encode=sum(tracker.encode_s for tracker in trackers)),
            warnings=(*study.volume.warnings, *(f"'{name}' was not found from these prompts." for name in missing)),
            slices_encoded=sum(tracker.encoded for tracker in trackers),
            slices_walked=len(known),
            slices_recomputed=sum(tracker.answered for tracker in trackers),
        )


def _found(
    entry: ObjectPrompts, given: Sequence[SlicePrompt], axis: SliceAxis, study: Study, trackers: Sequence[VolumeTracker]
) -> ObjectField:
    """Segment an object at the scale at which the network doubts its answer to the first click least."""
    clicks = [list(_clicks(entry, given, axis, study, tracker.scan.grid)) for tracker in trackers]
    chosen = 0
    if len(trackers) > 1:
        firsts = [next(click for click in own if click.positive) for own in clicks]
        chosen = int(np.argmin([t.doubt(click) for t, click in zip(trackers, firsts, strict=True)]))
    return trackers[chosen].segment(clicks[chosen])


def _drawn(
    study: Study,
    axis: SliceAxis,
    fields: Mapping[str, ObjectField],
    prompts: Prompts,
    limits: Mapping[str, tuple[int, int]],
    *,
    keep: bool,
) -> LabelCanvas:
    canvas = LabelCanvas(study, axis)
    for value, (name, field) in enumerate(fields.items(), start=1):
        canvas.draw(value, field, limits=limits[name])
    if keep:
        canvas.keep_clicked(prompts)
    canvas.say(prompts)
    return canvas


def _clicks(
    entry: ObjectPrompts, given: Sequence[SlicePrompt], axis: SliceAxis, study: Study, grid: Geometry
) -> Iterator[GridClick]:
    """Yield an object's clicks on the isotropic grid: its points as given, after what boxes, paint and lines say."""

    def click(canonical_ijk: NDArray, *, positive: bool) -> GridClick:
        index = grid.world_to_index(study.reorientation.geometry.index_to_world(canonical_ijk))
        i, j, k = np.clip(np.rint(index), 0, np.subtract(grid.size_ijk, 1)).astype(int).tolist()
        return GridClick((k, j, i), positive)

    painted = [prompt for prompt in given if prompt.mask is not None]
    chosen = np.unique(np.linspace(0, len(painted) - 1, MOST_PAINTED).round().astype(int)) if painted else []
    for prompt in (painted[n] for n in chosen):
        y, x = deepest_point(prompt.mask)[0]
        yield click(axis.to_ijk(prompt.slice, x, y), positive=True)
    for prompt in given:
        if prompt.box_xyxy is not None:
            x, y = np.rint(prompt.box_xyxy.reshape(2, 2).mean(axis=0)).astype(int)
            yield click(axis.to_ijk(prompt.slice, x, y), positive=True)
    passed = [prompt for prompt in given if (prompt.labels == 1).any()]  # none where all that a line passes is painted
    if entry.lines and passed:
        first = first_clicked(passed)
        yield click(axis.to_ijk(first.slice, *first.points_xy[0].astype(int)), positive=True)
    for vertex in dict.fromkeys(vertex for line in entry.lines for vertex in line.vertices):
        yield click(study.reorientation.to_canonical_ijk(vertex), positive=True)
    for point in dict.fromkeys(standing_points(entry, study.reorientation, axis)):
        yield click(study.reorientation.to_canonical_ijk(point.ijk), positive=point.positive)


def _updates(
    result: SegmentResult, study: Study, axis: SliceAxis, canvas: LabelCanvas, evidence: Sequence[SliceEvidence]
) -> Iterator[SliceUpdate]:
    """Yield every slice that shows an object."""
    for (name, value), entry in zip(result.labels.items(), evidence, strict=True):
        for number in np.flatnonzero(entry.area_px).tolist():
            yield SliceUpdate(
                slice=study.reorientation.to_source_slice(axis, number),
                object=name,
                mask=study.reorientation.to_source_plane(axis, canvas.slices.slice(number) == value),
                confidence=float(np.nan_to_num(entry.quality[number])),
                seconds=result.seconds["total"],
            )


class _Queued:
    """A predictor whose every call is one step in the queue."""

    def __init__(self, predictor: VolumePredictor, queue: DeviceQueue) -> None:
        self._predictor, self._queue = predictor, queue
        self.side, self.outside, self.scales = predictor.side, predictor.outside, predictor.scales
        self.fingerprint = predictor.fingerprint

    def grid(self, stored: Geometry, scale: float = 1.0) -> Geometry:
        return self._predictor.grid(stored, scale)

    def encode(self, cube: NDArray[np.float32], window: Window) -> Any:
        with self._queue.step():
            return self._predictor.encode(cube, window)

    def segment(
        self, embedding: Any, points: NDArray[np.int64], positive: NDArray[np.bool_], previous: Any
    ) -> CubeAnswer:
        with self._queue.step():
            return self._predictor.segment(embedding, points, positive, previous)

    def propose(self, own: Any, mask: NDArray[np.bool_], neighbour: Any) -> NDArray[np.float32] | None:
        with self._queue.step():
            return self._predictor.propose(own, mask, neighbour)
