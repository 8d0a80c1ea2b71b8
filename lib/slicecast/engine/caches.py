"""Answers that the model has given already, by everything that they depend on.

A chain of answers is named by its beginning: an anchor by the volume, the model, the window and the prompts on its
slice; a lane by the anchors it walks from and towards; a lane's answer by the lane and the slice. Equal names mean
equal questions, so an answer found here is the one that the model would give again, and whoever asks again, a session
after a correction or a client that sends all its prompts each time, pays only for what is new.
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from slicecast.engine.lru import CacheStats, Lru
from slicecast.engine.ports import ModelPrompt, Observation

Value = TypeVar("Value")

SMALL_BYTES = 256
"""What a small value costs with its key, about."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """An answer, and whether it was known before it was asked for."""

    observation: Observation
    reused: bool


class AnswerMemo:
    """Answers and small facts by name, bounded in bytes; safe to share between threads.

    Args:
        budget_bytes: of all answers with their memories; 0 keeps nothing worth mentioning.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._held: Lru = Lru(budget_bytes)

    def answers(self, keys: Sequence[Hashable], ask: Callable[[list[int]], Sequence[Observation]]) -> list[Known]:
        """Return the answers of ``keys``, asking for those that are not known.

        Args:
            ask: receives the positions in ``keys`` that are missing, returns their answers.
        """
        found = {key: Known(seen, True) for key, seen in self._held.find(keys).items()}
        # One position for each key: two objects with the same prompts are one question.
        missing = list({key: n for n, key in enumerate(keys) if key not in found}.values())
        if missing:
            for n, seen in zip(missing, ask(missing), strict=True):
                found[keys[n]] = Known(self._held.keep(keys[n], seen, nbytes=_nbytes(seen)), False)
        return [found[key] for key in keys]

    def fact(self, key: Hashable, work_out: Callable[[], Value]) -> Value:
        """Return a small value, worked out at most once while it is kept."""
        found: dict[Hashable, Value] = self._held.find((key,))
        return found[key] if key in found else self._held.keep(key, work_out(), nbytes=SMALL_BYTES)

    def stats(self) -> CacheStats:
        """Return the counters."""
        return self._held.stats()

    def clear(self) -> None:
        """Drop everything that is held."""
        self._held.clear()


def name_of(*parts: object) -> str:
    """Return a short name of values whose ``repr`` says all of them."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def prompt_name(prompt: ModelPrompt) -> str:
    """Return a name of a prompt's content."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (prompt.points_xy, prompt.labels, prompt.box_xyxy, prompt.mask):
        digest.update(b"-" if array is None else f"{array.shape}{array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()


def _nbytes(seen: Observation) -> int:
    return SMALL_BYTES + seen.logits.nbytes + int(getattr(seen.memory, "nbytes", 0))
