"""Volumes as the engine wants them: read once, canonical, windowed, named by their content."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cachetools import LRUCache

from slicecast.engine.crop_window import Frames
from slicecast.volume import (
    Reorientation,
    SliceAxis,
    SliceStack,
    Volume,
    Window,
    canonicalise,
    choose_window,
    normalise,
    read_volume,
)
from slicecast.volume.reading import without_folders

MAX_VOLUMES = 4  # Volumes kept in memory between requests
MAX_BYTES = 1 << 30  # Their voxels together; one volume is always kept


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Study:
    """One volume, opened."""

    volume: Volume  # in canonical orientation
    reorientation: Reorientation  # between the stored and the canonical grid
    digest: str  # of its voxels and spacing
    constant: bool = False  # all voxels have the same value
    _windows: dict[str, Window] = field(default_factory=dict, init=False)

    def frames(self, axis: SliceAxis, window: Window) -> Frames:
        """Return the slices along an axis, windowed on reading."""
        stack = SliceStack(self.volume.array, axis)
        key = f"{self.digest}/{axis.name}/{window.name}:{window.low:g}:{window.high:g}:{window.background}"
        return Frames(
            count=stack.count,
            shape_hw=stack.shape_hw,
            spacing_xy_mm=axis.pixel_spacing_mm(self.volume.geometry),
            read=lambda number: normalise(stack.slice(number), window),
            key=key,
        )

    def window(self, name: str) -> Window:
        """Choose the window by name; ``auto`` looks at the voxels, once."""
        if name not in self._windows:
            self._windows[name] = choose_window(self.volume, name)
        return self._windows[name]


class Studies:
    """Opened volumes, the last few kept; a file that changed is read again. Safe between threads."""

    def __init__(
        self,
        *,
        read: Callable[[Path], Volume] = read_volume,
        max_volumes: int = MAX_VOLUMES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._read, self._max_bytes = read, max_bytes
        self._held: LRUCache[tuple, Study] = LRUCache(max_volumes)
        self._guard = threading.Lock()

    def open(self, path: Path) -> Study:
        """Return the volume of a file or DICOM folder; raises VolumeError if it cannot be used."""

        def read() -> Study:
            with without_folders(path):
                return open_study(self._read(path))

        return self.held(stamp_of(path), read)

    def held(self, stamp: tuple, opened: Callable[[], Study]) -> Study:
        """Return what is held under a name, opened where it is not."""
        with self._guard:
            held = self._held.get(stamp)
        if held is not None:
            return held
        study = opened()
        with self._guard:
            self._held[stamp] = study
            while len(self._held) > 1 and sum(s.volume.array.nbytes for s in self._held.values()) > self._max_bytes:
                self._held.popitem()
        return study


def open_study(volume: Volume) -> Study:
    """Bring a volume into canonical orientation and name its content."""
    canonical, reorientation = canonicalise(volume)
    array = np.ascontiguousarray(canonical.array)
    digest = hashlib.blake2b(array.data, digest_size=16)
    digest.update(f"{array.shape}{array.dtype}{canonical.geometry.spacing_mm}".encode())
    constant = bool(array.min() == array.max())
    return Study(canonical.with_array(array), reorientation, digest.hexdigest(), constant)


def stamp_of(path: Path) -> tuple:
    """Name a file's state: another size or time of change means another content."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(f.name, s.st_mtime_ns, s.st_size) for f in files if f.exists() for s in [f.stat()]]
    return str(path.resolve()), *states
