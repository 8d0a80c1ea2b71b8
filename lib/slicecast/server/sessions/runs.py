"""Propagations under way: at most one for each session, each of which can be stopped."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from slicecast.errors import Conflict


class Runs:
    """Which sessions are being propagated. Safe between threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._stops: dict[str, threading.Event] = {}

    @contextmanager
    def only(self, session_id: str) -> Iterator[threading.Event]:
        """Be the session's propagation for as long as the block lasts; the event says that it should stop.

        Raises:
            Conflict: another one is under way.
        """
        stop = threading.Event()
        with self._guard:
            if session_id in self._stops:
                raise Conflict("A propagation of this session is under way. Wait for its end, or cancel it.")
            self._stops[session_id] = stop
        try:
            yield stop
        finally:
            with self._guard:
                del self._stops[session_id]

    def stop(self, session_id: str) -> bool:
        """Ask a session's propagation to stop; False when there is none."""
        with self._guard:
            if session_id in self._stops:
                self._stops[session_id].set()
                return True
            return False

    def __contains__(self, session_id: str) -> bool:
        with self._guard:
            return session_id in self._stops
