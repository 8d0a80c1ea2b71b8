"""The one check of every label that comes in: on its image's grid, whole numbers 0 to 255, a name for every value."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import VolumeError
from slicecast.labelling.store.labels import true_label_info
from slicecast.volume import Geometry, Volume, read_volume, write_mask
from slicecast.volume.orientation import onto_grid
from slicecast.volume.reading import without_folders

MAX_VALUE = 255

SHOWN = 6
"""Values that a sentence lists."""


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


def names_of(info: Mapping[str, Any], values: Iterable[int], labels: Sequence[str]) -> dict[str, int]:
    """Return the value of each name: as a label's record says it, as the model's answer in it does, else `labels`."""
    sent = true_label_info(info.get("label_info"), values)
    if sent:
        return {entry["name"]: entry["idx"] for entry in sent}
    answered = (info.get("params") or {}).get("label_names")
    return dict(answered) if answered else {name: value for value, name in enumerate(labels, start=1)}


def whole_values(label: Volume) -> list[int]:
    """Return the values of a label, sorted.

    Raises:
        VolumeError: one is no whole number from 0 to 255.
    """
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
