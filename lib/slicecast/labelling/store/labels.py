"""Saved labels: reading one, and the names of its values.

3D Slicer numbers all segments of its list in `label_info`, but leaves some out of the file (background, scribbles) and
renumbers the rest 1, 2, 3 ... So every segment after one left out would get a wrong name; `true_label_info` repairs it.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from numpy.typing import NDArray

from slicecast.errors import GeometryError, VolumeError
from slicecast.inference.studies import Study
from slicecast.volume import read_volume

logger = logging.getLogger(__name__)

LabelInfo = list[dict[str, Any]]

FINAL, ORIGINAL = DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value
"""Tags of a submitted label, and of a pre-annotation."""

SENT = "label_info_sent"
"""Key of `label_info` as a client sent it, where it was repaired."""


def true_label_info(sent: Any, values: Iterable[int]) -> LabelInfo:
    """Return the entries of `label_info` with the numbers that the voxels have.

    If all values of the mask are among the numbers sent, those are right. Else, if the values lie within 1 to n, the
    entries are numbered in order. Where neither holds, what was sent is kept.

    Args:
        sent: entries with `name` and `idx`; entries without either are dropped.
        values: of the mask; 0 is ignored.
    """
    entries = [dict(entry) for entry in sent if _is_entry(entry)] if isinstance(sent, list) else []
    present = {int(value) for value in values} - {0}
    if present <= {entry["idx"] for entry in entries} or not present <= set(range(1, len(entries) + 1)):
        return entries
    return [{**entry, "idx": place} for place, entry in enumerate(entries, start=1)]


def with_true_label_info(info: Mapping[str, Any], label: Path) -> dict[str, Any]:
    """Return a label's record with the true `label_info`; what was sent is kept beside it where it differs.

    The record of a file that is no volume, such as detection points, is returned as it is.
    """
    sent = info.get("label_info")
    if not sent:
        return dict(info)
    try:
        values = np.unique(read_volume(label).array).tolist()
    except VolumeError as error:
        logger.info("The label %s is no volume, so its names are kept as sent: %s", label.name, error)
        return dict(info)
    entries = true_label_info(sent, values)
    return {**info, "label_info": entries} if entries == sent else {**info, "label_info": entries, SENT: sent}


@dataclass(frozen=True, slots=True, eq=False)
class FinalLabel:
    """A submitted label.

    Args:
        array: whole numbers [k, j, i], in canonical orientation.
        present: the values of its voxels, without 0.
        values: name to value, of those that are present; empty where no name is known.
    """

    array: NDArray[np.integer]
    present: tuple[int, ...]
    values: Mapping[str, int]


def read_final_label(store: Datastore, image_id: str, study: Study, *, labels: Sequence[str]) -> FinalLabel:
    """Read the final label of an image; without names of its own, `labels` name the values from 1.

    Raises:
        VolumeError: it cannot be read.
        GeometryError: it is not on its image's grid.
    """
    label = read_volume(store.get_label_uri(image_id, FINAL))
    if study.reorientation.source.differences(label.geometry):
        raise GeometryError(f"The label of '{image_id}' is not on its image's grid. Submit one that is.")
    present = tuple(int(value) for value in np.unique(label.array) if value)
    sent = true_label_info((store.get_label_info(image_id, FINAL) or {}).get("label_info"), present)
    named = {entry["name"]: entry["idx"] for entry in sent} or {name: n for n, name in enumerate(labels, start=1)}
    known = {name: value for name, value in named.items() if value in present}
    return FinalLabel(study.reorientation.to_canonical_array(label.array), present, known)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        return False
    return isinstance(entry.get("idx"), int) and not isinstance(entry["idx"], bool)
