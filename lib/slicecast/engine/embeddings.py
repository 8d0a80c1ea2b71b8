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
        missing = [n for n, value in enumerate(found) if value is None]
        if missing:
            for n, value in zip(missing, encode(missing), strict=True):
                found[n] = self._store(keys[n], value)
        return found

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

    def _look_up(self, keys: Sequence[Hashable]) -> list[Embedding | None]:
        with self._lock:
            found = []
            for key in keys:
                value = self._entries.get(key)
                if value is not None:
                    self._entries.move_to_end(key)
                found.append(value)
            self._hits += sum(v is not None for v in found)
            self._misses += sum(v is None for v in found)
            return found

    def _store(self, key: Hashable, value: Embedding) -> Embedding:
        with self._lock:
            held = self._entries.setdefault(key, value)
            if held is value:
                self._nbytes += value.nbytes
                self._shrink()
            return held

    def _shrink(self) -> None:
        while self._nbytes > self._budget and len(self._entries) > 1:
            _, dropped = self._entries.popitem(last=False)
            self._nbytes -= dropped.nbytes
            self._evictions += 1
