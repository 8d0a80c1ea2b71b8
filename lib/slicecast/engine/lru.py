"""A bounded store of values by key: what was used least recently goes first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters of a store since it was made.

    Args:
        hits: values found.
        misses: values that were not there.
        evictions: values dropped to keep the budget.
        entries: values held now.
        nbytes: bytes held now.
        from_disk: of the misses, those found on the disk.
    """

    hits: int
    misses: int
    evictions: int
    entries: int
    nbytes: int
    from_disk: int = 0


class Lru(Generic[Value]):
    """Values by key, bounded in bytes; safe to share between threads.

    Args:
        budget_bytes: of all values together; one value is always kept.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._entries: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._nbytes = self._hits = self._misses = self._evictions = 0

    def find(self, keys: Iterable[Hashable]) -> dict[Hashable, Value]:
        """Return the values that are there, by key; each key asked for counts once as hit or miss."""
        with self._lock:
            wanted = dict.fromkeys(keys)
            found = {key: self._entries[key][0] for key in wanted if key in self._entries}
            for key in found:
                self._entries.move_to_end(key)
            self._hits += len(found)
            self._misses += len(wanted) - len(found)
            return found

    def keep(self, key: Hashable, value: Value, *, nbytes: int) -> Value:
        """Keep a value unless there is one; return the one that callers should use."""
        with self._lock:
            if key not in self._entries:
                self._entries[key] = value, nbytes
                self._nbytes += nbytes
                self._shrink()
            # What did not stay is still the caller's.
            return self._entries.get(key, (value, nbytes))[0]

    def drop(self, key: Hashable) -> None:
        """Drop one value, if it is there."""
        with self._lock:
            _, nbytes = self._entries.pop(key, (None, 0))
            self._nbytes -= nbytes

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    def stats(self) -> CacheStats:
        """Return the counters."""
        with self._lock:
            return CacheStats(self._hits, self._misses, self._evictions, len(self._entries), self._nbytes)

    def clear(self) -> None:
        """Drop everything that is held."""
        with self._lock:
            self._entries.clear()
            self._nbytes = 0

    def _shrink(self) -> None:
        while self._nbytes > self._budget and len(self._entries) > 1:
            _, (_, nbytes) = self._entries.popitem(last=False)
            self._nbytes -= nbytes
            self._evictions += 1
