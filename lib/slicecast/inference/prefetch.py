"""Prefetches embeddings while the server is idle: the rest of the volume that was segmented last.

It encodes one slice at a time, at the lowest priority and only while no request runs, so a click waits for one slice at
most. It stops when the cache is full: from then on it would only evict what is needed now. Then it gives back memory.
"""

import ctypes
import logging
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.crop_window import CropWindow, Frames
from slicecast.engine.options import EngineOptions
from slicecast.engine.ports import SlicePredictor
from slicecast.engine.postprocess import ObjectResult
from slicecast.engine.tracks import Tracker
from slicecast.errors import Cancelled, SlicecastError
from slicecast.inference.queue import DeviceQueue

logger = logging.getLogger(__name__)

Place = tuple[int, CropWindow]  # A slice, and the crop window that is encoded of it

MAX_REQUESTS = 4
"""Volumes that wait to be encoded; a newer one pushes out the oldest, because each keeps its volume in memory."""

POLL_S = 0.2  # How often it checks whether the server is idle again


@dataclass(frozen=True, slots=True, eq=False)
class PrefetchRequest:
    """Slices that will probably be asked for."""

    predictor: SlicePredictor
    frames: Frames
    places: Sequence[Place]  # in the order in which they will be needed


class Prefetcher:
    """Encodes requested slices while the server is idle.

    Args:
        every_s: how often to check whether the server is idle again.
        enabled: whether anything is ever prefetched; memory is given back in any case.
    """

    def __init__(
        self, queue: DeviceQueue, cache: EmbeddingCache, *, every_s: float = POLL_S, enabled: bool = True
    ) -> None:
        self._queue, self._cache, self._every_s, self._enabled = queue, cache, every_s, enabled
        self._requests: deque[PrefetchRequest] = deque()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.encoded = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work in a thread of its own for as long as the block lasts."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="slicecast-prefetch", daemon=True)
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._wake.set()
            self._thread.join()
            self._thread = None
            self._requests.clear()

    def request(self, request: PrefetchRequest) -> None:
        """Add a request; it is ignored while the prefetcher does not run."""
        if self._thread is not None:
            if self._enabled:
                self._requests.append(request)
                self._drop_oldest()
            self._wake.set()

    def _drop_oldest(self) -> None:
        while len(self._requests) > MAX_REQUESTS:
            self._requests.popleft()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._requests and not self._stop.is_set():
                try:
                    self._encode(self._requests.pop())  # the latest request is the likeliest to be needed next
                except Cancelled:
                    return
                except SlicecastError as error:
                    logger.info("Not prefetched: %s", error)
            give_back_memory()

    def _encode(self, request: PrefetchRequest) -> None:
        tracker = Tracker(request.predictor, request.frames, self._cache, EngineOptions(), cancelled=self._stop.is_set)
        evicted = self._cache.stats().evictions
        with self._queue.background(cancelled=self._stop.is_set):
            for place in request.places:
                if self._requests and not is_idle(self._queue):
                    self._requests.appendleft(request)
                    self._drop_oldest()
                    self._wait()  # else two requests would replace each other in a busy loop while a user waits
                    return
                if tracker.key(*place) not in self._cache:
                    self._wait()
                    tracker.embed([place])
                    self.encoded += 1
                if self._cache.stats().evictions > evicted:
                    return

    def _wait(self) -> None:
        wait_until_idle(self._queue, self._stop, every_s=self._every_s)


def give_back_memory() -> None:
    """Let the C library return what was freed to the system; takes milliseconds, and does nothing but with glibc.

    Rendered slices come and go in many threads. What glibc keeps of them let a server grow by a quarter in 15 minutes.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def is_idle(queue: DeviceQueue) -> bool:
    """Tell whether no work runs or waits."""
    steps = queue.steps.stats()
    return not queue.jobs.stats().working and not steps.working and not sum(steps.waiting.values())


def wait_until_idle(queue: DeviceQueue, stop: threading.Event, *, every_s: float = POLL_S) -> None:
    """Return as soon as no work runs or waits; raises Cancelled if `stop` was set."""
    while not is_idle(queue):
        if stop.wait(every_s):
            raise Cancelled("Stopped, as asked.")


def remaining_places(frames: Frames, tracks: Mapping[str, ObjectResult]) -> list[Place]:
    """Return all slices of a volume in each object's crop window, nearest to the prompted slices first."""
    places: dict[Place, int] = {}
    for track in tracks.values():
        prompted = [prompt.slice for prompt in track.prompts]
        for number in range(frames.count):
            far = min(abs(number - slice_) for slice_ in prompted)
            places[number, track.crop] = min(far, places.get((number, track.crop), far))
    return sorted(places, key=lambda place: (places[place], place))
