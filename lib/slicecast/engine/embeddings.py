"""A shared, bounded store of encoded slices."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from slicecast.engine.ports import Embedding


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters of a cache since it was made.

    Args:
        hits: slices found.
        misses: slices that had to be encoded.
        evictions: slices dropped to keep the budget.
        entries: slices held now.
        nbytes: bytes held now.
    """

    hits: int
    misses: int
    evictions: int
    entries: int
    nbytes: int


class EmbeddingCache:
    """Encoded slices by content key, least recently used dropped first, bounded in bytes.

    Safe to share between threads. Two threads that miss the same slice may both encode it; the
    second result is dropped, so callers always see one value per key.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._entries: OrderedDict[Hashable, Embedding] = OrderedDict()
        self._lock = threading.Lock()
        self._nbytes = self._hits = self._misses = self._evictions = 0

    def get_many(self, keys: Sequence[Hashable], encode: Callable[[list[int]], list[Embedding]]) -> list[Embedding]:
        """Return the embeddings of ``keys``, encoding those that are missing.

        Args:
            encode: receives the positions in ``keys`` that are missing, returns their embeddings.
        """
        found = self._look_up(keys)
        # One position for each key: a slice that two objects ask for at once is encoded once.
        missing = list({key: n for n, key in enumerate(keys) if key not in found}.values())
        if missing:
            encoded = encode(missing)
            found |= {keys[n]: self._store(keys[n], value) for n, value in zip(missing, encoded, strict=True)}
        return [found[key] for key in keys]

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

    def _look_up(self, keys: Sequence[Hashable]) -> dict[Hashable, Embedding]:
        with self._lock:
            found = {key: self._entries[key] for key in keys if key in self._entries}
            for key in found:
                self._entries.move_to_end(key)
            self._hits += len(found)
            self._misses += len(set(keys)) - len(found)
            return found

    def _store(self, key: Hashable, value: Embedding) -> Embedding:
        with self._lock:
            if key not in self._entries:
                self._entries[key] = value
                self._nbytes += value.nbytes
                self._shrink()
            # What did not stay is still the caller's.
            return self._entries.get(key, value)

    def _shrink(self) -> None:
        while self._nbytes > self._budget and len(self._entries) > 1:
            _, dropped = self._entries.popitem(last=False)
            self._nbytes -= dropped.nbytes
            self._evictions += 1
