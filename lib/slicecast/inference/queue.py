"""Whose work comes next: by urgency, fair between users, never starving, and bounded.

Two queues of one kind share these rules. Requests wait for a place among those in work (`DeviceQueue.job`), and those
in work wait for the device at every model call (`DeviceQueue.step`), so that a click never waits for a job to end.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Generic, TypeVar

from slicecast.errors import Cancelled, ConfigError, QueueFull

T = TypeVar("T")

POLL_S = 0.05
"""How often work that waits asks whether it is still wanted."""

PATIENCE = 8
"""How often a class of work is passed over before it goes first."""


class Priority(IntEnum):
    """How urgent work is; the smaller goes first."""

    CLICK = 0
    PROPAGATION = 1
    BACKGROUND = 2


class Line(Generic[T]):
    """Entries in the order in which they go: urgent first, then the users in turn, then the first come.

    A class of work that was passed over ``patience`` times goes next, so nothing starves: the first entry of a user
    waits for at most (users of its class) * (patience + 2) others. Not safe between threads.
    """

    def __init__(self, *, patience: int) -> None:
        self._patience = patience
        self._users: dict[Priority, OrderedDict[str, deque[T]]] = {p: OrderedDict() for p in Priority}
        self._passed = dict.fromkeys(Priority, 0)

    def __len__(self) -> int:
        return sum(len(entries) for users in self._users.values() for entries in users.values())

    def counts(self) -> dict[Priority, int]:
        """Return the number of entries of each urgency."""
        return {p: sum(map(len, users.values())) for p, users in self._users.items()}

    def push(self, entry: T, *, user: str, priority: Priority) -> None:
        """Add an entry behind the others of its user; a user who was not waiting joins behind the other users."""
        self._users[priority].setdefault(user, deque()).append(entry)

    def pop(self) -> T:
        """Take out the entry that goes next.

        Raises:
            IndexError: nobody waits.
        """
        chosen = self._next_class()
        users = self._users[chosen]
        user, entries = users.popitem(last=False)
        entry = entries.popleft()
        if entries:
            users[user] = entries
        for priority in Priority:
            waits = priority > chosen and bool(self._users[priority])
            self._passed[priority] = self._passed[priority] + 1 if waits else self._passed[priority]
        self._passed[chosen] = 0
        return entry

    def remove(self, entry: T) -> bool:
        """Take out an entry that gave up; False when it is not in the line any more."""
        for users in self._users.values():
            for user, entries in users.items():
                if entry in entries:
                    entries.remove(entry)
                    if not entries:
                        del users[user]
                    return True
        return False

    def _next_class(self) -> Priority:
        waiting = [p for p in Priority if self._users[p]]
        if not waiting:
            raise IndexError("Nobody waits.")
        overdue = [p for p in waiting if self._passed[p] >= self._patience]
        return (overdue or waiting)[0]


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Limits of the work that is accepted.

    Args:
        jobs: requests in work at a time.
        waiting: requests that may wait for that; the next one is refused.
        per_user: requests of one user in work or waiting.
        patience: a waiting class of work is passed over so many times by more urgent work, then goes first.

    Raises:
        ConfigError: a value is not a positive whole number.
    """

    jobs: int = 8
    waiting: int = 32
    per_user: int = 8
    patience: int = PATIENCE

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"The queue's setting {entry.name} is {value!r}; give a whole number from 1.")


@dataclass(slots=True, eq=False)
class Job:
    """One request's work.

    Args:
        user: who asked; users of the same urgency take turns.
        priority: how urgent; it falls to PROPAGATION once lanes are walked.
        cancelled: whether nobody wants the answer any more.
    """

    user: str = ""
    priority: Priority = Priority.CLICK
    cancelled: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raise Cancelled when nobody wants the answer any more."""
        if self.cancelled():
            raise Cancelled("Stopped, as asked.")


_current: ContextVar[Job | None] = ContextVar("slicecast_job", default=None)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue's state, and its counters since it was made.

    Args:
        working: places taken now.
        waiting: entries in line now.
        taken: places given so far.
        waited_s: how long their holders had waited, together.
        refused: entries that found the queue full.
    """

    working: int
    waiting: dict[Priority, int]
    taken: dict[Priority, int]
    waited_s: dict[Priority, float]
    refused: int


class FairQueue:
    """A number of places, handed from one to the next in a `Line`'s order. Safe between threads.

    Args:
        places: how many may be taken at a time.
        max_waiting: how many may wait. Default: any number.
        max_per_user: places and waiting entries of one user together. Default: any number.
        patience: see `Line`.
        clock: seconds.
    """

    def __init__(
        self,
        places: int = 1,
        *,
        max_waiting: int | None = None,
        max_per_user: int | None = None,
        patience: int = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free = self._places = places
        self._max_waiting, self._max_per_user = max_waiting, max_per_user
        self._line: Line[threading.Event] = Line(patience=patience)
        self._users: Counter[str] = Counter()
        self._taken: Counter[Priority] = Counter()
        self._waited_s: dict[Priority, float] = dict.fromkeys(Priority, 0.0)
        self._refused = 0
        self._clock = clock
        self._guard = threading.Lock()

    @contextmanager
    def turn(self, job: Job, *, priority: Priority | None = None) -> Iterator[None]:
        """Hold a place for as long as the block lasts.

        Raises:
            QueueFull: there is no room to wait.
            Cancelled: the job was cancelled while it waited.
        """
        self._take(job, job.priority if priority is None else priority)
        try:
            yield
        finally:
            self._give(job)

    def stats(self) -> QueueStats:
        """Return state and counters."""
        with self._guard:
            return QueueStats(
                working=self._places - self._free,
                waiting=self._line.counts(),
                taken={p: self._taken[p] for p in Priority},
                waited_s=dict(self._waited_s),
                refused=self._refused,
            )

    def _take(self, job: Job, priority: Priority) -> None:
        start = self._clock()
        with self._guard:
            self._refuse_excess(job)
            self._users[job.user] += 1
            mine = None if self._free else threading.Event()
            if mine is None:
                self._free -= 1
            else:
                self._line.push(mine, user=job.user, priority=priority)
        if mine is not None:
            self._wait(mine, job)
        with self._guard:
            self._taken[priority] += 1
            self._waited_s[priority] += self._clock() - start

    def _wait(self, mine: threading.Event, job: Job) -> None:
        try:
            while not mine.wait(POLL_S):
                job.check()
        except BaseException:  # cancelled or interrupted while waiting: leave the line, or pass the place on
            self._leave(mine, job)
            raise

    def _leave(self, mine: threading.Event, job: Job) -> None:
        with self._guard:
            if self._line.remove(mine):
                self._forget(job)
                return
        self._give(job)

    def _give(self, job: Job) -> None:
        with self._guard:
            self._forget(job)
            if len(self._line):
                self._line.pop().set()  # the place stays taken, by the next in line
            else:
                self._free += 1

    def _forget(self, job: Job) -> None:
        self._users[job.user] -= 1
        if not self._users[job.user]:
            del self._users[job.user]

    def _refuse_excess(self, job: Job) -> None:
        own, waiting = self._users[job.user], len(self._line)
        if self._max_per_user is not None and own >= self._max_per_user:
            self._refused += 1
            raise QueueFull(f"{own} of your requests are in work or waiting already. Wait for one of them to end.")
        if self._max_waiting is not None and not self._free and waiting >= self._max_waiting:
            self._refused += 1
            raise QueueFull(f"The server is busy: {waiting} requests are waiting. Try again in a few seconds.")


@contextmanager
def _working_on(job: Job) -> Iterator[Job]:
    """Make a job the one whose steps this thread takes."""
    before = _current.set(job)
    try:
        yield job
    finally:
        _current.reset(before)


@dataclass(frozen=True, slots=True)
class DeviceQueue:
    """The work of one device.

    Args:
        settings: its limits.
    """

    settings: QueueSettings = field(default_factory=QueueSettings)
    jobs: FairQueue = field(init=False)
    steps: FairQueue = field(init=False)

    def __post_init__(self) -> None:
        limits = self.settings
        jobs = FairQueue(
            limits.jobs, max_waiting=limits.waiting, max_per_user=limits.per_user, patience=limits.patience
        )
        object.__setattr__(self, "jobs", jobs)
        object.__setattr__(self, "steps", FairQueue(patience=limits.patience))

    @contextmanager
    def job(
        self,
        user: str = "",
        *,
        priority: Priority = Priority.CLICK,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Job]:
        """Hold a place among the requests in work; every step of this thread belongs to it.

        Raises:
            QueueFull: too many requests are waiting, of this user or of all.
            Cancelled: it was cancelled while it waited.
        """
        job = Job(user, priority, cancelled)
        with self.jobs.turn(job), _working_on(job):
            yield job

    @contextmanager
    def background(self, *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Job]:
        """Let every step of this thread wait for all others; takes no place among the requests."""
        with _working_on(Job("", Priority.BACKGROUND, cancelled)) as job:
            yield job

    @contextmanager
    def step(self, *, walking: bool = False) -> Iterator[None]:
        """Hold the device for one model call.

        Args:
            walking: a lane's step; from the first one on a job is a propagation, no longer a click.

        Raises:
            Cancelled: nobody wants the job's answer any more.
        """
        job = _current.get() or Job()
        job.check()
        if walking:
            job.priority = max(job.priority, Priority.PROPAGATION)
        with self.steps.turn(job):
            yield
