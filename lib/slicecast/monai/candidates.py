"""A view of a store, for strategies that ask it which images there are to choose from."""

from collections.abc import Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore


class Candidates:
    """A store of which a strategy sees only the candidates."""

    def __init__(self, store: Datastore, names: Sequence[str]) -> None:
        self._store = store
        self._names = list(names)

    def get_unlabeled_images(self) -> list[str]:
        """Return the candidates."""
        return list(self._names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
