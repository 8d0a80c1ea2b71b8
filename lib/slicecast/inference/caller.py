"""Who is asking, for code that is far from the request.

The web server sets the caller for the time of a request, and its worker threads inherit it. So code below the server
can name the caller without a parameter on every call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MAX_LENGTH = 200  # Of a name that a client gives itself


@dataclass(frozen=True, slots=True)
class Caller:
    """One client, as far as it is known."""

    user: str | None = None  # logged in; None where logins are off
    name: str | None = None  # what the client calls itself (cookie or header)
    address: str = ""  # where the request came from
    # what the user may be; None where logins are off, and everybody may do everything
    roles: frozenset[str] | None = None

    def called(self, client_id: object = None) -> str | None:
        """Return the best name there is but the address: login, the request's own `client_id`, cookie or header."""
        given = client_id.strip()[:MAX_LENGTH] if isinstance(client_id, str) else ""
        return self.user or given or self.name or None

    def named(self, client_id: object = None) -> str:
        """Return what to call them: the best name there is, else the address."""
        return self.called(client_id) or self.address

    def may(self, role: str) -> bool:
        """Tell whether the caller has a role; an admin has all."""
        return self.roles is None or role in self.roles or "admin" in self.roles


NOBODY = Caller()

_CALLER: ContextVar[Caller] = ContextVar("slicecast_caller", default=NOBODY)


def current_caller() -> Caller:
    """Return who is asking; `NOBODY` outside a request."""
    return _CALLER.get()


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Be asked by a caller for as long as the block lasts."""
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)
