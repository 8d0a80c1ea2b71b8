"""A bound on the voxels that are read at once, over all threads: many volumes that each fit can together fill memory.

The command line reads one volume at a time and needs none; the server sets it (`limits` in `configs/server.yaml`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from slicecast.errors import ReadingFull

WAIT_S = 10.0
"""How long a volume waits for others to be read, before it is refused."""


class VoxelBudget:
    """Counts voxels that are being read. Safe between threads.

    Args:
        most: that may be read at once; one volume alone may have more. Default: any number.
        wait_s: how long to wait for room.
    """

    def __init__(self, most: int | None = None, *, wait_s: float = WAIT_S) -> None:
        self.most = most
        self._wait_s = wait_s
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, voxels: int) -> None:
        """Wait until there is room for so many voxels, and take it.

        Raises:
            ReadingFull: there was none in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._fits(voxels), self._wait_s):
                raise ReadingFull(
                    f"The server is reading other scans of {self._taken >> 20} million voxels, and has no memory for "
                    f"{voxels >> 20} million more at the same time. Try again in a few seconds."
                )
            self._taken += voxels

    def give(self, voxels: int) -> None:
        """Give room back."""
        with self._changed:
            self._taken -= voxels
            self._changed.notify_all()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold, until the block ends, what `claim` takes in it."""
        claims: list[int] = []
        token = _claims.set((self, claims))
        try:
            yield
        finally:
            _claims.reset(token)
            self.give(sum(claims))

    def _fits(self, voxels: int) -> bool:
        return self.most is None or not self._taken or self._taken + voxels <= self.most


_claims: ContextVar[tuple[VoxelBudget, list[int]] | None] = ContextVar("slicecast_voxel_claims", default=None)

READING = VoxelBudget()
"""Of this process."""


def claim(voxels: int) -> None:
    """Take room for a volume whose header was read, once for each reading; nothing outside `VoxelBudget.reading`.

    Raises:
        ReadingFull: there was none in time.
    """
    found = _claims.get()
    if found is not None and not found[1]:
        found[0].take(voxels)
        found[1].append(voxels)
