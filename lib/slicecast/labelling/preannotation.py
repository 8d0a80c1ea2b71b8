"""Pre-annotations: masks of images without a label, made by the campaign's network that segments without prompts.

After a label is submitted the next images get one, under the tag `original`, which Slicer loads with Next Sample. Batch
inference makes them for many images, one after the other, on request: MONAI Label would start a second app on the same
studies, which needs CUDA. Here one thread of this process works at the lowest priority of the device queue, so users do
not notice it, or hands the images to a Ray cluster. Images that have a label or a pre-annotation are skipped, so a
batch that was stopped, or lost with the server, goes on when asked again.
"""

import logging
import queue
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from monailabel.interfaces.datastore import Datastore

from slicecast.databases import is_disk_full
from slicecast.errors import Cancelled, InputError, NotFound, SlicecastError, TooMany, UnknownImage
from slicecast.files import temporary
from slicecast.inference.segment import SegmentService
from slicecast.inference.settings import engine_settings
from slicecast.labelling.finetuning.automatic import MODEL, UNTRAINED, AutomaticModel, AutomaticModels
from slicecast.labelling.store.labels import FINAL, ORIGINAL, names_of
from slicecast.labelling.tasks.request import number_labels
from slicecast.models.versions import ModelVersions
from slicecast.training.executor import each_part
from slicecast.volume import Geometry, Volume, read_volume, write_mask, write_volume

logger = logging.getLogger(__name__)

AHEAD = 8
"""Images that get a pre-annotation after each submitted label: few, so that newer networks are used for the rest."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A pre-annotation that is not kept yet."""

    model: str  # what made it
    mask: bytes  # a .nii.gz file
    params: Mapping[str, Any]  # of its record


def guess(
    path: Path,
    service: SegmentService,
    models: AutomaticModels,
    labels: Sequence[str],
    *,
    device: str = "auto",
    cancelled: Callable[[], bool] = lambda: False,
) -> Guess:
    """Segment an image.

    Args:
        path: file or folder of the image.
        service: whose opened scans and device queue are used.
        models: the campaign's networks.
        labels: the app's, whose numbers the mask has.
        device: of the network.
        cancelled: asked before it begins.

    Raises:
        Cancelled: it was stopped.
        NotFound: there is no network yet.
        SlicecastError: the image cannot be used.
    """
    network = models.latest()
    if network is None:
        raise NotFound(UNTRAINED)
    study, values = service.studies.open(path), number_labels(network.plan.names, labels)
    with service.queue.background(cancelled=cancelled), service.queue.step():
        mask = models.segment(network, study, values, device=device)
    present = {name: value for name, value in values.items() if (mask == value).any()}
    with tempfile.TemporaryDirectory(prefix="slicecast-") as folder:
        file = write_mask(Path(folder) / "mask.nii.gz", mask, study.reorientation.source)
        return Guess(network.name, file.read_bytes(), {"label_names": present})


@dataclass(frozen=True, slots=True)
class FarGuess:
    """A guess as a task of a cluster, whose workers keep their networks."""

    folder: Path  # of the campaign's versions
    labels: tuple[str, ...]  # the app's
    device: str  # of the networks

    def __call__(self, path: Path) -> Guess | str:
        """Guess as :func:`guess` does, with the reason as text where the image cannot be used."""
        try:
            return guess(path, *_kept_by_a_worker(self), self.labels, device=self.device)
        except SlicecastError as error:
            return str(error)


@cache
def _kept_by_a_worker(far: FarGuess) -> tuple[SegmentService, AutomaticModels]:
    return SegmentService(), AutomaticModels(ModelVersions(far.folder))


class PreAnnotator:
    """Makes pre-annotations in one background thread, at the lowest priority of the device queue.

    Args:
        labels: the app's, whose numbers the masks have.
        automatic: the campaign's networks.
        device: of the network.
    """

    def __init__(
        self,
        service: SegmentService,
        store: Datastore,
        labels: Sequence[str],
        automatic: AutomaticModels,
        *,
        device: str = "auto",
    ) -> None:
        self._store = store
        self._guess = partial(guess, service=service, models=automatic, labels=tuple(labels), device=device)
        self._automatic = automatic
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="pre-annotation", daemon=True).start()

    def go_on(self) -> None:
        """Make the next few, in the background."""
        self._asked.put(self._next_ones)

    def wait(self, timeout_s: float) -> bool:
        """Return once everything asked for so far is done; False when that takes too long."""
        done = threading.Event()
        self._asked.put(done.set)
        return done.wait(timeout_s)

    def make(self, image_id: str, *, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Give an image a pre-annotation; the errors are those of :func:`guess`."""
        self.keep(image_id, self._guess(self.path(image_id), cancelled=cancelled))

    def path(self, image_id: str) -> Path:
        """Return an image's file or folder."""
        return Path(self._store.get_image_uri(image_id))

    def keep(self, image_id: str, found: Guess) -> None:
        """Keep a pre-annotation, unless the image got a label meanwhile."""
        if not self.is_open(image_id):
            return
        with tempfile.TemporaryDirectory(prefix="slicecast-") as folder:
            file = Path(folder) / "mask.nii.gz"
            file.write_bytes(found.mask)
            self._store.save_label(image_id, str(file), ORIGINAL, {"model": found.model, "params": dict(found.params)})
        logger.info("'%s' has a pre-annotation, by %s", image_id, found.model)

    def network(self) -> AutomaticModel | None:
        """Return the campaign's network; None before there is one."""
        return self._automatic.latest()

    def automatic(self, image_id: str) -> None:
        """Give an image a pre-annotation now, if there is a network and the image is open."""
        if self.network() is not None and self.is_open(image_id):
            self.make(image_id)

    def is_open(self, image_id: str) -> bool:
        """Tell whether an image has no label, and no pre-annotation but one of an older network."""
        if self._store.get_label_uri(image_id, FINAL):
            return False
        if not self._store.get_label_uri(image_id, ORIGINAL):
            return True
        network, info = self.network(), self._store.get_label_info(image_id, ORIGINAL) or {}
        made = str(info.get("model", ""))
        return network is not None and made.startswith(f"{MODEL}@") and made != network.name

    def _next_ones(self) -> None:
        if self.network() is None:
            return
        waiting = [name for name in sorted(self._store.get_unlabeled_images()) if self.is_open(name)]
        for name in waiting[:AHEAD]:
            try:
                self.make(name)
            except SlicecastError as error:
                logger.warning("'%s' gets no pre-annotation: %s", name, error)

    def _work(self) -> None:
        while True:
            try:
                self._asked.get()()
            except Exception:  # a background thread's outermost boundary: it would be lost otherwise
                logger.exception("Pre-annotation failed")


NOTHING = "There is no automatic model and no pre-annotation. Place points and choose one of the interactive models."


def preannotation(store: Datastore, image_id: str, *, geometry: Geometry, labels: Sequence[str]) -> dict[str, Any]:
    """Return the pre-annotation as an infer answer, `file` and `params`; without one an empty mask.

    Args:
        labels: the app's, which are named where there is no pre-annotation, or it names nothing.
    """
    uri = store.get_label_uri(image_id, ORIGINAL)
    if not uri:
        empty = Volume(np.zeros(geometry.size_ijk[::-1], np.uint8), geometry)
        return _answer(empty, {"label_names": number_labels(labels, labels), "warnings": [NOTHING]})
    mask = read_volume(uri)
    present = np.unique(mask.array).tolist()
    names = names_of(store.get_label_info(image_id, ORIGINAL) or {}, present, labels)
    return _answer(mask, {"label_names": {name: n for name, n in names.items() if n in present}, "warnings": []})


def _answer(mask: Volume, params: dict[str, Any]) -> dict[str, Any]:
    with temporary(".nrrd") as path:
        write_volume(path, mask, compress=False)
    return {"file": str(path), "params": params}


KEPT = 16  # Batches of which the state is kept

DONE, SKIPPED = "done", "skipped: it has a label or a pre-annotation"


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What to answer."""

    images: str | Sequence[str] = "all"  # `all`, `labeled`, `unlabeled`, or ids
    most: int = 0  # at most so many of them, in the order of their ids; 0 for all

    @classmethod
    def parse(cls, model: str, images: str, params: Mapping[str, Any]) -> "BatchRequest":
        """Read MONAI Label's request; what is said of devices and workers is decided by the device queue.

        Raises:
            InputError: the model, tag, ids or number cannot be.
        """
        if model != MODEL:
            raise InputError(f"Batch inference is done by '{MODEL}' only, without prompts, not by '{model[:100]}'.")
        tag = params.get("label_tag") or ORIGINAL
        if tag != ORIGINAL:
            raise InputError(f"Batch inference writes the tag '{ORIGINAL}' only, not {str(tag)[:100]!r}.")
        chosen, most = params.get("images", images), params.get("max_batch_size", 0)
        is_ids = isinstance(chosen, list) and all(isinstance(name, str) for name in chosen)
        if not is_ids and chosen not in ("all", "labeled", "unlabeled"):
            raise InputError("'images' must be all, labeled, unlabeled, or a list of ids.")
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise InputError("'max_batch_size' must be a whole number, 0 for all images.")
        return cls(chosen, most)


@dataclass(slots=True, eq=False)
class BatchRun:
    """One batch and how far it is."""

    request: BatchRequest
    images: tuple[str, ...]  # ids, in their order
    id: str = field(default_factory=lambda: str(uuid4()))
    results: dict[str, str] = field(default_factory=dict)  # what became of each, a sentence or word
    status: str = "RUNNING"  # RUNNING, DONE or STOPPED, as MONAI Label calls them
    start: datetime = field(default_factory=datetime.now)
    end: datetime | None = None  # when it ended, or None
    stop: threading.Event = field(default_factory=threading.Event)  # set to end it

    def described(self) -> dict[str, Any]:
        """Return its state with MONAI Label's keys, and `progress` and `results` besides."""
        results = dict(self.results)
        counts = {name: sum(value == known for value in results.values()) for name, known in _COUNTED.items()}
        asked = self.request.images
        return {
            "id": self.id,
            "status": self.status,
            "request": {"model": MODEL, "images": asked if isinstance(asked, str) else list(asked)},
            "start_ts": _stamp(self.start),
            **({"end_ts": _stamp(self.end)} if self.end else {}),
            "details": [f"{name}: {result}" for name, result in list(results.items())[-20:]],
            "progress": {
                "total": len(self.images),
                **counts,
                "failed": len(results) - sum(counts.values()),
                "left": len(self.images) - len(results),
            },
            "results": results,
        }


_COUNTED = {"done": DONE, "skipped": SKIPPED}


class BatchInference:
    """Runs one batch at a time.

    Args:
        far: how a cluster's worker answers, where `ray` in `configs/engine.yaml` names one.
    """

    def __init__(self, annotator: PreAnnotator, store: Datastore, far: FarGuess | None = None) -> None:
        self._annotator, self._far = annotator, far
        self._store = store
        self._guard = threading.Lock()
        self._batches: list[BatchRun] = []
        self._thread: threading.Thread | None = None

    def start(self, request: BatchRequest) -> BatchRun:
        """Begin a batch in a thread.

        Raises:
            TooMany: one is running.
            NotFound: there is no network yet.
            UnknownImage: there is no image of that id.
        """
        batch = self._begin(request)
        self._thread = threading.Thread(target=self._work, args=(batch,), name="batch-inference", daemon=True)
        self._thread.start()
        return batch

    def run(self, request: BatchRequest) -> BatchRun:
        """Do a batch and return when it is done; the errors are those of `start`."""
        batch = self._begin(request)
        self._work(batch)
        return batch

    def batches(self) -> tuple[BatchRun, ...]:
        """Return the batches since the start of the server, the latest last."""
        with self._guard:
            return tuple(self._batches)

    def running_batch(self) -> BatchRun | None:
        """Return the batch that runs."""
        return next((batch for batch in self.batches() if batch.status == "RUNNING"), None)

    def stop(self) -> BatchRun | None:
        """Stop the running batch before its next step and return it; None when there is none."""
        batch = self.running_batch()
        if batch is not None:
            batch.stop.set()
            batch.status = "STOPPED"
        return batch

    @contextmanager
    def running(self) -> Iterator[None]:
        """Stop what runs when the block ends."""
        try:
            yield
        finally:
            self.stop()
            if self._thread is not None:
                self._thread.join()

    def _begin(self, request: BatchRequest) -> BatchRun:
        images = self._images(request)
        if self._annotator.network() is None:
            raise NotFound(UNTRAINED)
        batch = BatchRun(request, tuple(images))
        with self._guard:
            if any(known.end is None for known in self._batches):
                raise TooMany("Batch inference is already running. Wait for its end, or stop it.")
            self._batches = [*self._batches, batch][-KEPT:]
        return batch

    def _images(self, request: BatchRequest) -> list[str]:
        known, asked = set(self._store.list_images()), request.images
        lists = {"labeled": self._store.get_labeled_images, "unlabeled": self._store.get_unlabeled_images}
        if isinstance(asked, str):
            names = sorted(lists[asked]() if asked in lists else known)
        else:
            names = list(dict.fromkeys(asked))
            missing = next((name for name in names if name not in known), None)
            if missing is not None:
                raise UnknownImage(f"There is no image '{missing[:200]}' in the studies.")
        return names[: request.most or None]

    def _work(self, batch: BatchRun) -> None:
        try:
            with closing(self._answers(batch)) as answers:
                for name, answer in answers:
                    batch.results[name] = answer
                    logger.info("Batch inference, %d of %d: %s", len(batch.results), len(batch.images), name)
                    if batch.stop.is_set():
                        break
        except Cancelled:
            logger.info("Batch inference was stopped")
        except Exception:  # a background thread's outermost boundary: it would be lost otherwise
            batch.stop.set()
            logger.exception("Batch inference broke off; asked for again, it goes on")
        finally:
            batch.end = datetime.now()
            batch.status = "STOPPED" if batch.stop.is_set() else "DONE"

    def _answers(self, batch: BatchRun) -> Generator[tuple[str, str]]:
        """Answer image after image; yield the name of each, and what became of it."""
        engine = engine_settings()
        if not engine.ray or self._far is None:
            for name in batch.images:
                yield name, self._answer(name, partial(self._annotator.make, name, cancelled=batch.stop.is_set))
            return
        left = [name for name in batch.images if self._annotator.is_open(name)]
        yield from ((name, SKIPPED) for name in batch.images if name not in left)
        parts = [partial(self._far, self._annotator.path(name)) for name in left]
        for name, found in zip(left, each_part(parts, workers=1, ray=engine.ray, gpus=engine.ray_gpus), strict=True):
            yield name, self._kept(name, found)

    def _kept(self, name: str, found: Guess | str) -> str:
        if isinstance(found, str):
            return found
        return self._answer(name, partial(self._annotator.keep, name, found))

    def _answer(self, name: str, work: Callable[[], None]) -> str:
        """Carry out the work on an image; return what became of it."""
        if not self._annotator.is_open(name):
            return SKIPPED
        try:
            work()
            return DONE
        except Cancelled:
            raise
        except SlicecastError as error:
            return str(error)
        except Exception as error:  # one image must not end the batch
            if is_disk_full(error):
                return "the server's disk is full"
            logger.exception("Batch inference of '%s' failed", name)
            return "the server made a mistake; its log says which"


def _stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S")
