"""Schedules the work of all users on one device: urgent work first, fair between users, without starvation, bounded.

Requests are scheduled twice by the same rules. A request waits for one of a few job slots (`DeviceQueue.job`), and a
running job waits for the device at every model call (`DeviceQueue.step`), so a click never waits for a whole job.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from slicecast.config import require_numbers
from slicecast.errors import Cancelled, QueueFull

T = TypeVar("T")

POLL_S = 0.05  # How often waiting work checks whether it was cancelled
PATIENCE = 8  # How often a priority is passed over before it goes first


class Priority(IntEnum):
    """How urgent work is; smaller goes first."""

    CLICK = 0
    PROPAGATION = 1
    BACKGROUND = 2


class PriorityQueue(Generic[T]):
    """Entries by priority, round robin between the users of a priority, first come first served for each user.

    A priority that was passed over ``patience`` times goes next, so nothing starves: a user's first entry waits for
    at most (users of its priority) * (patience + 2) others. Not safe between threads.
    """

    def __init__(self, *, patience: int) -> None:
        self._patience = patience
        self._users: dict[Priority, OrderedDict[str, deque[T]]] = {p: OrderedDict() for p in Priority}
        self._passed = dict.fromkeys(Priority, 0)

    def __len__(self) -> int:
        return sum(len(entries) for users in self._users.values() for entries in users.values())

    def counts(self) -> dict[Priority, int]:
        """Return the number of entries of each priority."""
        return {p: sum(map(len, users.values())) for p, users in self._users.items()}

    def push(self, entry: T, *, user: str, priority: Priority) -> None:
        """Add an entry behind its user's others; a user without entries joins behind the other users."""
        self._users[priority].setdefault(user, deque()).append(entry)

    def pop(self) -> T:
        """Remove and return the entry that goes next; raises IndexError if the queue is empty."""
        chosen = self._next_priority()
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
        """Remove an entry that gave up; False if it is no longer in the queue."""
        for users in self._users.values():
            for user, entries in users.items():
                if entry in entries:
                    entries.remove(entry)
                    if not entries:
                        del users[user]
                    return True
        return False

    def _next_priority(self) -> Priority:
        waiting = [p for p in Priority if self._users[p]]
        if not waiting:
            raise IndexError("The queue is empty.")
        overdue = [p for p in waiting if self._passed[p] >= self._patience]
        return (overdue or waiting)[0]


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Limits on the work that is accepted; raises ConfigError if a value is not a positive whole number."""

    jobs: int = 8  # requests that run at a time
    waiting: int = 32  # requests that may wait for a job slot; further ones are refused
    per_user: int = 8  # requests of one user, running or waiting
    patience: int = PATIENCE  # how often a waiting priority is passed over by more urgent work before it goes first

    def __post_init__(self) -> None:
        require_numbers(self, where="server.yaml: queue")


@dataclass(slots=True, eq=False)
class Job:
    """One request's work."""

    user: str = ""  # who asked; users of the same priority are served round robin
    priority: Priority = Priority.CLICK  # how urgent; it falls to PROPAGATION at the first tracking step
    cancelled: Callable[[], bool] = lambda: False  # tells whether the answer is no longer wanted

    def check(self) -> None:
        """Raise Cancelled if the answer is no longer wanted."""
        if self.cancelled():
            raise Cancelled("Stopped, as asked.")


_current: ContextVar[Job | None] = ContextVar("slicecast_job", default=None)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A scheduler's state, and its counters since it was made."""

    working: int
    waiting: dict[Priority, int]
    taken: dict[Priority, int]  # slots given so far
    waited_s: dict[Priority, float]  # how long their holders had waited, in total
    refused: int  # entries that found the queue full


class Scheduler:
    """A number of slots, handed over in the order of a `PriorityQueue`. Safe between threads.

    Args:
        slots: how many may be taken at a time.
        max_waiting: how many may wait. Default: any number.
        max_per_user: slots and waiting entries of one user together. Default: any number.
        patience: see `PriorityQueue`.
        clock: seconds.
    """

    def __init__(
        self,
        slots: int = 1,
        *,
        max_waiting: int | None = None,
        max_per_user: int | None = None,
        patience: int = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free = self._slots = slots
        self._max_waiting, self._max_per_user = max_waiting, max_per_user
        self._queue: PriorityQueue[threading.Event] = PriorityQueue(patience=patience)
        self._users: Counter[str] = Counter()
        self._taken: Counter[Priority] = Counter()
        self._waited_s: dict[Priority, float] = dict.fromkeys(Priority, 0.0)
        self._refused = 0
        self._clock = clock
        self._guard = threading.Lock()

    @contextmanager
    def slot(self, job: Job) -> Iterator[None]:
        """Hold a slot for as long as the block lasts.

        Raises:
            QueueFull: there is no room to wait.
            Cancelled: the job was cancelled while it waited.
        """
        self._take(job, job.priority)
        try:
            yield
        finally:
            self._give(job)

    def stats(self) -> QueueStats:
        """Return state and counters."""
        with self._guard:
            return QueueStats(
                working=self._slots - self._free,
                waiting=self._queue.counts(),
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
                self._queue.push(mine, user=job.user, priority=priority)
        if mine is not None:
            self._wait(mine, job)
        with self._guard:
            self._taken[priority] += 1
            self._waited_s[priority] += self._clock() - start

    def _wait(self, mine: threading.Event, job: Job) -> None:
        try:
            while not mine.wait(POLL_S):
                job.check()
        except BaseException:  # cancelled or interrupted: leave the queue, or pass on a slot that was just given
            self._leave(mine, job)
            raise

    def _leave(self, mine: threading.Event, job: Job) -> None:
        with self._guard:
            if self._queue.remove(mine):
                self._forget(job)
                return
        self._give(job)

    def _give(self, job: Job) -> None:
        with self._guard:
            self._forget(job)
            if len(self._queue):
                self._queue.pop().set()  # the slot stays taken, by the next entry
            else:
                self._free += 1

    def _forget(self, job: Job) -> None:
        self._users[job.user] -= 1
        if not self._users[job.user]:
            del self._users[job.user]

    def _refuse_excess(self, job: Job) -> None:
        own, waiting = self._users[job.user], len(self._queue)
        if self._max_per_user is not None and own >= self._max_per_user:
            self._refused += 1
            raise QueueFull(f"{own} of your requests are in work or waiting already. Wait for one of them to end.")
        if self._max_waiting is not None and not self._free and waiting >= self._max_waiting:
            self._refused += 1
            raise QueueFull(f"The server is busy: {waiting} requests are waiting. Try again in a few seconds.")


def current_job() -> Job:
    """Return the job that this thread works on; a job of nobody where there is none."""
    return _current.get() or Job()


@contextmanager
def _working_on(job: Job) -> Iterator[Job]:
    """Make every step of this thread belong to a job."""
    before = _current.set(job)
    try:
        yield job
    finally:
        _current.reset(before)


@dataclass(frozen=True, slots=True)
class DeviceQueue:
    """The work of one device."""

    settings: QueueSettings = field(default_factory=QueueSettings)
    jobs: Scheduler = field(init=False)
    steps: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        limits = self.settings
        jobs = Scheduler(
            limits.jobs, max_waiting=limits.waiting, max_per_user=limits.per_user, patience=limits.patience
        )
        object.__setattr__(self, "jobs", jobs)
        object.__setattr__(self, "steps", Scheduler(patience=limits.patience))

    @contextmanager
    def job(self, user: str = "", *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Job]:
        """Hold a job slot; every step of this thread belongs to the job.

        Raises:
            QueueFull: too many requests are waiting, of this user or of all.
            Cancelled: it was cancelled while it waited.
        """
        job = Job(user, cancelled=cancelled)
        with self.jobs.slot(job), _working_on(job):
            yield job

    @contextmanager
    def background(self, *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Job]:
        """Let every step of this thread wait for all others; takes no job slot."""
        with _working_on(Job("", Priority.BACKGROUND, cancelled)) as job:
            yield job

    @contextmanager
    def step(self, *, tracking: bool = False) -> Iterator[None]:
        """Hold the device for one model call.

        Args:
            tracking: the job has begun to propagate: from here on its priority is PROPAGATION, no longer CLICK.

        Raises:
            Cancelled: the job's answer is no longer wanted.
        """
        job = current_job()
        job.check()
        if tracking:
            job.priority = max(job.priority, Priority.PROPAGATION)
        with self.steps.slot(job):
            yield
