"""Who is logged in, and who has tried too often. Held in memory: a restart logs everybody out."""

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from slicecast.server.security.users import Role, digest

WINDOW_S = 300.0
"""Wrong logins are forgotten after this."""
MAX_LOGINS = 10_000
MAX_WATCHED = 10_000
"""Names and addresses whose wrong logins are counted at a time."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request, and as what.

    Args:
        name: of the user.
        role: what they may do.
        expires: time.time() from which on it counts no more.
        account: they are in the users' file, and must stay in it.
    """

    name: str
    role: Role
    expires: float
    account: bool = False


class Logins:
    """Logins by a random token, of which only the hash is held."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._held: OrderedDict[str, Identity] = OrderedDict()

    def open(self, identity: Identity) -> str:
        """Begin a login and return its token."""
        token = secrets.token_urlsafe(32)
        with self._guard:
            self._held[digest(token)] = identity
            while len(self._held) > MAX_LOGINS:
                self._held.popitem(last=False)
        return token

    def find(self, token: str) -> Identity | None:
        """Return whose login it is, or None."""
        key = digest(token)
        with self._guard:
            identity = self._held.get(key)
            if identity is not None and identity.expires <= self._clock():
                del self._held[key]
                return None
        return identity

    def close(self, token: str) -> None:
        """End a login."""
        with self._guard:
            self._held.pop(digest(token), None)


class Throttle:
    """Counts wrong logins by user and by address."""

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._guard = threading.Lock()
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, *keys: str) -> float:
        """Return how long the slowest of these must wait; 0 for not at all."""
        now = self._clock()
        with self._guard:
            return max((self._wait(self._wrong.get(key), now) for key in keys), default=0.0)

    def failed(self, *keys: str) -> None:
        """Count a wrong login."""
        now = self._clock()
        with self._guard:
            for key in keys:
                self._wrong.setdefault(key, deque(maxlen=self._limit)).append(now)
                self._wrong.move_to_end(key)
            while len(self._wrong) > MAX_WATCHED:
                self._wrong.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """Forget the wrong logins of these."""
        with self._guard:
            for key in keys:
                self._wrong.pop(key, None)

    def _wait(self, times: deque[float] | None, now: float) -> float:
        if times is None or len(times) < self._limit:
            return 0.0
        return max(times[0] + WINDOW_S - now, 0.0)
