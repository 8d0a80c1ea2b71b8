"""Labels: the one check of every label that comes in, reading a saved one, and the names of its values.

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
from slicecast.volume import Geometry, Volume, read_volume, write_mask
from slicecast.volume.grid import onto_grid
from slicecast.volume.reading import without_folders

logger = logging.getLogger(__name__)

LabelInfo = list[dict[str, Any]]

FINAL, ORIGINAL = DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value
"""Tags of a submitted label, and of a pre-annotation."""

SENT = "label_info_sent"  # Key of `label_info` as a client sent it, where it was repaired


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


def with_names(info: Mapping[str, Any], label: Path, *, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Return a label's record with the true `label_info`; what was sent is kept beside it where it differs.

    Where none was sent, the values that the label has get the names that `names_of` knows now: written down, they stay
    when the server's list of labels is changed. The record of a file that is no volume is returned as it is.
    """
    sent = info.get("label_info")
    try:
        values = [int(value) for value in np.unique(read_volume(label).array)]
    except VolumeError as error:
        logger.info("The label %s is no volume, so its names are kept as sent: %s", label.name, error)
        return dict(info)
    named = names_of(info, values, labels).items()
    entries = true_label_info(sent, values) or [{"name": name, "idx": n} for name, n in named if n in values]
    told = {**info, "label_info": entries} if sent or entries else dict(info)
    return {**told, SENT: sent} if sent and entries != sent else told


@dataclass(frozen=True, slots=True, eq=False)
class FinalLabel:
    """A submitted label."""

    array: NDArray[np.integer]  # whole numbers [k, j, i], in canonical orientation
    present: tuple[int, ...]  # the values of its voxels, without 0
    values: Mapping[str, int]  # name to value, of those that are present; empty where no name is known


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
    named = names_of(store.get_label_info(image_id, FINAL) or {}, present, labels)
    known = {name: value for name, value in named.items() if value in present}
    return FinalLabel(study.reorientation.to_canonical_array(label.array), present, known)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        return False
    return isinstance(entry.get("idx"), int) and not isinstance(entry["idx"], bool)


MAX_VALUE = 255

SHOWN = 6  # Values that a sentence lists


def check_label(file: Path, grid: Geometry, names: Mapping[str, int]) -> NDArray[np.uint8]:
    """Read a label's file and check that it can be the label of an image.

    Args:
        file: NIfTI, NRRD or MHA; floats that hold whole numbers are accepted.
        grid: the image's own. The label's axes may be stored in another order or direction.
        names: the value of each structure.

    Returns:
        uint8 [k, j, i] on that grid.

    Raises:
        VolumeError: it cannot be read, or holds something else than whole numbers 0 to 255 with a name each.
        GeometryError: it lies on another grid.
    """
    label = _read(file)
    values = whole_values(label)
    array = onto_grid(label, grid).array.astype(np.uint8)
    _require_names(values, names)
    return array


def checked_file(
    file: Path, grid: Geometry | None, *, info: Mapping[str, Any], labels: Sequence[str], folder: Path
) -> Path:
    """Check a label's file, and return it, or another one where it must be stored differently.

    Args:
        file: as a client sent it.
        grid: the image's own; None where the image cannot be had now, and only the numbers are checked.
        info: the label's record, which may name the values.
        labels: names of the values from 1 where the record has none.
        folder: where another file is written: uint8 instead of floats, or the voxels in the order of the image's.

    Raises:
        VolumeError: it cannot be read, or holds something else than whole numbers 0 to 255 with a name each.
        GeometryError: it lies on another grid.
    """
    label = _read(file)
    values = whole_values(label)
    placed = label if grid is None else onto_grid(label, grid)
    _require_names(values, names_of(info, values, labels))
    if label.array.dtype.kind in "bui" and not placed.geometry.differences(label.geometry):
        return file
    return write_mask(folder / "label.nii.gz", placed.array.astype(np.uint8), placed.geometry)


def require_named(file: Path, info: Mapping[str, Any], *, labels: Sequence[str]) -> None:
    """Check that a record names every value of a stored label; raises VolumeError if it does not."""
    values = whole_values(_read(file))
    _require_names(values, names_of(info, values, labels))


def names_of(info: Mapping[str, Any], values: Iterable[int], labels: Sequence[str]) -> dict[str, int]:
    """Return the value of each name: as a label's record says it, as the model's answer in it does, else `labels`."""
    sent = true_label_info(info.get("label_info"), values)
    if sent:
        return {entry["name"]: entry["idx"] for entry in sent}
    answered = (info.get("params") or {}).get("label_names")
    return dict(answered) if answered else {name: value for value, name in enumerate(labels, start=1)}


def whole_values(label: Volume) -> list[int]:
    """Return the values of a label, sorted; raises VolumeError if one is no whole number from 0 to 255."""
    values = np.unique(label.array)
    if any("NaN" in warning for warning in label.warnings):
        raise VolumeError("The label holds voxels that are no number (NaN or infinite). Export it again.")
    broken = values[values != np.round(values)]
    if broken.size:
        raise VolumeError(f"The label holds fractions ({_listed(broken)}), such as probabilities. Give whole numbers.")
    beyond = values[(values < 0) | (values > MAX_VALUE)]
    if beyond.size:
        raise VolumeError(f"The label holds {_listed(beyond)}. Its values must be whole numbers from 0 to {MAX_VALUE}.")
    return [int(value) for value in values]


def _read(file: Path) -> Volume:
    with without_folders(file, "The label"):
        return read_volume(file)


def _require_names(values: Iterable[int], names: Mapping[str, int]) -> None:
    unnamed = sorted(set(values) - {0} - set(names.values()))
    if unnamed:
        raise VolumeError(f"The label's values {_listed(unnamed)} have no name. Give each value's name in label_info.")


def _listed(values: NDArray[np.generic] | list[int]) -> str:
    shown = [f"{value:.6g}" for value in values[:SHOWN]]
    return ", ".join([*shown, *(["..."] if len(values) > SHOWN else [])])
