"""The background scorer: embeds and scores volumes while the server is idle, and keeps them ranked for each strategy.

"Next sample" only reads a ranked queue. In each round (a round begins when the number of labels has grown by half) a
random sample of the volumes without a label is embedded and scored: that costs less than scoring all, and spreads the
choice. A volume is started only when no user waits, and every call of the model has the lowest priority in the device
queue, so a click waits for one slice at most. Results are cached on disk by content and model.
"""

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from slicecast.active.features import flaw_of
from slicecast.active.volumes import ActiveSettings, VolumeChoice, VolumeFeatures, needs_scores, rank
from slicecast.errors import Cancelled, ReadingFull, SlicecastError
from slicecast.inference.prefetch import wait_until_idle
from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import Studies, Study, stamp_of
from slicecast.labelling.volume_scores import CachedScores, ScoreStore, Support, VolumeScorer

logger = logging.getLogger(__name__)

PUBLISH_S, PUBLISH_TIMES = 5.0, 20.0
"""During a round the queues are ranked again after so many seconds, or so many times what ranking took, whichever is
more: with thousands of volumes ranking itself takes seconds."""

SUPPORTS = 3
"""Labelled cases held as support at a time; volumes are scored in the order of their supports, so three suffice."""

GROWTH = 1.5  # A round begins when the number of labels has grown by this factor


Todo = TypeVar("Todo")


class Cases(Protocol):
    """The studies, as far as the scorer needs them."""

    def labelled(self) -> Sequence[str]:
        """Return the names of the volumes with a final label."""
        ...

    def waiting(self) -> Sequence[str]:
        """Return the names of the volumes without one."""
        ...

    def image(self, name: str) -> Path:
        """Return a volume's file or folder."""
        ...

    def label(self, name: str, study: Study) -> tuple[NDArray[np.integer], Mapping[str, int]]:
        """Return a label [k, j, i], canonical, and the number of each structure."""
        ...


@dataclass(frozen=True, slots=True)
class RankedQueue:
    """Volumes in the order of a strategy."""

    choices: tuple[VolumeChoice, ...]  # best first
    embedded: int  # number of volumes without a label that have an embedding
    scored: int  # number of those that have scores


class BackgroundScorer:
    """Embeds, scores and ranks in its own thread.

    Args:
        service: its model and device queue are used.
        settings: sample size, and whether to run at all.
        folder: of the cache on disk.
    """

    def __init__(self, service: SegmentService, cases: Cases, *, settings: ActiveSettings, folder: Path) -> None:
        self._service, self._cases, self._settings, self._folder = service, cases, settings, folder
        self._studies = Studies(max_volumes=1)
        self._cached: dict[str, tuple[tuple, CachedScores]] = {}
        self._supports: dict[str, Support] = {}
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
        thread = threading.Thread(target=self._run, name="background-scorer", daemon=True)
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

    def cached(self) -> dict[str, CachedScores]:
        """Return the cached scores by volume name."""
        return {name: scores for name, (_, scores) in list(self._cached.items())}

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
                logger.info("Volumes are not scored: %s", error)
            except Exception:  # a background thread's outermost boundary: it would be lost otherwise
                logger.exception("Scoring volumes failed")
            if not self._wake.is_set():
                self._rested.set()

    def _round(self) -> None:
        labelled, waiting = sorted(self._cases.labelled()), sorted(self._cases.waiting())
        self._supports.clear()  # a label may have been corrected since
        number = round_of(len(labelled))
        store = ScoreStore(self._folder, self._service.predictor.fingerprint)
        try:
            self._load_cached(store, [*labelled, *waiting])
            self._publish(labelled, waiting)
            with self._service.queue.background(cancelled=self._stop.is_set):
                scorer = VolumeScorer(self._service.predictor, cancelled=self._stop.is_set, seed=self._settings.seed)
                chosen = self._sample(waiting, number)
                for name in self._unless_woken([*labelled, *chosen]):
                    if name not in self._cached:
                        self._embed(store, scorer, name)
                        self._publish_if_due(labelled, waiting)
                if labelled and any(map(needs_scores, self._wanted)):
                    for name, support in self._unless_woken(self._to_score(labelled, chosen, number)):
                        self._score(store, scorer, name, support, number)
                        self._publish_if_due(labelled, waiting)
            self._publish(labelled, waiting)
        finally:
            store.close()

    def _unless_woken(self, todo: Sequence[Todo]) -> Iterator[Todo]:
        """Iterate, and stop as soon as something has changed: the next round continues with the new state."""
        for entry in todo:
            if self._wake.is_set():
                return
            yield entry

    def _sample(self, waiting: Sequence[str], number: int) -> list[str]:
        """Draw the volumes that are scored in a round; the same seed and round draw the same ones."""
        count = min(len(waiting), max(self._settings.least, math.ceil(self._settings.share * len(waiting))))
        rng = np.random.default_rng([self._settings.seed, number])
        return [waiting[int(n)] for n in rng.permutation(len(waiting))[:count]]

    def _load_cached(self, store: ScoreStore, names: Sequence[str]) -> None:
        """Load what the cache has of these files; forget files that have changed or were removed."""
        stamps = {name: stamp_of(self._cases.image(name)) for name in names}
        self._cached = {n: entry for n, entry in self._cached.items() if stamps.get(n) == entry[0]}
        for name, stamp in stamps.items():
            content = None if name in self._cached else store.content_of(stamp)
            known = store.load(content) if content else None
            if known is not None:
                self._cached[name] = stamp, known

    def _embed(self, store: ScoreStore, scorer: VolumeScorer, name: str) -> None:
        wait_until_idle(self._service.queue, self._stop)
        path = self._cases.image(name)
        stamp = stamp_of(path)
        try:
            study = self._studies.open(path)
            known = store.load(study.digest) or CachedScores(
                study.digest, flaw_of(study.volume.array), embedding=scorer.embed(study)
            )
            store.keep(stamp, known)
        except (Cancelled, ReadingFull):
            raise
        except SlicecastError as error:
            known = CachedScores("", f"it cannot be read: {error}")
        self._cached[name] = stamp, known

    def _score(self, store: ScoreStore, scorer: VolumeScorer, name: str, nearest: str, number: int) -> None:
        wait_until_idle(self._service.queue, self._stop)
        stamp, known = self._cached[name]
        try:
            support = self._support(scorer, nearest)
            found = scorer.score(self._studies.open(self._cases.image(name)), support)
            known = replace(known, scores=found.scores, by_structure=found.by_structure, support=nearest, round=number)
            store.keep(stamp, known)
        except Cancelled:
            raise
        except SlicecastError as error:
            logger.info("'%s' is not scored: %s", name, error)
            known = replace(known, round=number, support=nearest)
        self._cached[name] = stamp, known

    def _support(self, scorer: VolumeScorer, name: str) -> Support:
        if name not in self._supports:
            study = self._studies.open(self._cases.image(name))
            label, values = self._cases.label(name, study)
            while len(self._supports) >= SUPPORTS:
                self._supports.pop(next(iter(self._supports)))
            self._supports[name] = scorer.learn(name, study, label, values)
        return self._supports[name]

    def _to_score(self, labelled: Sequence[str], chosen: Sequence[str], number: int) -> list[tuple[str, str]]:
        """Return (volume, nearest labelled case), sorted by case.

        A score of an earlier round is kept as long as no other labelled case is nearer.
        """
        known = {name: entry[1] for name, entry in self._cached.items()}
        cases = [(n, k.embedding) for n in labelled if (k := known.get(n)) is not None and k.embedding is not None]
        found = []
        for name in chosen:
            own = known.get(name)
            embedding = own.embedding if own is not None and not own.flaw else None
            if own is None or embedding is None or not cases:
                continue
            nearest = min(cases, key=lambda case: float(np.linalg.norm(case[1] - embedding)))[0]
            if not own.scores or (own.support != nearest and own.round < number):
                found.append((name, nearest))
        return sorted(found, key=lambda pair: (pair[1], pair[0]))

    def _publish_if_due(self, labelled: Sequence[str], waiting: Sequence[str]) -> None:
        if time.monotonic() > self._publish_at_s:
            self._publish(labelled, waiting)

    def _publish(self, labelled: Sequence[str], waiting: Sequence[str]) -> None:
        """Rank all wanted strategies from what is cached."""
        start = time.monotonic()
        done, left = self._features(labelled), self._features(waiting)
        scored = sum(bool(v.scores) for v in left)
        progress = min(1.0, len(labelled) / max(1, self._settings.budget or len(labelled) + len(waiting)))
        for strategy in sorted(self._wanted):
            rng = np.random.default_rng([self._settings.seed, len(labelled)])
            choices = rank(strategy, left, done, rng=rng, progress=progress)
            self._queues[strategy] = RankedQueue(choices, sum(v.embedding is not None for v in left), scored)
        now = time.monotonic()
        self._publish_at_s = now + max(PUBLISH_S, PUBLISH_TIMES * (now - start))

    def _features(self, names: Sequence[str]) -> list[VolumeFeatures]:
        known = {name: entry[1] for name, entry in self._cached.items()}
        return [_features(name, known.get(name)) for name in names]


def round_of(labels: int) -> int:
    """Return the number of the round that a number of labels belongs to; rounds grow longer."""
    return 1 + int(math.log(labels) / math.log(GROWTH) + 1e-9) if labels else 0


def _features(name: str, known: CachedScores | None) -> VolumeFeatures:
    if known is None:
        return VolumeFeatures(name)
    return VolumeFeatures(name, known.embedding, known.scores, known.by_structure, known.content, known.flaw)
