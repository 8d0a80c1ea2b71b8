"""The background ranker: embeds volumes while the server is idle, and keeps them ranked for each strategy.

"Next sample" only reads a ranked queue. A volume is started only when no user waits, and every call of the model has
the lowest priority in the device queue, so a click waits for one slice at most. What was found out is cached on disk by
content and model.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from slicecast.active.features import flaw_of
from slicecast.active.volumes import ActiveSettings, VolumeChoice, VolumeFeatures, rank
from slicecast.errors import Cancelled, ReadingFull, SlicecastError
from slicecast.inference.prefetch import wait_until_idle
from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import Studies, stamp_of
from slicecast.labelling.embeddings import CachedVolume, VolumeCache, embed

logger = logging.getLogger(__name__)

PUBLISH_S, PUBLISH_TIMES = 5.0, 20.0
"""During a round the queues are ranked again after so many seconds, or so many times what ranking took, whichever is
more: with thousands of volumes ranking itself takes seconds."""


class Cases(Protocol):
    """The studies, as far as the ranker needs them."""

    def labelled(self) -> Sequence[str]:
        """Return the names of the volumes with a final label."""
        ...

    def waiting(self) -> Sequence[str]:
        """Return the names of the volumes without one."""
        ...

    def image(self, name: str) -> Path:
        """Return a volume's file or folder."""
        ...


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

    def __init__(self, service: SegmentService, cases: Cases, *, settings: ActiveSettings, folder: Path) -> None:
        self._service, self._cases, self._settings, self._folder = service, cases, settings, folder
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
        labelled, waiting = sorted(self._cases.labelled()), sorted(self._cases.waiting())
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

    def _load_cached(self, store: VolumeCache, names: Sequence[str]) -> None:
        """Load what the cache has of these files; forget files that have changed or were removed."""
        stamps = {name: stamp_of(self._cases.image(name)) for name in names}
        self._cached = {n: entry for n, entry in self._cached.items() if stamps.get(n) == entry[0]}
        for name, stamp in stamps.items():
            content = None if name in self._cached else store.content_of(stamp)
            known = store.load(content) if content else None
            if known is not None:
                self._cached[name] = stamp, known

    def _embed(self, store: VolumeCache, name: str) -> None:
        wait_until_idle(self._service.queue, self._stop)
        path = self._cases.image(name)
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
