"""A session's propagation as lines: every slice as soon as it is known, how far it is, and what it came to."""

import threading
import time
from collections.abc import Callable

from pydantic import BaseModel

from slicecast.inference.results import SliceUpdate
from slicecast.server.sessions.desk import Desk
from slicecast.server.sessions.models import ProgressEvent
from slicecast.server.sessions.stream import Put
from slicecast.server.sessions.views import slice_event, summary_event

PROGRESS_S = 0.25
"""Shortest time between two lines of progress."""


def propagation(
    desk: Desk, session_id: str, *, user: str, slice_strategy: str = ""
) -> Callable[[Put, threading.Event], BaseModel]:
    """Return the work of one propagation; it returns the summary.

    Raises (the work):
        Conflict: another propagation of the session is under way.
        QueueFull: there is no room to wait.
        SlicecastError: the session cannot be carried out.
    """

    def work(put: Put, gone: threading.Event) -> BaseModel:
        with desk.run(session_id, user, gone=gone.is_set) as cancelled:
            done = desk.sessions.propagate(
                session_id,
                on_slice=_slices(put),
                progress=_progress(put),
                cancelled=cancelled,
                slice_strategy=slice_strategy,
            )
        slices = desk.metrics.session_slices
        slices.labels("recomputed").inc(done.result.slices_recomputed)
        slices.labels("reused").inc(done.result.slices_reused)
        return summary_event(done)

    return work


def _slices(put: Put) -> Callable[[SliceUpdate], None]:
    return lambda update: put(slice_event(update))


def _progress(put: Put) -> Callable[[int, str], None]:
    last = [0.0]

    def told(done: int, what: str) -> None:
        now = time.monotonic()
        if now - last[0] >= PROGRESS_S:
            last[0] = now
            put(ProgressEvent(done=done, what=what))

    return told
