"""The order in which work goes: by urgency, fair between users, and nothing starves. Pure: no threads, no clock."""

from collections import OrderedDict, deque
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")

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
