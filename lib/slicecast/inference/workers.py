"""Segment in worker processes, each with a model and caches of its own, so that several cores work for several people.

A request goes to the worker that holds its volume, so that a correction finds there what it does not change. Voxels
are written once, to a file that the workers map into memory; prompts, slices and results go through pipes. A worker
holds nothing that cannot be computed again: where one dies, its requests begin again on another.
"""

import logging
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache

from slicecast.active.calibration import Calibration
from slicecast.engine.caches import CacheStats
from slicecast.errors import WorkerDied
from slicecast.inference.predictors import Work
from slicecast.inference.processes import Cancelled, Task, Tell, Worker
from slicecast.inference.queue import DeviceQueue, Priority, QueueSettings, QueueStats, current_job
from slicecast.inference.results import Clock, SegmentResult
from slicecast.inference.segment import OpenedRequest, SegmentRequest, SegmentService
from slicecast.inference.settings import MB
from slicecast.inference.studies import Study
from slicecast.models.graphs import PROGRESS
from slicecast.models.versions import ModelVersions
from slicecast.volume import Geometry, Reorientation, Volume

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # How often a request is begun whose worker dies: it may be the request that kills it
CROWDED = 3  # So many requests more than another worker has, and a volume moves to that one
PLACES = 256  # Volumes of which is known where they are
SHARED_MEMORY = Path("/dev/shm")  # Files in memory, where the system has them
SLICE, STEPS = "slice", "steps"


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has done and holds."""

    work: Work
    cache: CacheStats
    steps: QueueStats

    @staticmethod
    def of(service: SegmentService) -> "Load":
        """Ask a service."""
        return Load(service.work, service.cache_stats(), service.step_stats())


@dataclass(frozen=True, slots=True)
class SharedVolume:
    """A study whose voxels lie in a file."""

    file: Path
    geometry: Geometry
    meta: Mapping[str, Any]
    reorientation: Reorientation
    digest: str
    constant: bool

    def open(self) -> Study:
        """Map the voxels into memory."""
        array = np.asarray(np.load(self.file, mmap_mode="r", allow_pickle=False))
        return Study(Volume(array, self.geometry, self.meta), self.reorientation, self.digest, self.constant)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One request, as a worker carries it out."""

    request: SegmentRequest
    volume: SharedVolume
    calibration: Calibration
    user: str
    background: bool  # it waits for all others
    listens: bool  # slices are wanted as soon as they are known
    keep_partial: bool

    def __call__(self, service: SegmentService, tell: Tell, cancelled: Cancelled) -> tuple[SegmentResult, Load]:
        """Carry it out."""
        service.calibration = self.calibration
        queue = service.queue
        job = queue.background(cancelled=cancelled) if self.background else queue.job(self.user, cancelled=cancelled)
        with job:
            found = service.segment(
                self.request,
                study=service.studies.held((self.volume.file,), self.volume.open),
                progress=lambda done, what: tell(STEPS, (done, what)),
                cancelled=cancelled,
                on_slice=partial(tell, SLICE) if self.listens else None,
                keep_partial=self.keep_partial,
            )
        return found, Load.of(service)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The question which weights answer for a version's name."""

    name: str

    def __call__(self, service: SegmentService, tell: Tell, cancelled: Cancelled) -> tuple[str, Load]:
        """Answer it."""
        return service.fingerprint_of(self.name), Load.of(service)


class SharedVolumes:
    """Files of the voxels of studies, each for as long as the study is in memory.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._guard = folder, threading.Lock()
        self._known: weakref.WeakKeyDictionary[Study, SharedVolume] = weakref.WeakKeyDictionary()

    def of(self, study: Study) -> SharedVolume | None:
        """Return a study's file, written the first time; None where there is no room."""
        with self._guard:
            if study not in self._known:
                file = Path(tempfile.mkstemp(dir=self._folder, suffix=".npy")[1])
                try:
                    np.save(file, study.volume.array, allow_pickle=False)
                except OSError as error:
                    file.unlink()
                    logger.warning("A volume is worked on in the server's own process: %s: %s", self._folder, error)
                    return None
                weakref.finalize(study, file.unlink, missing_ok=True)
                volume = study.volume
                self._known[study] = SharedVolume(
                    file, volume.geometry, volume.meta, study.reorientation, study.digest, study.constant
                )
            return self._known[study]


class WorkersService(SegmentService):
    """A service whose requests are carried out by `settings.workers` processes while it is `running`.

    Where that is one, or none can be started, by this process itself.
    """

    _workers: tuple[Worker, ...] = ()

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._made_with = {key: given[key] for key in given.keys() & {"model", "device", "predictor"}}
        self._places: LRUCache[str, Worker] = LRUCache(PLACES)
        self._loads: dict[int, Load] = {}
        self._fingerprints: dict[str, str] = {}

    @contextmanager
    def running(self, *, prepare: bool = False) -> Iterator[None]:
        """Have worker processes, which prepare the model in any case, for as long as the block lasts."""
        count = self.settings.workers
        if count == 1:
            with super().running(prepare=prepare):
                yield
            return
        folder = Path(tempfile.mkdtemp(prefix="slicecast-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
        self._volumes = SharedVolumes(folder)
        self._workers = tuple(Worker(n, self._maker(count, folder)) for n in range(count))
        threading.Thread(target=self._announce, name="slicecast-announce", daemon=True).start()
        try:
            yield
        finally:
            workers, self._workers = self._workers, ()
            for worker in workers:
                worker.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _maker(self, count: int, folder: Path) -> Callable[[], Any]:
        """Return what makes a worker's service: of this one's settings, with its share of memory."""
        settings = replace(
            self.settings,
            workers=1,
            embedding_mb=max(1, self.settings.embedding_bytes() // count // MB),
            answer_mb=self.settings.answer_mb // count,
        )
        limits = self.queue.settings
        limits = replace(limits, per_user=limits.jobs + limits.waiting)  # the server's own queue has them by user
        return partial(_service, {**self._made_with, "settings": settings}, limits, self._versions.folder, folder)

    def _announce(self) -> None:
        start = time.perf_counter()
        workers = self._workers
        while self._workers and not all(worker.ready or worker.broken for worker in workers):
            time.sleep(0.1)
        if self._workers:
            count = sum(worker.ready for worker in workers)
            PROGRESS.info("%d worker processes are ready after %.0f s", count, time.perf_counter() - start)

    def _answer(self, work: OpenedRequest, clock: Clock) -> SegmentResult:
        """Answer a request in a worker; here where there is none.

        Raises:
            WorkerDied: every worker that took it up died.
        """
        shared = self._volumes.of(work.study) if self._usable() else None
        if shared is None:
            return super()._answer(work, clock)
        job = current_job()
        background, listens = job.priority is Priority.BACKGROUND, work.on_slice is not None
        task = Assignment(work.request, shared, self.calibration, job.user, background, listens, work.keep_partial)
        unwanted = work.cancelled or (lambda: False)

        def hear(kind: str, value: Any) -> None:
            if kind == SLICE and work.on_slice is not None:
                work.on_slice(value)
            elif kind == STEPS and work.progress is not None:
                work.progress(*value)

        try:
            return self._ask(work.study.digest, task, hear, lambda: unwanted() or job.cancelled())
        except WorkerDied:
            if self._usable():
                raise
        return super()._answer(work, clock)

    def fingerprint_of(self, name: str = "") -> str:
        """Say which weights answer for a version's name; changes whenever answers may change."""
        if self._given or not self._usable():
            return super().fingerprint_of(name)
        spec = self.spec_named(name)
        key = f"{spec.name}:{spec.sha256}"
        if key not in self._fingerprints:
            self._fingerprints[key] = self._ask(key, Fingerprint(name), lambda kind, value: None, lambda: False)
        return self._fingerprints[key]

    def _ask(self, place: str, task: Task, hear: Tell, cancelled: Cancelled) -> Any:
        """Have a task carried out by the worker of that place, and by another where it dies."""
        left = ATTEMPTS
        while True:
            worker = self._worker_of(place)
            try:
                value, self._loads[worker.number] = worker.carry_out(task, hear, cancelled)
                return value
            except WorkerDied as died:
                left -= died.working
                logger.warning("Worker %d died in the middle of a request; attempts left: %d", worker.number, left)
                if not left or not self._usable():
                    raise

    def _usable(self) -> bool:
        return any(not worker.broken for worker in self._workers)

    def _worker_of(self, digest: str) -> Worker:
        """Choose the worker that holds a volume, unless it is not there or another has far less to do."""
        with self._guard:
            usable = [worker for worker in self._workers if not worker.broken]
            if not usable:
                raise WorkerDied("No worker process can be started; the server's log says why.")
            held = list(self._places.values())
            idlest = min(usable, key=lambda w: (not w.ready, w.pending, held.count(w)))
            known = self._places.get(digest, idlest)
            if known not in usable or (idlest.ready and not known.ready) or known.pending >= idlest.pending + CROWDED:
                known = idlest
            self._places[digest] = known
            return known

    @property
    def work(self) -> Work:
        """What the models of this process and of the workers have done."""
        return _sum(super().work, *(load.work for load in self._loads.values()))

    def cache_stats(self) -> CacheStats:
        """Return the counters of all caches of encoded slices."""
        return _sum(super().cache_stats(), *(load.cache for load in self._loads.values()))

    def step_stats(self) -> QueueStats:
        """Return the counters of all models' queues."""
        return _sum(super().step_stats(), *(load.steps for load in self._loads.values()))

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The processes; none where this one does the work."""
        return self._workers


def _sum(first: Any, *others: Any) -> Any:
    """Add dataclasses of numbers, and of numbers by name, field by field."""

    def total(name: str) -> Any:
        values = [getattr(entry, name) for entry in (first, *others)]
        if isinstance(values[0], dict):
            return {key: sum(value[key] for value in values) for key in values[0]}
        return sum(values)

    return replace(first, **{field.name: total(field.name) for field in fields(first)})


@contextmanager
def _service(given: Mapping[str, Any], limits: QueueSettings, versions: Path, folder: Path) -> Iterator[SegmentService]:
    """Make a worker's service; in the end, where the server was killed, remove its files."""
    queue = DeviceQueue(limits)
    service = SegmentService(**given, queue=queue, versions=ModelVersions(versions))
    service.prepare()
    try:
        with service.prefetcher.running():
            yield service
    finally:
        server = parent_process()
        if server is None or not server.is_alive():
            shutil.rmtree(folder, ignore_errors=True)
