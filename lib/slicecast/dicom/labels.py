"""A saved label as DICOM SEG: which names its values have, and the object's own identifiers."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

import slicecast
from slicecast.dicom.seg import SegNames, write_seg
from slicecast.dicom.series import Series
from slicecast.dicom.uids import stable_uid
from slicecast.volume import Geometry, read_volume
from slicecast.volume.orientation import onto_grid


def label_names(info: Mapping[str, Any], mask: np.ndarray) -> dict[str, int]:
    """Return each label's value by name: from `label_info`, else `label_names`; other values get a number."""
    entries = info.get("label_info")
    listed = entries if isinstance(entries, list) else []
    named = {str(e["name"]): int(e["idx"]) for e in listed if isinstance(e, Mapping) and "name" in e and "idx" in e}
    params = info.get("params") if isinstance(info.get("params"), Mapping) else {}
    named = named or {str(name): int(value) for name, value in (params or {}).get("label_names", {}).items()}
    named = {name: value for name, value in named.items() if 0 < value < 256}
    unnamed = set(np.unique(mask).tolist()) - {0} - set(named.values())
    return {**named, **{f"label {value}": value for value in sorted(unnamed)}} or {"object": 1}


def mask_of_label(label: Path, grid: Geometry) -> np.ndarray:
    """Read a label's file onto the grid of its images, uint8 [k, j, i].

    Raises:
        VolumeError: the label is no mask.
        GeometryError: it does not lie on that grid.
    """
    return onto_grid(read_volume(label), grid).array.astype(np.uint8)


def seg_of_label(label: Path, series: Series, info: Mapping[str, Any]) -> Dataset:
    """Make a DICOM SEG of a label's file; the same file and record give the same identifiers.

    Raises:
        VolumeError: the label is no mask.
        GeometryError: it does not lie on the series' grid.
    """
    grid: Geometry = read_volume(series.scan_path()).geometry
    mask = mask_of_label(label, grid)
    digest = hashlib.blake2b(label.read_bytes() + repr(sorted(info.items(), key=str)).encode(), digest_size=16)
    names = SegNames(
        labels=label_names(info, mask),
        version=slicecast.__version__,
        series_uid=stable_uid("segmentation", series.uid, digest.hexdigest()),
        creator=str(info["user"]) if info.get("user") else None,
    )
    return write_seg(mask, grid, series, names)
