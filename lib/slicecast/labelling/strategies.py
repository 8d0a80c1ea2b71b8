"""Strategies that choose the next image among those without a final label.

Every answer has a reason in words. OHIF's strategy menu has no effect, it always asks for `random`: see
`slicecast.labelling.app.asked_strategy`. The strategies of `slicecast.active.volumes` read the ranked queues of the
background ranker: Next Sample takes the first candidate of a queue. While there is no queue yet it chooses at random,
and says so.

The ranker embeds a volume only when no user waits, and every call of the model has the lowest priority in the device
queue, so a click waits for one slice at most. Embeddings are cached on disk by content and model.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from numpy.typing import NDArray

from slicecast.active.volumes import (
    STRATEGIES,
    ActiveSettings,
    VolumeChoice,
    VolumeFeatures,
    active_settings,
    flaw_of,
    rank,
)
from slicecast.campaign.campaign import Choice
from slicecast.engine.caches import EmbeddingCache, key_of
from slicecast.engine.crop_window import whole_crop
from slicecast.engine.options import EngineOptions
from slicecast.engine.tracks import Tracker
from slicecast.errors import Cancelled, ReadingFull, SlicecastError
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.prefetch import wait_until_idle
from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import Studies, Study, stamp_of
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.volume import choose_axis

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

ABOUT = {
    "strat_random": "Random within groups of images that look alike",
    "coverage": "Images that stand for most others first",
}

PUBLISH_S, PUBLISH_TIMES = 5.0, 20.0
"""During a round the queues are ranked again after so many seconds, or so many times what ranking took, whichever is
more: with thousands of volumes ranking itself takes seconds."""

EMBEDDED_SLICES = 8  # Evenly spaced slices whose mean is a volume's embedding
CACHE_BYTES = 1 << 27  # Of encoded slices. Small, because a volume is read once and not again.

VERSION = 1  # Part of the cache keys; raise it when the meaning of the embedding changes
EMBEDDINGS = "scores"  # Folder of the ranker's cache, in the campaign's folder; named by what earlier versions kept

LONG_AGO_S = 24 * 3600.0  # An image shown longer ago than this counts as never shown


def embed(
    predictor: QueuedPredictor, study: Study, *, cancelled: Callable[[], bool] = lambda: False
) -> NDArray[np.float32]:
    """Return a volume's embedding, (D,) float32.

    Args:
        predictor: the model; every call is a step in the device queue.
        cancelled: asked before each batch.

    Raises:
        Cancelled: `cancelled` said so.
    """
    frames = study.frames(choose_axis(study.volume.geometry), study.window("auto"))
    tracker = Tracker(predictor, frames, EmbeddingCache(CACHE_BYTES), EngineOptions(), cancelled=cancelled)
    numbers = sorted({int((n + 0.5) * frames.count / EMBEDDED_SLICES) for n in range(EMBEDDED_SLICES)})
    crop = whole_crop(frames)
    return predictor.pool(tracker.embed([(number, crop) for number in numbers])).mean(axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class CachedVolume:
    """What is cached of a volume."""

    content: str  # digest of its voxels
    flaw: str = ""  # what is wrong with them; empty for nothing
    embedding: NDArray[np.float32] | None = None  # (D,) float32; None where it could not be embedded

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        embedding = None if self.embedding is None else [float(value) for value in self.embedding]
        return json.dumps({"content": self.content, "flaw": self.flaw, "embedding": embedding}).encode()

    @staticmethod
    def of_bytes(data: bytes) -> "CachedVolume":
        """Return what :meth:`to_bytes` wrote; earlier versions wrote scores too, which are left out."""
        found = json.loads(data)
        embedding = None if found["embedding"] is None else np.array(found["embedding"], dtype=np.float32)
        return CachedVolume(found["content"], found["flaw"], embedding)


class VolumeCache:
    """The cache on disk: JSON texts, so that reading it executes nothing. Safe between threads and processes.

    Args:
        folder: made where it is missing.
        model: fingerprint of the model that embeds.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._files = diskcache.Cache(str(folder), eviction_policy="none")
        self._model = model

    def content_of(self, stamp: tuple) -> str | None:
        """Return the digest of a file's voxels, by its stamp (path, size, time); None when it was not read yet."""
        data = self._files.get(key_of("file", stamp))
        return data.decode() if isinstance(data, bytes) else None

    def load(self, content: str) -> CachedVolume | None:
        """Return what is cached of a volume by its digest, or None."""
        data = self._files.get(key_of(VERSION, self._model, content))
        return CachedVolume.of_bytes(data) if isinstance(data, bytes) else None

    def keep(self, stamp: tuple, known: CachedVolume) -> None:
        """Store a volume, and which file it belongs to."""
        self._files.set(key_of("file", stamp), known.content.encode())
        self._files.set(key_of(VERSION, self._model, known.content), known.to_bytes())

    def close(self) -> None:
        """Close the files."""
        self._files.close()


@dataclass(frozen=True, slots=True)
class RankedQueue:
    """Volumes in the order of a strategy."""

    choices: tuple[VolumeChoice, ...]  # best first
    embedded: int  # number of volumes without a label that have an embedding


class BackgroundRanker:
    """Embeds and ranks in its own thread.

    Args:
        service: its model and device queue are used.
        settings: the seed, and whether to run at all.
        folder: of the cache on disk.
    """

    def __init__(
        self, service: SegmentService, datastore: Callable[[], Datastore], *, settings: ActiveSettings, folder: Path
    ) -> None:
        self._service, self._datastore, self._settings, self._folder = service, datastore, settings, folder
        self._studies = Studies(max_volumes=1)
        self._cached: dict[str, tuple[tuple, CachedVolume]] = {}
        self._queues: dict[str, RankedQueue] = {}
        self._wanted: set[str] = set()
        self._wake, self._stop, self._rested = threading.Event(), threading.Event(), threading.Event()
        self._publish_at_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the thread for as long as the block lasts."""
        if not self._settings.background:
            yield
            return
        self._stop.clear()
        thread = threading.Thread(target=self._run, name="background-ranker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._wake.set()
            thread.join()

    def queue(self, strategy: str) -> RankedQueue | None:
        """Return a strategy's ranked queue, None where there is none yet; from now on it is kept up to date."""
        if strategy not in self._wanted:
            self._wanted.add(strategy)
            self.wake()
        return self._queues.get(strategy)

    def wake(self) -> None:
        """Start the next round: a label or the images have changed."""
        self._rested.clear()
        self._wake.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the round; False after a time-out."""
        return self._rested.wait(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            try:
                if self._wanted:
                    self._round()
            except Cancelled:
                return
            except SlicecastError as error:
                logger.info("Volumes are not ranked: %s", error)
            except Exception:  # a background thread's outermost boundary: it would be lost otherwise
                logger.exception("Ranking volumes failed")
            if not self._wake.is_set():
                self._rested.set()

    def _round(self) -> None:
        images = self._datastore()
        labelled, waiting = sorted(images.get_labeled_images()), sorted(images.get_unlabeled_images())
        store = VolumeCache(self._folder, self._service.predictor.fingerprint)
        try:
            self._load_cached(store, [*labelled, *waiting])
            self._publish(labelled, waiting)
            with self._service.queue.background(cancelled=self._stop.is_set):
                for name in [*labelled, *self._shuffled(waiting)]:
                    if self._wake.is_set():  # the next round continues with the new state
                        break
                    if name not in self._cached:
                        self._embed(store, name)
                        if time.monotonic() > self._publish_at_s:
                            self._publish(labelled, waiting)
            self._publish(labelled, waiting)
        finally:
            store.close()

    def _shuffled(self, waiting: Sequence[str]) -> list[str]:
        """Return volumes in an order by chance, so that the first ones embedded are a fair sample of all."""
        order = np.random.default_rng(self._settings.seed).permutation(len(waiting))
        return [waiting[int(n)] for n in order]

    def _image(self, name: str) -> Path:
        return Path(self._datastore().get_image_uri(name))

    def _load_cached(self, store: VolumeCache, names: Sequence[str]) -> None:
        """Load what the cache has of these files; forget files that have changed or were removed."""
        stamps = {name: stamp_of(self._image(name)) for name in names}
        self._cached = {n: entry for n, entry in self._cached.items() if stamps.get(n) == entry[0]}
        for name, stamp in stamps.items():
            content = None if name in self._cached else store.content_of(stamp)
            known = store.load(content) if content else None
            if known is not None:
                self._cached[name] = stamp, known

    def _embed(self, store: VolumeCache, name: str) -> None:
        wait_until_idle(self._service.queue, self._stop)
        path = self._image(name)
        stamp = stamp_of(path)
        try:
            study = self._studies.open(path)
            known = store.load(study.digest) or CachedVolume(
                study.digest,
                flaw_of(study.volume.array),
                embed(self._service.predictor, study, cancelled=self._stop.is_set),
            )
            store.keep(stamp, known)
        except (Cancelled, ReadingFull):
            raise
        except SlicecastError as error:
            known = CachedVolume("", f"it cannot be read: {error}")
        self._cached[name] = stamp, known

    def _publish(self, labelled: Sequence[str], waiting: Sequence[str]) -> None:
        """Rank all wanted strategies from what is cached."""
        start = time.monotonic()
        done, left = self._features(labelled), self._features(waiting)
        for strategy in sorted(self._wanted):
            rng = np.random.default_rng([self._settings.seed, len(labelled)])
            choices = rank(strategy, left, done, rng=rng)
            self._queues[strategy] = RankedQueue(choices, sum(v.embedding is not None for v in left))
        now = time.monotonic()
        self._publish_at_s = now + max(PUBLISH_S, PUBLISH_TIMES * (now - start))

    def _features(self, names: Sequence[str]) -> list[VolumeFeatures]:
        known = {name: entry[1] for name, entry in self._cached.items()}
        return [_features(name, known.get(name)) for name in names]


def _features(name: str, known: CachedVolume | None) -> VolumeFeatures:
    return VolumeFeatures(name, known.embedding, known.content, known.flaw) if known else VolumeFeatures(name)


class First(Strategy):
    """The first image by name."""

    def __init__(self) -> None:
        super().__init__("First image by name that has no final label")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all are labelled."""
        images = sorted(datastore.get_unlabeled_images())
        return {"id": images[0], "reason": f"first by name of {len(images)} without a label"} if images else None

    def rank(self, names: Sequence[str], datastore: Datastore) -> list[Choice]:
        """Order cases for the queue."""
        return [Choice(name, f"number {place} of {len(names)} by name") for place, name in enumerate(names, start=1)]


class Random(Strategy):
    """A random image; those shown longest ago, or never, are likelier, so that two annotators rarely get the same one.

    Unlike MONAI Label's own it does not fail when every image has been shown within the last second.
    """

    def __init__(self, *, rng: random.Random | None = None, clock: Clock = time.time) -> None:
        super().__init__("Random image without a final label, preferring those not shown lately")
        self._rng = rng or random.Random()
        self._clock = clock

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all are labelled."""
        images = sorted(datastore.get_unlabeled_images())
        if not images:
            return None
        weights = self._seconds_since_shown(images, datastore)
        chosen = self._rng.choices(range(len(images)), weights=weights)[0]
        reason = f"random among {len(images)} without a label"
        return {"id": images[chosen], "weight": weights[chosen], "reason": reason}

    def _seconds_since_shown(self, images: Sequence[str], datastore: Datastore) -> list[float]:
        now = self._clock()
        return [min(max(now - last_shown(datastore.get_image_info(image)), 1.0), LONG_AGO_S) for image in images]


def last_shown(image_info: Mapping[str, Any]) -> float:
    """Return when any strategy last offered an image, seconds since 1970; 0 for never."""
    return max((entry.get("ts", 0) for entry in (image_info.get("strategy") or {}).values()), default=0)


def strategies(*, rng: random.Random | None = None, clock: Clock = time.time) -> dict[str, Strategy]:
    """Return the app's strategies by name."""
    return {"random": Random(rng=rng, clock=clock), "first": First()}


class Candidates:
    """A view of a store that lists only the candidates.

    Image info is returned without a copy and without a look at the disk, because a strategy asks for that of thousands
    of images while a user waits. It must not be changed.
    """

    def __init__(self, store: StudiesDatastore, names: Sequence[str]) -> None:
        self._store = store
        self._names = list(names)

    def get_unlabeled_images(self) -> list[str]:
        """Return the candidates."""
        return list(self._names)

    def get_image_info(self, image_id: str) -> Mapping[str, Any]:
        """Return what is known of an image."""
        record = self._store._datastore.objects.get(image_id)
        return record.image.info if record else {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class RankedStrategy(Strategy):
    """A strategy that reads a ranked queue.

    Args:
        name: of the strategy, one of `slicecast.active.volumes`.
        otherwise: chooses while there is none.
    """

    def __init__(self, name: str, ranker: BackgroundRanker, *, otherwise: Strategy) -> None:
        super().__init__(ABOUT.get(name, f"Images ordered by {name}"))
        self._name, self._ranker, self._otherwise = name, ranker, otherwise

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all are labelled."""
        queue = self._ranker.queue(self._name)
        left = set(datastore.get_unlabeled_images())
        first = next((c for c in queue.choices if c.name in left), None) if queue else None
        if first is None or queue is None:
            chosen = self._otherwise(request, datastore)
            return chosen and {**chosen, "reason": f"no order by {self._name} is ready yet: {chosen['reason']}"}
        score = {} if first.score is None else {"score": first.score}
        return {"id": first.name, **score, "reason": f"{first.reason} ({_seen(queue)})"}

    def rank(self, names: Sequence[str], datastore: Datastore) -> list[Choice]:
        """Order cases for the queue on the page; those that are not ranked come last."""
        queue = self._ranker.queue(self._name)
        left = set(names)
        known = [Choice(c.name, c.reason, c.score) for c in queue.choices if c.name in left] if queue else []
        listed = {choice.case for choice in known}
        return known + [Choice(name, "not in the order yet") for name in names if name not in listed]


def open_background_ranker(
    service: SegmentService, datastore: Callable[[], Datastore], *, folder: Path, local: bool
) -> BackgroundRanker:
    """Return a ranker with the settings of `configs/active.yaml`.

    Args:
        local: the studies are a folder. Others are not ranked: every volume would have to be fetched first.
    """
    chosen = active_settings()
    return BackgroundRanker(
        service, datastore, settings=replace(chosen, background=chosen.background and local), folder=folder
    )


def ranked_strategies(ranker: BackgroundRanker, known: Mapping[str, Strategy], *, own: str) -> dict[str, Strategy]:
    """Return the strategies of `configs/active.yaml` and the campaign's own that are not known yet, by name."""
    names = [name for name in dict.fromkeys((*active_settings().offered, own)) if name not in known]
    return {name: RankedStrategy(name, ranker, otherwise=known["random"]) for name in names if name in STRATEGIES}


def _seen(queue: RankedQueue) -> str:
    return f"{queue.embedded} of {len(queue.choices)} without a label were looked at"
