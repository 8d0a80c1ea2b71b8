"""Painted slices: the label file that a client may send beside its `params`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slicecast.errors import PromptError
from slicecast.monai.images import is_upload
from slicecast.monai.request import DEFAULT_NAME, MAX_LABELS
from slicecast.prompts import MaskPrompt
from slicecast.volume import read_volume


def uploaded_masks(label: Any, names: Sequence[str]) -> Mapping[str, MaskPrompt]:
    """Read the masks of a request, by object; none when it has no file (Slicer sends a label's name there).

    Value n is the n-th of `names`; without names everything painted is one object.

    Raises:
        VolumeError: the file is no volume.
        PromptError: nothing is painted, or there are too many values.
    """
    if not (isinstance(label, str) and is_upload(Path(label))):
        return {}
    volume = read_volume(label)
    values = [int(value) for value in np.unique(volume.array) if value != 0]
    if not values or not 0 < values[0] <= values[-1] <= MAX_LABELS:
        raise PromptError(f"The mask holds the values {values[:5]}. Paint at least one slice, with 1 to {MAX_LABELS}.")
    if not names:
        return {DEFAULT_NAME: MaskPrompt(volume.array != 0, geometry=volume.geometry)}
    return {_name(value, names): MaskPrompt(volume.array == value, geometry=volume.geometry) for value in values}


def _name(value: int, names: Sequence[str]) -> str:
    return names[value - 1] if value <= len(names) else f"label {value}"
