"""What volumes look like to the model, and the cache on disk of what was found out about each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diskcache
import numpy as np
from numpy.typing import NDArray

from slicecast.engine.caches import EmbeddingCache, key_of
from slicecast.engine.crop_window import whole_crop
from slicecast.engine.options import EngineOptions
from slicecast.engine.tracks import Tracker
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.studies import Study
from slicecast.volume import choose_axis

EMBEDDED_SLICES = 8  # Evenly spaced slices whose mean is a volume's embedding
CACHE_BYTES = 1 << 27  # Of encoded slices. Small, because a volume is read once and not again.

VERSION = 1  # Part of the cache keys; raise it when the meaning of the embedding changes


def embed(
    predictor: QueuedPredictor, study: Study, *, cancelled: Callable[[], bool] = lambda: False
) -> NDArray[np.float32]:
    """Return a volume's embedding, (D,) float32.

    Args:
        predictor: the model; every call is a step in the device queue.
        cancelled: asked before each batch.

    Raises:
        Cancelled: `cancelled` said so.
    """
    frames = study.frames(choose_axis(study.volume.geometry), study.window("auto"))
    tracker = Tracker(predictor, frames, EmbeddingCache(CACHE_BYTES), EngineOptions(), cancelled=cancelled)
    numbers = sorted({int((n + 0.5) * frames.count / EMBEDDED_SLICES) for n in range(EMBEDDED_SLICES)})
    crop = whole_crop(frames)
    return predictor.pool(tracker.embed([(number, crop) for number in numbers])).mean(axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class CachedVolume:
    """What is cached of a volume."""

    content: str  # digest of its voxels
    flaw: str = ""  # what is wrong with them; empty for nothing
    embedding: NDArray[np.float32] | None = None  # (D,) float32; None where it could not be embedded

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        embedding = None if self.embedding is None else [float(value) for value in self.embedding]
        return json.dumps({"content": self.content, "flaw": self.flaw, "embedding": embedding}).encode()

    @staticmethod
    def of_bytes(data: bytes) -> "CachedVolume":
        """Return what :meth:`to_bytes` wrote; earlier versions wrote scores too, which are left out."""
        found = json.loads(data)
        embedding = None if found["embedding"] is None else np.array(found["embedding"], dtype=np.float32)
        return CachedVolume(found["content"], found["flaw"], embedding)


class VolumeCache:
    """The cache on disk: JSON texts, so that reading it executes nothing. Safe between threads and processes.

    Args:
        folder: made where it is missing.
        model: fingerprint of the model that embeds.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._files = diskcache.Cache(str(folder), eviction_policy="none")
        self._model = model

    def content_of(self, stamp: tuple) -> str | None:
        """Return the digest of a file's voxels, by its stamp (path, size, time); None when it was not read yet."""
        data = self._files.get(key_of("file", stamp))
        return data.decode() if isinstance(data, bytes) else None

    def load(self, content: str) -> CachedVolume | None:
        """Return what is cached of a volume by its digest, or None."""
        data = self._files.get(key_of(VERSION, self._model, content))
        return CachedVolume.of_bytes(data) if isinstance(data, bytes) else None

    def keep(self, stamp: tuple, known: CachedVolume) -> None:
        """Store a volume, and which file it belongs to."""
        self._files.set(key_of("file", stamp), known.content.encode())
        self._files.set(key_of(VERSION, self._model, known.content), known.to_bytes())

    def close(self) -> None:
        """Close the files."""
        self._files.close()
