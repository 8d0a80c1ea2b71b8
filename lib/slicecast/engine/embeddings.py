"""A shared, bounded store of encoded slices."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from slicecast.engine.lru import CacheStats, Lru
from slicecast.engine.ports import Embedding

__all__ = ["CacheStats", "EmbeddingCache"]


class Tier(Protocol):
    """A slower store behind the cache."""

    def load(self, key: Hashable) -> Embedding | None:
        """Return an embedding; None where it is not there."""
        ...

    def store(self, key: Hashable, value: Embedding) -> None:
        """Keep an embedding."""
        ...


class EmbeddingCache:
    """Encoded slices by content key, least recently used dropped first, bounded in bytes.

    Safe to share between threads. Two threads that miss the same slice may both encode it; the
    second result is dropped, so callers always see one value per key.

    Attributes:
        tier: asked before a slice is encoded, and given what was; None: there is none.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._held: Lru[Embedding] = Lru(budget_bytes)
        self._from_tier = 0
        self.tier: Tier | None = None

    def get_many(self, keys: Sequence[Hashable], encode: Callable[[list[int]], list[Embedding]]) -> list[Embedding]:
        """Return the embeddings of ``keys``, encoding those that are missing.

        Args:
            encode: receives the positions in ``keys`` that are missing, returns their embeddings.
        """
        found = self._held.find(keys)
        # One position for each key: a slice that two objects ask for at once is encoded once.
        wanted = {key: n for n, key in enumerate(keys) if key not in found}
        found |= self._from_below(list(wanted))
        missing = [n for key, n in wanted.items() if key not in found]
        if missing:
            encoded = dict(zip((keys[n] for n in missing), encode(missing), strict=True))
            found |= {key: self._keep(key, value) for key, value in encoded.items()}
            self._to_below(encoded)
        return [found[key] for key in keys]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def stats(self) -> CacheStats:
        """Return the counters."""
        return replace(self._held.stats(), from_disk=self._from_tier)

    def clear(self) -> None:
        """Drop everything that is held."""
        self._held.clear()

    def _from_below(self, keys: Sequence[Hashable]) -> dict[Hashable, Embedding]:
        if self.tier is None:
            return {}
        found = {key: value for key in keys if (value := self.tier.load(key)) is not None}
        self._from_tier += len(found)
        return {key: self._keep(key, value) for key, value in found.items()}

    def _to_below(self, encoded: Mapping[Hashable, Embedding]) -> None:
        if self.tier is not None:
            for key, value in encoded.items():
                self.tier.store(key, value)

    def _keep(self, key: Hashable, value: Embedding) -> Embedding:
        return self._held.keep(key, value, nbytes=value.nbytes)
