"""A shared, bounded store of encoded slices."""

from collections.abc import Callable, Hashable, Sequence

from slicecast.engine.lru import CacheStats, Lru
from slicecast.engine.ports import Embedding

__all__ = ["CacheStats", "EmbeddingCache"]


class EmbeddingCache:
    """Encoded slices by content key, least recently used dropped first, bounded in bytes.

    Safe to share between threads. Two threads that miss the same slice may both encode it; the
    second result is dropped, so callers always see one value per key.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._held: Lru[Embedding] = Lru(budget_bytes)

    def get_many(self, keys: Sequence[Hashable], encode: Callable[[list[int]], list[Embedding]]) -> list[Embedding]:
        """Return the embeddings of ``keys``, encoding those that are missing.

        Args:
            encode: receives the positions in ``keys`` that are missing, returns their embeddings.
        """
        found = self._held.find(keys)
        # One position for each key: a slice that two objects ask for at once is encoded once.
        missing = list({key: n for n, key in enumerate(keys) if key not in found}.values())
        if missing:
            encoded = encode(missing)
            found |= {keys[n]: self._keep(keys[n], value) for n, value in zip(missing, encoded, strict=True)}
        return [found[key] for key in keys]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def stats(self) -> CacheStats:
        """Return the counters."""
        return self._held.stats()

    def clear(self) -> None:
        """Drop everything that is held."""
        self._held.clear()

    def _keep(self, key: Hashable, value: Embedding) -> Embedding:
        return self._held.keep(key, value, nbytes=value.nbytes)
