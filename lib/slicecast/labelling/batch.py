"""Batch inference: pre-annotations of many images, one after the other, on request.

MONAI Label would start a second app on the same studies, which needs CUDA. Here one thread of this process works at the
lowest priority of the device queue, so users do not notice it, or hands the images to a Ray cluster. Images that have a
label or a pre-annotation are skipped, so a batch that was stopped, or lost with the server, goes on when asked again.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

from monailabel.interfaces.datastore import Datastore

from slicecast.databases import is_disk_full
from slicecast.errors import Cancelled, Conflict, InputError, SlicecastError, TooMany, UnknownImage
from slicecast.inference.settings import engine_settings
from slicecast.labelling.preannotation import MODEL, FarGuess, Guess, PreAnnotator, Source
from slicecast.labelling.store.labels import ORIGINAL
from slicecast.training.executor import each_part

logger = logging.getLogger(__name__)

KEPT = 16  # Batches of which the state is kept
SOURCES = 8  # Labelled images that are tried for each image

DONE, SKIPPED, UNLIKE = "done", "skipped: it has a label or a pre-annotation", "no labelled image resembles it"


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
            raise InputError(f"Batch inference is done by '{MODEL}' only, because '{model}' needs clicks. Use {MODEL}.")
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
            Conflict: there is no label yet to start from.
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
        if not self._store.get_labeled_images() and not self._annotator.network():
            raise Conflict("Batch inference starts from a label, and no image has one yet. Submit one first.")
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
        sources = _Sources(self._annotator, self._store)
        engine = engine_settings()
        if not engine.ray or self._far is None:
            for name in batch.images:
                yield name, self._answer(name, partial(self._here, name, sources, batch.stop))
            return
        left = [name for name in batch.images if self._annotator.is_open(name)]
        yield from ((name, SKIPPED) for name in batch.images if name not in left)
        known = () if self._annotator.network() else tuple(sources)
        parts = [partial(self._far, self._annotator.path(name), known) for name in left]
        for name, found in zip(left, each_part(parts, workers=1, ray=engine.ray, gpus=engine.ray_gpus), strict=True):
            yield name, self._answer(name, partial(self._kept, name, found))

    def _here(self, name: str, sources: Iterable[Source], stop: threading.Event) -> str:
        return DONE if self._annotator.make(name, sources, cancelled=stop.is_set) else UNLIKE

    def _kept(self, name: str, found: Guess | str | None) -> str:
        if isinstance(found, Guess):
            self._annotator.keep(name, found)
            return DONE
        return found or UNLIKE

    def _answer(self, name: str, work: Callable[[], str]) -> str:
        try:
            return work() if self._annotator.is_open(name) else SKIPPED
        except Cancelled:
            raise
        except SlicecastError as error:
            return str(error)
        except Exception as error:  # one image must not end the batch
            if is_disk_full(error):
                return "the server's disk is full"
            logger.exception("Batch inference of '%s' failed", name)
            return "the server made a mistake; its log says which"


class _Sources:
    """The labelled images to start from, each read when it is needed first."""

    def __init__(self, annotator: PreAnnotator, store: Datastore) -> None:
        self._annotator, self._store = annotator, store
        self._read: dict[str, Source] = {}

    def __iter__(self) -> Iterator[Source]:
        for name in sorted(self._store.get_labeled_images())[:SOURCES]:
            if name not in self._read:
                self._read[name] = self._annotator.source(name)
            yield self._read[name]


def _stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S")
