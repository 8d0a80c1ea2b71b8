"""Encoded slices on the disk, for volumes that are opened again after a restart."""

from collections.abc import Callable, Hashable
from pathlib import Path

import diskcache

from slicecast.engine.caches import name_of
from slicecast.engine.ports import Embedding


class DiskTier:
    """Embeddings in a folder, least recently used dropped first; safe between threads and processes.

    Only bytes are stored, never pickled objects: what the folder holds is not executed.

    Args:
        folder: made where it is missing.
        budget_bytes: of all files together, about.
        pack: turns an embedding to bytes.
        unpack: turns them back.
    """

    def __init__(
        self,
        folder: Path,
        budget_bytes: int,
        *,
        pack: Callable[[Embedding], bytes],
        unpack: Callable[[bytes], Embedding],
    ) -> None:
        self._files = diskcache.Cache(
            str(folder), size_limit=budget_bytes, eviction_policy="least-recently-used", cull_limit=8
        )
        self._pack, self._unpack = pack, unpack

    def load(self, key: Hashable) -> Embedding | None:
        """Return an embedding; None where it is not there."""
        data = self._files.get(name_of(key))
        return self._unpack(data) if isinstance(data, bytes) else None

    def store(self, key: Hashable, value: Embedding) -> None:
        """Keep an embedding."""
        self._files.set(name_of(key), self._pack(value))

    def close(self) -> None:
        """Close the files."""
        self._files.close()
