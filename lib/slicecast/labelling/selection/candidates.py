"""A view of a store, for strategies that ask it which images there are to choose from."""

from collections.abc import Mapping, Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore

from slicecast.labelling.store.datastore import SafeDatastore


class Candidates:
    """A store of which a strategy sees only the candidates.

    What a folder's store knows of an image is shown as it is, without a copy and without looking for the file: a
    strategy asks for all of thousands of images while somebody waits. It must not change what it is shown.
    """

    def __init__(self, store: Datastore, names: Sequence[str]) -> None:
        self._store = store
        self._names = list(names)
        self._records: Mapping[str, Any] = store._datastore.objects if isinstance(store, SafeDatastore) else {}

    def get_unlabeled_images(self) -> list[str]:
        """Return the candidates."""
        return list(self._names)

    def get_image_info(self, image_id: str) -> Mapping[str, Any]:
        """Return what is known of an image."""
        record = self._records.get(image_id)
        return record.image.info if record else self._store.get_image_info(image_id)

    def get_label_info(self, label_id: str, label_tag: str) -> Mapping[str, Any]:
        """Return what is known of a label; nothing where there is none."""
        record = self._records.get(label_id)
        if record is None:
            return self._store.get_label_info(label_id, label_tag)
        label = record.labels.get(label_tag)
        return label.info if label else {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
