"""Looks at volumes while nobody works, and keeps an order of them for each strategy that was asked for.

"Next sample" only reads an order that lies ready. In each round, that is when the number of labels has grown by half, a
random part of the volumes without a label is looked at: scoring by lot costs less than scoring all, and spreads what is
chosen. A volume is begun only when nobody works; every call of the model waits for all others in the queue, so a click
waits for one slice at most. What was found is kept on the disk, so nothing is looked at twice with the same model.
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

from slicecast.active.health import flaw_of
from slicecast.active.settings import ActiveSettings
from slicecast.active.volumes import VolumeChoice, VolumeFeatures, needs_scores, rank
from slicecast.errors import Cancelled, SlicecastError
from slicecast.inference.prefetch import wait_until_idle
from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import Studies, Study, stamp_of
from slicecast.labelling.scoring.volume_scores import Known, ScoreStore, Support, VolumeScorer

logger = logging.getLogger(__name__)

PUBLISH_S, PUBLISH_TIMES = 5.0, 20.0
"""The orders are made anew during a round after so long, or so many times what it took, whichever is more."""

SUPPORTS = 3
"""Labelled cases kept as memory; the volumes come in the order of theirs."""

GROWTH = 1.5
"""A round begins when there are so many times as many labels."""


Todo = TypeVar("Todo")


class Cases(Protocol):
    """What a scorer has to know of the studies."""

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
    """An order that lies ready.

    Args:
        choices: the volume to be labelled next first.
        looked_at: volumes without a label that were looked at.
        scored: of them, those with scores.
    """

    choices: tuple[VolumeChoice, ...]
    looked_at: int
    scored: int


class BackgroundScorer:
    """Looks and ranks in a thread of its own.

    Args:
        service: its model and queue.
        cases: the studies.
        settings: how much is looked at.
        folder: of what is kept.
    """

    def __init__(self, service: SegmentService, cases: Cases, *, settings: ActiveSettings, folder: Path) -> None:
        self._service, self._cases, self._settings, self._folder = service, cases, settings, folder
        self._studies = Studies(max_volumes=1)
        self._known: dict[str, tuple[tuple, Known]] = {}
        self._supports: dict[str, Support] = {}
        self._queues: dict[str, RankedQueue] = {}
        self._wanted: set[str] = set()
        self._wake, self._stop, self._rested = threading.Event(), threading.Event(), threading.Event()
        self._publish_at_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work for as long as the block lasts, when there is something to do."""
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
        """Return a strategy's order; None where it is not ready. From now on it is kept ready."""
        if strategy not in self._wanted:
            self._wanted.add(strategy)
            self.wake()
        return self._queues.get(strategy)

    def wake(self) -> None:
        """Say that something has changed: a label, or the images."""
        self._rested.clear()
        self._wake.set()

    def wait(self, timeout_s: float) -> bool:
        """Return once there is nothing left to do in this round; False when that takes too long."""
        return self._rested.wait(timeout_s)

    def known(self) -> dict[str, Known]:
        """Return what has been found out, by name of the volume."""
        return {name: known for name, (_, known) in list(self._known.items())}

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
                logger.info("Volumes are not looked at: %s", error)
            except Exception:  # a background thread's outermost boundary: nobody else would ever hear of it
                logger.exception("Looking at volumes failed")
            if not self._wake.is_set():
                self._rested.set()

    def _round(self) -> None:
        labelled, waiting = sorted(self._cases.labelled()), sorted(self._cases.waiting())
        self._supports.clear()  # a label may have been corrected
        number = round_of(len(labelled))
        store = ScoreStore(self._folder, self._service.predictor.fingerprint)
        try:
            self._recollect(store, [*labelled, *waiting])
            self._publish(labelled, waiting)
            with self._service.queue.background(cancelled=self._stop.is_set):
                scorer = VolumeScorer(self._service.predictor, cancelled=self._stop.is_set, seed=self._settings.seed)
                chosen = self._sample(waiting, number)
                for name in self._unless_woken([*labelled, *chosen]):
                    if name not in self._known:
                        self._look(store, scorer, name)
                        self._publish_now_and_then(labelled, waiting)
                if labelled and any(map(needs_scores, self._wanted)):
                    for name, support in self._unless_woken(self._to_score(labelled, chosen, number)):
                        self._score(store, scorer, name, support, number)
                        self._publish_now_and_then(labelled, waiting)
            self._publish(labelled, waiting)
        finally:
            store.close()

    def _unless_woken(self, todo: Sequence[Todo]) -> Iterator[Todo]:
        """Go through a list, and stop as soon as something has changed: the next round takes it up again."""
        for entry in todo:
            if self._wake.is_set():
                return
            yield entry

    def _sample(self, waiting: Sequence[str], number: int) -> list[str]:
        """Draw the volumes that are looked at in a round."""
        count = min(len(waiting), max(self._settings.least, math.ceil(self._settings.share * len(waiting))))
        rng = np.random.default_rng([self._settings.seed, number])
        return [waiting[int(n)] for n in rng.permutation(len(waiting))[:count]]

    def _recollect(self, store: ScoreStore, names: Sequence[str]) -> None:
        """Take over what the disk knows of these files; forget files that have changed or are gone."""
        stamps = {name: stamp_of(self._cases.image(name)) for name in names}
        self._known = {n: entry for n, entry in self._known.items() if stamps.get(n) == entry[0]}
        for name, stamp in stamps.items():
            content = None if name in self._known else store.content_of(stamp)
            known = store.load(content) if content else None
            if known is not None:
                self._known[name] = stamp, known

    def _look(self, store: ScoreStore, scorer: VolumeScorer, name: str) -> None:
        wait_until_idle(self._service.queue, self._stop)
        path = self._cases.image(name)
        stamp = stamp_of(path)
        try:
            study = self._studies.open(path)
            known = store.load(study.digest) or Known(
                study.digest, flaw_of(study.volume.array), embedding=scorer.embed(study)
            )
            store.keep(stamp, known)
        except Cancelled:
            raise
        except SlicecastError as error:
            known = Known("", f"it cannot be read: {error}")
        self._known[name] = stamp, known

    def _score(self, store: ScoreStore, scorer: VolumeScorer, name: str, nearest: str, number: int) -> None:
        wait_until_idle(self._service.queue, self._stop)
        stamp, known = self._known[name]
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
        self._known[name] = stamp, known

    def _support(self, scorer: VolumeScorer, name: str) -> Support:
        if name not in self._supports:
            study = self._studies.open(self._cases.image(name))
            label, values = self._cases.label(name, study)
            while len(self._supports) >= SUPPORTS:
                self._supports.pop(next(iter(self._supports)))
            self._supports[name] = scorer.learn(name, study, label, values)
        return self._supports[name]

    def _to_score(self, labelled: Sequence[str], chosen: Sequence[str], number: int) -> list[tuple[str, str]]:
        """Return volumes and the labelled case most like each, those of one case together.

        A score of an earlier round stands as long as no labelled case is more like the volume.
        """
        known = {name: entry[1] for name, entry in self._known.items()}
        cases = [(n, k.embedding) for n in labelled if (k := known.get(n)) is not None and k.embedding is not None]
        found = []
        for name in chosen:
            own = known.get(name)
            if own is None or own.embedding is None or own.flaw or not cases:
                continue
            looks = own.embedding
            nearest = min(cases, key=lambda case: float(np.linalg.norm(case[1] - looks)))[0]
            if not own.scores or (own.support != nearest and own.round < number):
                found.append((name, nearest))
        return sorted(found, key=lambda pair: (pair[1], pair[0]))

    def _publish_now_and_then(self, labelled: Sequence[str], waiting: Sequence[str]) -> None:
        if time.monotonic() > self._publish_at_s:
            self._publish(labelled, waiting)

    def _publish(self, labelled: Sequence[str], waiting: Sequence[str]) -> None:
        """Make the orders anew from all that is known."""
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
        known = {name: entry[1] for name, entry in self._known.items()}
        return [_features(name, known.get(name)) for name in names]


def round_of(labels: int) -> int:
    """Return the number of the round in which there are so many labels; they grow longer."""
    return 1 + int(math.log(labels) / math.log(GROWTH) + 1e-9) if labels else 0


def _features(name: str, known: Known | None) -> VolumeFeatures:
    if known is None:
        return VolumeFeatures(name)
    return VolumeFeatures(name, known.embedding, known.scores, known.by_structure, known.content, known.flaw)
