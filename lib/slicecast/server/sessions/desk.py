"""What the routes for sessions work with: who calls, what is running, and whose session it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated

import anyio
from fastapi import Depends, Request

from slicecast.engine.session import Grid
from slicecast.errors import TooMany
from slicecast.inference.caller import Caller, current_caller
from slicecast.inference.segment import SegmentService
from slicecast.inference.session_state import SessionState
from slicecast.inference.sessions import Sessions
from slicecast.server.dependencies import AnyUser
from slicecast.server.errors import Forbidden
from slicecast.server.metrics import Metrics
from slicecast.server.security.users import Role
from slicecast.server.sessions.runs import Runs
from slicecast.server.settings import SessionSettings
from slicecast.volume import SliceAxis


@dataclass(frozen=True, slots=True)
class Desk:
    """All that the routes share.

    Args:
        sessions: the logs.
        service: the device and its queue.
        limits: of what one user may hold.
        metrics: where propagated slices are counted.
        limiter: threads for work on the device.
        runs: propagations under way.
    """

    sessions: Sessions
    service: SegmentService
    limits: SessionSettings
    metrics: Metrics
    limiter: anyio.CapacityLimiter
    runs: Runs = field(default_factory=Runs)

    def refuse_too_many(self, owner: str) -> None:
        """Raise TooMany when a user holds as many sessions as one may."""
        held = sum(state.owner == owner for state in self.sessions.list())
        if held >= self.limits.per_user:
            raise TooMany(f"You hold {held} open sessions; {self.limits.per_user} are allowed. Close one of them.")

    @contextmanager
    def run(self, session_id: str, user: str, *, gone: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """Be the session's only propagation, with a place in the queue; yield what says that it should stop.

        Raises:
            Conflict: another one is under way.
            QueueFull: there is no room to wait.
            Cancelled: it was stopped while it waited.
        """
        with self.runs.only(session_id) as stop:

            def cancelled() -> bool:
                return stop.is_set() or gone()

            with self.service.queue.job(user, cancelled=cancelled):
                yield cancelled

    def grid(self, session_id: str) -> Grid:
        """Return the stored grid of a session's image, and the axis of its slices."""
        state = self.sessions.state(session_id)
        reorientation = self.service.studies.open(state.image).reorientation
        return Grid(reorientation.source.shape_kji, 2 - reorientation.permutation[SliceAxis[state.axis.upper()]])


def the_desk(request: Request) -> Desk:
    """Return the application's desk."""
    desk: Desk = request.app.state.desk
    return desk


def the_caller(user: AnyUser, client_id: str = "") -> Caller:
    """Say who sends a request; `client_id` in the address is what a client calls itself."""
    caller = current_caller()
    return replace(caller, name=caller.called(client_id))


def may_use(caller: Caller, state: SessionState) -> bool:
    """Tell whether a session is theirs to work on; where nobody logs in, nobody can be told apart."""
    return caller.may(Role.admin.name) or state.owner == caller.user


DeskOf = Annotated[Desk, Depends(the_desk)]
CallerOf = Annotated[Caller, Depends(the_caller)]


def the_session(session_id: str, desk: DeskOf, caller: CallerOf) -> str:
    """Return the id of an open session that the caller may work on.

    Raises:
        UnknownSession: there is none.
        SessionClosed: it has ended.
        Forbidden: it is somebody else's.
    """
    state = desk.sessions.state(session_id)
    if not may_use(caller, state):
        raise Forbidden(f"The session belongs to '{state.owner}'. Open one of your own.")
    return state.id


SessionOf = Annotated[str, Depends(the_session)]
