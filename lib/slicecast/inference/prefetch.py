"""Encodes what will be needed while nobody waits: the rest of a volume, and the next one.

One slice at a time, each a step of the lowest urgency, and only while no request is in work: a click waits for one
slice at most. It ends by itself where the cache is full, because then it would only push out what is needed now.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from slicecast.engine.assemble import Track
from slicecast.engine.embeddings import EmbeddingCache
from slicecast.engine.frames import Frames, View
from slicecast.engine.options import EngineOptions
from slicecast.engine.ports import SlicePredictor
from slicecast.engine.tracker import Tracker
from slicecast.errors import Cancelled, SlicecastError
from slicecast.inference.queue import DeviceQueue

logger = logging.getLogger(__name__)

Place = tuple[int, View]
"""A slice in a window."""

MAX_WISHES = 4
"""Volumes to be encoded; a newer wish pushes out the oldest. Each keeps its volume in memory."""

QUIET_S = 0.2
"""How long nobody must have worked before it goes on."""


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """Slices that will probably be asked for.

    Args:
        name: a later wish of the same name takes its place.
        predictor: encodes them.
        frames: the volume.
        places: in the order in which they will be wanted.
    """

    name: str
    predictor: SlicePredictor
    frames: Frames
    places: Sequence[Place]


class IdleEncoder:
    """Fulfils wishes while nobody waits.

    Args:
        queue: knows whether somebody works.
        cache: where encoded slices go.
        quiet_s: how long nobody must have worked.
        enabled: otherwise nothing is ever done.
    """

    def __init__(
        self, queue: DeviceQueue, cache: EmbeddingCache, *, quiet_s: float = QUIET_S, enabled: bool = True
    ) -> None:
        self._queue, self._cache, self._quiet_s, self._enabled = queue, cache, quiet_s, enabled
        self._wishes: deque[Callable[[], Wish]] = deque(maxlen=MAX_WISHES)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.encoded = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work in a thread of its own for as long as the block lasts."""
        if not self._enabled:
            yield
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="slicecast-idle", daemon=True)
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._wake.set()
            self._thread.join()
            self._thread = None
            self._wishes.clear()

    def wish(self, make: Callable[[], Wish]) -> None:
        """Note a wish; nothing happens while nobody runs the encoder.

        Args:
            make: called in the encoder's thread; may open a file.
        """
        if self._thread is not None:
            self._wishes.append(make)
            self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._wishes and not self._stop.is_set():
                make = self._wishes.pop()  # what was wished last is wanted first
                try:
                    self._fulfil(make())
                except Cancelled:
                    return
                except SlicecastError as error:
                    logger.info("Not encoded ahead: %s", error)

    def _fulfil(self, wish: Wish) -> None:
        tracker = Tracker(wish.predictor, wish.frames, self._cache, EngineOptions(), cancelled=self._stop.is_set)
        evicted = self._cache.stats().evictions
        with self._queue.background(cancelled=self._stop.is_set):
            for place in wish.places:
                if self._wishes and not self._quiet():
                    self._wishes.appendleft(lambda: wish)
                    self._wait_until_quiet()  # or two wishes take turns without a pause, while somebody waits
                    return
                if tracker.key(*place) not in self._cache:
                    self._wait_until_quiet()
                    tracker.embed([place])
                    self.encoded += 1
                if self._cache.stats().evictions > evicted:
                    return

    def _quiet(self) -> bool:
        return is_quiet(self._queue)

    def _wait_until_quiet(self) -> None:
        wait_until_quiet(self._queue, self._stop, every_s=self._quiet_s)


def is_quiet(queue: DeviceQueue) -> bool:
    """Tell whether nobody works or waits."""
    steps = queue.steps.stats()
    return not queue.jobs.stats().working and not steps.working and not sum(steps.waiting.values())


def wait_until_quiet(queue: DeviceQueue, stop: threading.Event, *, every_s: float = QUIET_S) -> None:
    """Return once nobody works or waits.

    Raises:
        Cancelled: it was told to stop.
    """
    while not is_quiet(queue):
        if stop.wait(every_s):
            raise Cancelled("Stopped, as asked.")


def rest_of(frames: Frames, tracks: Mapping[str, Track]) -> list[Place]:
    """Return the slices of a volume in each object's window, nearest to the prompted ones first."""
    places: dict[Place, int] = {}
    for track in tracks.values():
        prompted = [prompt.slice for prompt in track.prompts]
        for number in range(frames.count):
            far = min(abs(number - slice_) for slice_ in prompted)
            places[number, track.view] = min(far, places.get((number, track.view), far))
    return sorted(places, key=lambda place: (places[place], place))
