"""The mask that an image starts with: the label saved under the tag `original`, if there is one."""

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from slicecast.labelling.tasks.request import number_labels
from slicecast.volume import Geometry, Volume, read_volume, write_volume

NOTHING = "There is no automatic model and no pre-annotation. Place points and choose one of the interactive models."


def preannotation(store: Datastore, image_id: str, *, geometry: Geometry, labels: Sequence[str]) -> dict[str, Any]:
    """Return the pre-annotation as an infer answer, `file` and `params`; without one an empty mask.

    Args:
        store: the studies.
        image_id: of the image.
        geometry: of the image.
        labels: the app's, which are named where there is no pre-annotation.
    """
    tag = DefaultLabelTag.ORIGINAL.value
    uri = store.get_label_uri(image_id, tag)
    if not uri:
        empty = Volume(np.zeros(geometry.size_ijk[::-1], np.uint8), geometry)
        return _answer(empty, {"label_names": number_labels(labels, labels), "warnings": [NOTHING]})
    params = (store.get_label_info(image_id, tag) or {}).get("params") or {}
    return _answer(read_volume(uri), {"label_names": params.get("label_names") or {}, "warnings": []})


def _answer(mask: Volume, params: dict[str, Any]) -> dict[str, Any]:
    handle, path = tempfile.mkstemp(prefix="slicecast-", suffix=".nrrd")
    os.close(handle)
    write_volume(path, mask, compress=False)
    return {"file": path, "params": params}
