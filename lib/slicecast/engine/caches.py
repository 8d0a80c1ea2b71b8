"""What is kept between requests: encoded slices, and answers that the model has given, by all that they depend on.

A chain of answers is keyed by its beginning: an anchor by the volume, the model, the window and the prompts on its
slice; a track by the anchors it runs from and towards; a track's answer by the track and the slice. Equal keys mean
equal questions, so an answer found here is the one that the model would give again, and whoever asks again, a session
after a correction or a client that sends all its prompts each time, pays only for what is new.
"""

import hashlib
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

from slicecast.engine.ports import Embedding, ModelPrompt, Observation

Value = TypeVar("Value")

SMALL_BYTES = 256  # What a small value costs with its key, about


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters of a store since it was made."""

    hits: int  # values found
    misses: int  # values that were not there
    evictions: int  # values dropped to keep the budget
    entries: int  # values held now
    nbytes: int  # bytes held now


class _Entries(LRUCache[Hashable, tuple[Value, int]]):
    """Values with their sizes; counts what it drops."""

    def __init__(self, budget_bytes: int) -> None:
        super().__init__(budget_bytes, getsizeof=lambda entry: entry[1])
        self.evictions = 0

    def popitem(self) -> tuple[Hashable, tuple[Value, int]]:
        self.evictions += 1
        return super().popitem()


class Lru(Generic[Value]):
    """Values by key, least recently used dropped first, bounded in bytes; safe to share between threads.

    Args:
        budget_bytes: of all values together; what is larger by itself is not kept.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._entries: _Entries[Value] = _Entries(budget_bytes)
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    def find(self, keys: Iterable[Hashable]) -> dict[Hashable, Value]:
        """Return the values that are there, by key; each key asked for counts once as hit or miss."""
        with self._lock:
            wanted = dict.fromkeys(keys)
            found = {key: self._entries[key][0] for key in wanted if key in self._entries}
            self._hits += len(found)
            self._misses += len(wanted) - len(found)
            return found

    def keep(self, key: Hashable, value: Value, *, nbytes: int) -> Value:
        """Keep a value unless there is one; return the one that callers should use."""
        with self._lock:
            if key in self._entries:
                return self._entries[key][0]
            if nbytes <= self._entries.maxsize:
                self._entries[key] = value, nbytes
            return value

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    def stats(self) -> CacheStats:
        """Return the counters."""
        with self._lock:
            held = self._entries
            return CacheStats(self._hits, self._misses, held.evictions, len(held), int(held.currsize))

    def clear(self) -> None:
        """Drop everything that is held."""
        with self._lock:
            evictions = self._entries.evictions
            self._entries.clear()
            self._entries.evictions = evictions


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """An answer, and whether it was known before it was asked for."""

    observation: Observation
    reused: bool


class ResultCache(Lru[Any]):
    """Answers and small facts by key; a budget of 0 keeps nothing worth mentioning."""

    def answers(self, keys: Sequence[Hashable], ask: Callable[[list[int]], Sequence[Observation]]) -> list[Known]:
        """Return the answers of ``keys``, asking for those that are not known.

        Args:
            ask: receives the positions in ``keys`` that are missing, returns their answers.
        """
        found = {key: Known(seen, True) for key, seen in self.find(keys).items()}
        # One position for each key: two objects with the same prompts are one question.
        missing = list({key: n for n, key in enumerate(keys) if key not in found}.values())
        if missing:
            for n, seen in zip(missing, ask(missing), strict=True):
                found[keys[n]] = Known(self.keep(keys[n], seen, nbytes=_nbytes(seen)), False)
        return [found[key] for key in keys]

    def fact(self, key: Hashable, work_out: Callable[[], Value], *, nbytes: int = SMALL_BYTES) -> Value:
        """Return a value, worked out at most once while it is kept."""
        found: dict[Hashable, Value] = self.find((key,))
        return found[key] if key in found else self.keep(key, work_out(), nbytes=nbytes)


def key_of(*parts: object) -> str:
    """Return a short key of values whose ``repr`` says all of them."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def prompt_key(prompt: ModelPrompt) -> str:
    """Return a key of a prompt's content."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (prompt.points_xy, prompt.labels, prompt.box_xyxy, prompt.mask):
        digest.update(b"-" if array is None else f"{array.shape}{array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()


def _nbytes(seen: Observation) -> int:
    return SMALL_BYTES + seen.logits.nbytes + seen.memory.nbytes


class EmbeddingCache(Lru[Embedding]):
    """Encoded slices by content key.

    Two threads that miss the same slice may both encode it; the second result is dropped, so callers always see one
    value per key.
    """

    def get_many(self, keys: Sequence[Hashable], encode: Callable[[list[int]], list[Embedding]]) -> list[Embedding]:
        """Return the embeddings of ``keys``, encoding those that are missing.

        Args:
            encode: receives the positions in ``keys`` that are missing, returns their embeddings.
        """
        found = self.find(keys)
        # One position for each key: a slice that two objects ask for at once is encoded once.
        wanted = {key: n for n, key in enumerate(keys) if key not in found}
        missing = list(wanted.values())
        if missing:
            encoded = dict(zip((keys[n] for n in missing), encode(missing), strict=True))
            found |= {key: self.keep(key, value, nbytes=value.nbytes) for key, value in encoded.items()}
        return [found[key] for key in keys]
