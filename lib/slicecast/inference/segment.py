"""Segment an image from prompts: what Python programs, the command line, the app and the server call."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicecast.active.calibration import UNCALIBRATED
from slicecast.active.slices import strategy_named
from slicecast.engine import propagation
from slicecast.engine.axes import AxisAnswer
from slicecast.engine.caches import CacheStats, EmbeddingCache, Lru, ResultCache
from slicecast.engine.options import EngineOptions
from slicecast.engine.ports import DevicePredictor
from slicecast.engine.tracks import RENDER_BYTES, Progress, Tracker
from slicecast.errors import ConfigError, Conflict, NotFound, OutOfMemory, SlicecastError
from slicecast.inference.axes import along_further_axes
from slicecast.inference.predictors import ON_THE_CPU, SMALLER_BATCHES, OutOfMemoryFallback, QueuedPredictor, Work
from slicecast.inference.prefetch import Prefetcher, PrefetchRequest, remaining_places
from slicecast.inference.processes import Worker
from slicecast.inference.progressive import step_by_step
from slicecast.inference.queue import DeviceQueue, QueueStats
from slicecast.inference.results import (
    Clock,
    OnSlice,
    SegmentResult,
    SliceTeller,
    advise,
    propagated,
    to_result,
    to_stored,
)
from slicecast.inference.settings import MB, EngineSettings, engine_settings
from slicecast.inference.studies import Studies, Study, open_study
from slicecast.models.graphs import PROGRESS
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2 import load_predictor
from slicecast.models.versions import ModelVersions, without_version
from slicecast.models.weights import choose_model
from slicecast.prompts import MaskPrompt, ObjectPrompts, Point, PromptSet, place
from slicecast.prompts.model import IJK, Named, collect_prompts
from slicecast.volume import Geometry, SliceStack, Volume, choose_axis

logger = logging.getLogger(__name__)

MAX_LOADED = 2  # Versions of the model in memory: the deployed one, and an earlier one that open sessions finish on


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
        options: of the propagation. Default: those of `configs/engine.yaml`.
        slice_strategy: which slice is suggested next (`active/slices`). Default: that of `configs/engine.yaml`.
        model: version of the model to use, such as `sam2_nano@2`. Default: the one that is deployed.
    """

    image: Path
    prompts: PromptSet
    axis: str = "auto"
    range: tuple[int, int] | None = None
    window: str = "auto"
    slices_only: bool = False
    options: EngineOptions | None = None
    slice_strategy: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        if self.slice_strategy:
            strategy_named(self.slice_strategy)


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """One request, its opened image and its callbacks; see :meth:`SegmentService.segment`."""

    request: SegmentRequest
    study: Study
    progress: Progress | None
    cancelled: Callable[[], bool] | None
    on_slice: OnSlice | None
    keep_partial: bool


class SegmentService:
    """Segments images; safe to share between threads, and without state of earlier requests but caches.

    Args:
        model: name in the registry. Default: see ``slicecast.models.weights``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
        predictor: use this one instead of loading a model.
        embedding_bytes: budget of encoded slices. Default: that of the settings.
        settings: what is kept. Default: `configs/engine.yaml`.
        fallback: makes the predictor for when the device's memory runs out. Default: the same model on the CPU.
        queue: orders the work of all users.
        versions: fine-tuned weights of the model; the deployed ones are used, from the next request on.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        device: str = "auto",
        predictor: DevicePredictor | None = None,
        embedding_bytes: int | None = None,
        settings: EngineSettings | None = None,
        fallback: Callable[[], DevicePredictor] | None = None,
        queue: DeviceQueue | None = None,
        versions: ModelVersions | None = None,
    ) -> None:
        self._model = model
        self._device = device
        self.queue = queue or DeviceQueue()
        self._guard = threading.Lock()
        self._given = None if predictor is None else QueuedPredictor(predictor, self.queue)
        self._versions = versions or ModelVersions()
        self._loaded: OrderedDict[str, QueuedPredictor] = OrderedDict()
        self.studies = Studies()
        self.settings = settings or engine_settings()
        self.cache = EmbeddingCache(embedding_bytes or self.settings.embedding_bytes())
        self.result_cache = ResultCache(self.settings.answer_mb * MB)
        self.prefetcher = Prefetcher(self.queue, self.cache, enabled=self.settings.idle_encode)
        self.calibration = UNCALIBRATED  # learnt from submitted labels; replaced as a whole by the campaign service
        self._fallback = fallback
        self._renders: Lru[NDArray[np.float32]] = Lru(RENDER_BYTES)
        self._last_resorts: dict[str, QueuedPredictor] = {}

    @cached_property
    def base(self) -> ModelSpec:
        """The model, with its own weights.

        Raises:
            UnknownModel: no model of that name.
            ConfigError: it is a volumetric one.
        """
        spec = choose_model(self._model)
        if spec.volumetric:
            raise ConfigError(f"{spec.name} sees volumes, not slices, so it cannot work in a SAM 2's place.")
        return spec

    @property
    def predictor(self) -> QueuedPredictor:
        """Return the model, with the weights that are deployed now; loaded at first use.

        Raises:
            ResourceError: weights or device are missing.
        """
        return self.predictor_named("")

    def predictor_named(self, name: str) -> QueuedPredictor:
        """Return the model with the weights of a version; "" for those that are deployed now.

        Raises:
            Conflict: there is no such version here.
            ResourceError: weights or device are missing.
        """
        if self._given and name not in ("", self._given.fingerprint):
            raise Conflict(_runs_another(name, self._given.fingerprint))
        with self._guard:
            return self._given or self._load(self.spec_named(name))

    def _load(self, spec: ModelSpec) -> QueuedPredictor:
        if spec.name not in self._loaded:
            settings = self.settings
            loaded = load_predictor(spec, device=self._device, compiled=settings.compile, openvino=settings.openvino)
            self._loaded[spec.name] = QueuedPredictor(loaded, self.queue)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(spec.name)
        return self._loaded[spec.name]

    def spec_named(self, name: str) -> ModelSpec:
        """Return the model with the weights of a version; "" for those that are deployed now.

        Raises:
            Conflict: there is no such version here.
        """
        try:
            return self._versions.named(name, self.base) if name else self._versions.serving(self.base)
        except NotFound as error:
            raise Conflict(_runs_another(name, self.base.name)) from error

    @property
    def work(self) -> Work:
        """What the model has done so far, in all versions that are loaded; nothing before the first."""
        done = [predictor.work for predictor in self._in_memory()]
        return Work(*(sum(getattr(work, kind) for work in done) for kind in ("encoded", "prompted", "tracked")))

    def _in_memory(self) -> list[QueuedPredictor]:
        return [self._given] if self._given else list(self._loaded.values())

    @property
    def model_name(self) -> str:
        """Return the name of the version in use, or the fingerprint of a predictor that was given.

        Raises:
            ResourceError: no model's weights are on this machine.
        """
        return self._given.fingerprint if self._given else self.spec_named("").name

    def model_for(self, name: str | None) -> str:
        """Return the version that answers for a name that somebody asks for: a version's, the model's or none.

        Raises:
            Conflict: this service runs another model.
        """
        running = self.model_name
        if name in (None, running, without_version(running)):
            return running
        if self._given:
            raise Conflict(_runs_another(str(name), running))
        return self.spec_named(str(name)).name

    def fingerprint_of(self, name: str = "") -> str:
        """Say which weights answer for a version's name; changes whenever answers may change."""
        return self.predictor_named(name).fingerprint

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
        """Segment an image as requested.

        Args:
            study: the request's image, by a caller that has opened it already. Default: it is opened here.
            progress: called after each batch of slices.
            cancelled: asked before each step.
            on_slice: called with every slice as soon as it is known, nearest to the prompted ones first.
            keep_partial: a cancelled request answers with what was done, instead of raising.

        Raises:
            VolumeError: the image cannot be used.
            PromptError: the prompts do not fit it.
            ConfigError: unknown axis, window or model.
            ResourceError: weights or device are missing.
            Cancelled: the user stopped it, and wants no partial result.
        """
        clock = Clock()
        study = study or self.studies.open(request.image)
        return self._answer(OpenedRequest(request, study, progress, cancelled, on_slice, keep_partial), clock)

    def _answer(self, work: OpenedRequest, clock: Clock) -> SegmentResult:
        request = work.request
        try:
            return self._carry_out(work, self.predictor_named(request.model), clock)
        except OutOfMemory:
            other = self._other_device(request.model)
            if other is None:
                raise
            result = self._carry_out(work, other, clock)
            return replace(result, warnings=(*result.warnings, ON_THE_CPU))

    @contextmanager
    def running(self, *, prepare: bool = False) -> Iterator[None]:
        """Work ahead while nobody asks, in threads, for as long as the block lasts.

        Args:
            prepare: load the model now, not at the first request.
        """
        stop = threading.Event()
        thread = threading.Thread(target=self.prepare, args=(stop.is_set,), name="slicecast-prepare")
        if prepare:
            thread.start()
        try:
            with self.prefetcher.running():
                yield
        finally:
            stop.set()
            if prepare:  # a process that ends in the middle of a graph's compilation is aborted
                thread.join()

    def prepare(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Load the model, and let it answer clicks on a small invented scan, so that the first user does not wait."""
        if self._given:
            return
        start = time.perf_counter()
        array = np.zeros((8, 64, 64), dtype=np.int16)
        array[1:7, 20:44, 20:44] = 100
        study = open_study(Volume(array, Geometry((64, 64, 8), (1.0, 1.0, 1.0))))
        clicks = tuple(Point((30, 30, k)) for k in (2, 5))
        request = SegmentRequest(Path("invented"), PromptSet((ObjectPrompts("invented", points=clicks),)))
        try:
            with self.queue.background(cancelled=cancelled):
                self.segment(request, study=study)
            PROGRESS.info("The model is ready after %.0f s.", time.perf_counter() - start)
        except SlicecastError as error:
            logger.info("The model was not prepared: %s", error)

    def cache_stats(self) -> CacheStats:
        """Return the counters of the cache of encoded slices."""
        return self.cache.stats()

    def step_stats(self) -> QueueStats:
        """Return state and counters of the queue for the model."""
        return self.queue.steps.stats()

    @property
    def workers(self) -> Sequence[Worker]:
        """The processes that answer requests; none where this one does."""
        return ()

    def release(self) -> None:
        """Give back the memory of what was kept between requests; loads no model for that."""
        self.cache.clear()
        self.result_cache.clear()
        for predictor in self._in_memory():
            predictor.release()

    def close(self) -> None:
        """Forget the models and what was kept between requests; whoever asks again loads them again."""
        self._loaded.clear()
        self._last_resorts.clear()
        self._renders.clear()
        self.cache.clear()
        self.result_cache.clear()

    def _carry_out(self, work: OpenedRequest, predictor: QueuedPredictor, clock: Clock) -> SegmentResult:
        request, study = work.request, work.study
        axis = choose_axis(study.volume.geometry, request.axis)
        window = study.window(request.window)
        prompts, limits = place(request.prompts, study.reorientation, axis, within=request.range)
        clock.lap("read")
        fallback = OutOfMemoryFallback(predictor, self.release)
        teller = SliceTeller(work.on_slice, study, axis, prompts, clock)
        tracker = Tracker(
            fallback,
            study.frames(axis, window),
            self.cache,
            request.options or self.settings.propagation,
            work.progress or (lambda done, what: None),
            work.cancelled or (lambda: False),
            self.result_cache,
            teller.tell,
            work.keep_partial,
            self._renders,
        )
        found = propagation.segment(tracker, prompts, limits=limits, slices_only=request.slices_only)
        if tracker.options.progressive and not (request.slices_only or found.partial):
            found = step_by_step(found, request.prompts, tracker, study.reorientation, axis, within=request.range)
        if tracker.options.multi_axis and not (request.slices_only or found.partial):
            answer = AxisAnswer(SliceStack(study.volume.array, axis), tracker, found)
            found = along_further_axes(answer, request.prompts, study, window, limits=limits)
        teller.tell_rest(found)
        if not request.slices_only and not found.partial:
            places = remaining_places(tracker.frames, found.objects)
            self.prefetcher.request(PrefetchRequest(predictor, tracker.frames, places))
        clock.lap("propagate")
        mask = to_stored(found, study, axis)
        strategy = request.slice_strategy or self.settings.slice_strategy
        learnt = self.calibration.of_model(predictor.fingerprint)
        advice = advise(found, count=tracker.frames.count, strategy=strategy, calibration=learnt)
        if request.slices_only:
            advice = replace(advice, choice=None)
        clock.lap("post")
        names, seconds = request.prompts.names, clock.seconds(encode=tracker.encode_s)
        rest = propagated(found, study, axis, names)
        result = to_result(names, study, axis, window, advice, mask, seconds, **rest)
        return replace(result, warnings=(*result.warnings, SMALLER_BATCHES)) if fallback.used else result

    def _other_device(self, name: str) -> QueuedPredictor | None:
        """Return the predictor for what the device has no memory for; None where there is no other."""
        predictor = self.predictor_named(name)
        with self._guard:
            if predictor.fingerprint not in self._last_resorts:
                make = self._fallback
                if make is None and not self._given and not predictor.on_cpu:
                    make = partial(load_predictor, self.spec_named(name), device="cpu")
                if make is None:
                    return None
                self._last_resorts = {predictor.fingerprint: QueuedPredictor(make(), self.queue, suffix="/fallback")}
            return self._last_resorts[predictor.fingerprint]


def _runs_another(asked: str, running: str) -> str:
    return f"'{asked}' was asked for; this service runs '{running}'. Start it with that model."


def segment(
    image: str | Path,
    *,
    points: Named[IJK] | None = None,
    negative: Named[IJK] | None = None,
    boxes: Named[tuple[IJK, IJK]] | None = None,
    masks: Named[np.ndarray | MaskPrompt] | None = None,
    absent: Named[int] | None = None,
    lines: Named[Sequence[IJK]] | None = None,
    axis: str = "auto",
    range: tuple[int, int] | None = None,
    window: str = "auto",
    options: EngineOptions | None = None,
    slice_strategy: str = "",
    service: SegmentService | None = None,
) -> SegmentResult:
    """Segment one or several objects of an image.

    Each kind of prompt is a list, or a mapping from object names to lists. Indices are those of the stored
    image, from 0.

    Args:
        image: file or DICOM folder.
        points: voxels (i, j, k) on the object.
        negative: voxels (i, j, k) beside it.
        boxes: pairs of opposite corners (i, j, k), both included.
        masks: painted slices, bool [k, j, i] on the image's grid.
        absent: slices that do not show the object.
        lines: each a list of voxels (i, j, k), from one to the next of which a line runs inside the object.
        axis: ``auto``, ``axial``, ``coronal`` or ``sagittal``.
        range: half-open, slices along the axis to stay within.
        window: window's name, ``low:high`` or ``auto``.
        slice_strategy: which slice is suggested next: ``strided``, ``worst``, ``disagree`` or ``value``.
            Default: that of ``configs/engine.yaml``.
        service: keeps model, images and encoded slices between calls. Default: a new one, with the default
            model; pass your own when you ask more than once.

    Raises:
        SlicecastError: see :meth:`SegmentService.segment`.
    """
    prompts = collect_prompts(points=points, negative=negative, boxes=boxes, masks=masks, absent=absent, lines=lines)
    request = SegmentRequest(Path(image), prompts, axis, range, window, options=options, slice_strategy=slice_strategy)
    return (service or SegmentService()).segment(request)
