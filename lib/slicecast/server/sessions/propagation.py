"""A session's propagation: at most one at a time, streamed as lines of JSON while it runs in a thread."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from slicecast.databases import is_disk_full
from slicecast.errors import Cancelled, Conflict, SlicecastError, TooMany
from slicecast.inference.segment import SegmentService
from slicecast.inference.sessions import Sessions
from slicecast.server.errors import DISK_FULL
from slicecast.server.metrics import Metrics
from slicecast.server.sessions.models import ErrorEvent, ProgressEvent, slice_event, summary_event
from slicecast.server.settings import SessionSettings
from slicecast.server.threads import watch

logger = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"

LOOK_S = 0.1  # How often one that waits for another's end sees whether it is wanted still
PROGRESS_S = 0.25  # Shortest time between two lines of progress
Put = Callable[[BaseModel], None]  # Sends one line; may be called from any thread


@dataclass(frozen=True, slots=True)
class _Run:
    gone: Callable[[], bool]  # whether its client has gone
    stop: threading.Event = field(default_factory=threading.Event)  # set where it was cancelled

    def ending(self) -> bool:
        return self.stop.is_set() or self.gone()


class Runs:
    """The sessions that are being propagated. Safe between threads."""

    def __init__(self) -> None:
        self._guard = threading.Condition()
        self._runs: dict[str, _Run] = {}

    @contextmanager
    def only(self, session_id: str, *, gone: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """Register as the session's only propagation for as long as the block lasts; yield the test whether to stop.

        One that is ending, because it was cancelled or its client has gone, is waited for: who loads the page again
        must not be refused for what the page before began.

        Raises:
            Conflict: another one is under way, for somebody who waits for it.
            Cancelled: the client has gone while it waited.
        """
        run = _Run(gone)
        with self._guard:
            while before := self._runs.get(session_id):
                if not before.ending():
                    raise Conflict("A propagation of this session is under way. Wait for its end, or cancel it.")
                if gone():
                    raise Cancelled("Stopped, as asked.")
                self._guard.wait(LOOK_S)
            self._runs[session_id] = run
        try:
            yield run.ending
        finally:
            with self._guard:
                del self._runs[session_id]
                self._guard.notify_all()

    def stop(self, session_id: str) -> bool:
        """Ask a session's propagation to stop; False when there is none."""
        with self._guard:
            if session_id in self._runs:
                self._runs[session_id].stop.set()
                return True
            return False

    def __contains__(self, session_id: str) -> bool:
        with self._guard:
            return session_id in self._runs


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all routes for sessions share."""

    sessions: Sessions  # the logs
    service: SegmentService  # the device and its queue
    limits: SessionSettings  # what one user may hold
    metrics: Metrics  # where propagated slices are counted
    limiter: anyio.CapacityLimiter  # threads for work on the device
    runs: Runs = field(default_factory=Runs)  # the propagations that are running

    def make_room(self, owner: str) -> None:
        """Close a session in which nothing was ever done, if a user holds as many as one may: cases left at once.

        Raises:
            TooMany: in all of them something was done.
        """
        held = [state for state in self.sessions.list() if state.owner == owner]
        if len(held) < self.limits.per_user:
            return
        unused = [state for state in held if state.revision == 0 and state.id not in self.runs]
        if not unused:
            images = ", ".join(dict.fromkeys(state.image_id for state in held))
            raise TooMany(
                f"You hold {len(held)} open sessions; {self.limits.per_user} are allowed. "
                f"Close one of them, or submit one of these cases: {images}."
            )
        self.sessions.close(min(unused, key=lambda state: state.used_at).id)

    @contextmanager
    def run(self, session_id: str, user: str, *, gone: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """Hold a job slot as the session's only propagation; yield the test whether to stop.

        Raises:
            Conflict: another one is under way, for somebody who waits for it.
            QueueFull: there is no room to wait.
            Cancelled: it was stopped while it waited.
        """
        with self.runs.only(session_id, gone=gone) as ending, self.service.queue.job(user, cancelled=ending):
            yield ending


def propagation(
    context: SessionContext, session_id: str, *, user: str, slice_strategy: str = ""
) -> Callable[[Put, threading.Event], BaseModel]:
    """Return the work of one propagation, for `stream_lines`; its last line is the summary.

    Raises (the work):
        Conflict: another propagation of the session is under way.
        QueueFull: there is no room to wait.
        SlicecastError: the session cannot be carried out.
    """

    def work(put: Put, gone: threading.Event) -> BaseModel:
        with context.run(session_id, user, gone=gone.is_set) as cancelled:
            done = context.sessions.propagate(
                session_id,
                on_slice=lambda update: put(slice_event(update)),
                progress=_progress(put),
                cancelled=cancelled,
                slice_strategy=slice_strategy,
            )
        slices = context.metrics.session_slices
        slices.labels("recomputed").inc(done.result.slices_recomputed)
        slices.labels("reused").inc(done.result.slices_reused)
        return summary_event(done)

    return work


def _progress(put: Put) -> Callable[[int, str], None]:
    last = [0.0]

    def progress(done: int, what: str) -> None:
        now = time.monotonic()
        if now - last[0] >= PROGRESS_S:
            last[0] = now
            put(ProgressEvent(done=done, what=what))

    return progress


async def stream_lines(
    request: Request, work: Callable[[Put, threading.Event], BaseModel], *, limiter: anyio.CapacityLimiter
) -> StreamingResponse:
    """Run ``work(put, stop)`` in a thread; send the lines that it puts, then the one that it returns.

    An error before the first line decides the status; a later one becomes the last line. ``stop`` is set when the
    client disconnects.

    Raises:
        SlicecastError: the work failed before its first line.
    """
    stop = threading.Event()
    lines: asyncio.Queue[BaseModel | BaseException | None] = asyncio.Queue()
    producer = asyncio.create_task(_produce(work, lines, stop, limiter))
    watcher = asyncio.create_task(watch(request, stop))
    first = await lines.get()
    if isinstance(first, BaseException):
        watcher.cancel()
        await producer
        raise first

    async def content() -> AsyncIterator[bytes]:
        line: BaseModel | BaseException | None = first
        try:
            while line is not None:
                yield _line(line)
                line = await lines.get()
        finally:
            stop.set()
            watcher.cancel()
            await asyncio.shield(producer)

    return StreamingResponse(content(), media_type=NDJSON, headers={"X-Accel-Buffering": "no"})


async def _produce(
    work: Callable[[Put, threading.Event], BaseModel],
    lines: "asyncio.Queue[BaseModel | BaseException | None]",
    stop: threading.Event,
    limiter: anyio.CapacityLimiter,
) -> None:
    loop = asyncio.get_running_loop()

    def put(line: BaseModel) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    try:
        last: BaseModel | BaseException = await anyio.to_thread.run_sync(work, put, stop, limiter=limiter)
    except Exception as error:  # whatever the work raises becomes the status or the last line, see _line
        last = error
    lines.put_nowait(last)
    lines.put_nowait(None)


def _line(line: BaseModel | BaseException) -> bytes:
    if isinstance(line, SlicecastError):
        line = ErrorEvent(status=line.status, detail=str(line))
    elif isinstance(line, BaseException) and is_disk_full(line):
        line = ErrorEvent(status=507, detail=DISK_FULL)
    elif isinstance(line, BaseException):
        logger.error("A stream broke off", exc_info=line)
        line = ErrorEvent(status=500, detail="The server made a mistake; its log says which. Try again.")
    return line.model_dump_json().encode() + b"\n"
