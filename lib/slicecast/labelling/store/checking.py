"""The one check of every label that comes in: on its image's grid, whole numbers 0 to 255, a name for every value."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import VolumeError
from slicecast.volume import Geometry, Volume, read_volume
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
    with without_folders(file, "The label"):
        label = read_volume(file)
    values = whole_values(label)
    array = onto_grid(label, grid).array.astype(np.uint8)
    unnamed = sorted(set(values) - {0} - set(names.values()))
    if unnamed:
        raise VolumeError(f"The label's values {_listed(unnamed)} have no name. Give each value's name.")
    return array


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


def _listed(values: NDArray[np.generic] | list[int]) -> str:
    shown = [f"{value:.6g}" for value in values[:SHOWN]]
    return ", ".join([*shown, *(["..."] if len(values) > SHOWN else [])])
