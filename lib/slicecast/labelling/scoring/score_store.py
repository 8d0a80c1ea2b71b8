"""What was found out about volumes, on the disk: by content of the voxels and name of the model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import diskcache
import numpy as np
from numpy.typing import NDArray

from slicecast.engine.caches import name_of
from slicecast.labelling.scoring.volume_scores import VERSION


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of a volume.

    Args:
        content: names its voxels.
        flaw: what is wrong with them; empty for nothing.
        embedding: (D,) what it looks like; None where it was not looked at.
        scores: by name; empty where it was not scored.
        by_structure: the same of each structure.
        support: the labelled case that the scores came from.
        round: of the campaign, when it was scored.
    """

    content: str
    flaw: str = ""
    embedding: NDArray[np.float32] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    by_structure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    support: str = ""
    round: int = -1

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        told = {name: getattr(self, name) for name in ("content", "flaw", "scores", "by_structure", "support", "round")}
        looks = None if self.embedding is None else [float(value) for value in self.embedding]
        return json.dumps({**told, "embedding": looks}).encode()

    @staticmethod
    def of_bytes(data: bytes) -> "Known":
        """Return what :meth:`to_bytes` wrote."""
        told = json.loads(data)
        looks = told.pop("embedding")
        return Known(**told, embedding=None if looks is None else np.array(looks, dtype=np.float32))


class ScoreStore:
    """A folder of JSON texts; safe between threads and processes. Nothing in it is executed.

    Args:
        folder: made where it is missing.
        model: fingerprint of the model that looks.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._files = diskcache.Cache(str(folder), eviction_policy="none")
        self._model = model

    def content_of(self, stamp: tuple) -> str | None:
        """Return the content of a file in this state; None when it was not read yet."""
        data = self._files.get(name_of("file", stamp))
        return data.decode() if isinstance(data, bytes) else None

    def load(self, content: str) -> Known | None:
        """Return what the model made of a volume; None when it has not looked."""
        data = self._files.get(name_of(VERSION, self._model, content))
        return Known.of_bytes(data) if isinstance(data, bytes) else None

    def keep(self, stamp: tuple, known: Known) -> None:
        """Keep what was found, and which file it was found in."""
        self._files.set(name_of("file", stamp), known.content.encode())
        self._files.set(name_of(VERSION, self._model, known.content), known.to_bytes())

    def close(self) -> None:
        """Close the files."""
        self._files.close()
