"""Leases: who holds one of the places of this server, and until when.

A lease ends when its holder does nothing for `idle_s`, when its client gives no sign of life for `alive_s`, or when it
is given back. A lease that has ended is unknown, and every request with it is answered with 410.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from slicecast.errors import QueueFull, SessionClosed
from slicecast.server.errors import Forbidden

Work = TypeVar("Work")


@dataclass(slots=True, eq=False)
class ClientLease(Generic[Work]):
    """One place."""

    token: str  # names it; only its holder knows it
    user: str | None  # who has logged in; None where nobody does
    owner: str  # what to call the holder
    acted_s: float  # when the holder last did something
    alive_s: float  # when the client last gave a sign of life
    work: Work | None = None  # what the holder has here; None before there is an image
    # held while something is done with it, so that a client's requests follow each other
    guard: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0  # requests that are under way


class Leases(Generic[Work]):
    """The places of a server. Safe between threads.

    Args:
        most: places.
        idle_s: see the module.
        alive_s: see the module.
        ended: told of the work of every lease that has ended, and whether it was given back.
        clock: seconds.
    """

    def __init__(
        self,
        most: int,
        *,
        idle_s: float,
        alive_s: float,
        ended: Callable[[Work, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self.idle_s, self.alive_s = most, idle_s, alive_s
        self._ended = ended
        self._clock = clock
        self._guard = threading.Lock()
        self._held: dict[str, ClientLease[Work]] = {}

    def claim(self, user: str | None, owner: str) -> ClientLease[Work]:
        """Give a place; raises QueueFull if all are taken."""
        self.end_overdue()
        now = self._clock()
        lease: ClientLease[Work] = ClientLease(secrets.token_urlsafe(32), user, owner, now, now)
        with self._guard:
            if len(self._held) >= self._most:
                raise QueueFull(f"All {self._most} places for nnInteractive clients are taken. Try again later.")
            self._held[lease.token] = lease
        return lease

    @contextmanager
    def using(self, token: str, user: str | None, *, acting: bool = True) -> Iterator[ClientLease[Work]]:
        """Use a lease for as long as the block lasts; it does not end meanwhile.

        Args:
            acting: the holder does something, other than a sign of life.

        Raises:
            SessionClosed: it has ended.
            Forbidden: somebody else holds it.
        """
        self.end_overdue()
        with self._guard:
            lease = self._held.get(token)
            if lease is None:
                raise SessionClosed("This lease has ended or never was. Connect again; your prompts are kept.")
            if lease.user != user:
                raise Forbidden("This lease is somebody else's. Connect with your own API key.")
            lease.busy += 1
        try:
            yield lease
        finally:
            with self._guard:
                lease.busy -= 1
                lease.alive_s = self._clock()
                if acting:
                    lease.acted_s = lease.alive_s

    def left_s(self, lease: ClientLease[Work]) -> float:
        """Return the seconds until a lease ends if its holder does nothing."""
        return max(0.0, lease.acted_s + self.idle_s - self._clock())

    def release(self, lease: ClientLease[Work]) -> None:
        """Take a place back."""
        self._end([lease], returned=True)

    def end_overdue(self) -> None:
        """End the leases whose time is up."""
        now = self._clock()
        with self._guard:
            overdue = [
                lease
                for lease in self._held.values()
                if not lease.busy and (now - lease.acted_s >= self.idle_s or now - lease.alive_s >= self.alive_s)
            ]
        self._end(overdue, returned=False)

    def end_all(self) -> None:
        """End every lease: the server stops."""
        self._end(list(self._held.values()), returned=False)

    def works(self) -> list[Work]:
        """Return what all holders have here."""
        with self._guard:
            return [lease.work for lease in self._held.values() if lease.work is not None]

    def _end(self, leases: list[ClientLease[Work]], *, returned: bool) -> None:
        for lease in leases:
            with self._guard:
                known = self._held.pop(lease.token, None)
            if known is not None and lease.work is not None:
                self._ended(lease.work, returned)
