"""Painted slices: the label file that a client may send beside its `params`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slicecast.errors import PromptError
from slicecast.labelling.store.images import is_upload
from slicecast.labelling.tasks.request import MAX_LABELS
from slicecast.prompts import MaskPrompt
from slicecast.volume import Volume, read_volume


def with_label_file(request: Mapping[str, Any]) -> dict[str, Any]:
    """Tell a received file from a label's name: MONAI Label's own route puts both under `label`."""
    wire = dict(request)
    if _is_file(wire.get("label")):
        wire["label_file"] = wire.pop("label")
    return wire


def uploaded_mask(file: Any, name: str) -> Mapping[str, MaskPrompt]:
    """Read the mask of a request as one object, whatever its values; nothing when there is no file.

    Raises:
        VolumeError: the file is no volume.
        PromptError: nothing is painted.
    """
    volume = _upload(file)
    return {name: MaskPrompt(volume.array != 0, geometry=volume.geometry)} if volume else {}


def uploaded_masks(file: Any, names: Sequence[str]) -> Mapping[str, MaskPrompt]:
    """Read the masks of a request; value n is the n-th of `names`. Nothing when there is no file.

    Raises:
        VolumeError: the file is no volume.
        PromptError: nothing is painted, or with values beyond MAX_LABELS.
    """
    volume = _upload(file)
    if volume is None:
        return {}
    values = [int(value) for value in np.unique(volume.array) if value != 0]
    if not values or not 0 < values[0] <= values[-1] <= MAX_LABELS:
        raise PromptError(f"The mask holds the values {values[:5]}. Paint at least one slice, with 1 to {MAX_LABELS}.")
    return {_name(value, names): MaskPrompt(volume.array == value, geometry=volume.geometry) for value in values}


def _upload(file: Any) -> Volume | None:
    return read_volume(file) if _is_file(file) else None


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and is_upload(Path(value))


def _name(value: int, names: Sequence[str]) -> str:
    return names[value - 1] if value <= len(names) else f"label {value}"
