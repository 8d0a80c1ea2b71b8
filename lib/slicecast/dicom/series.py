"""What the rest of the code needs of a DICOM series, wherever its numbers come from, and its identifiers."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset

NO_IMAGES = frozenset(("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC", "AU", "ECG", "OT"))
"""Modalities of annotations and other objects without pictures: served, but never offered for annotation."""
_NAMESPACE = uuid.UUID("6f1e5a52-2c55-5c0c-9a3e-5d1c0b6f7a11")
"""Another one would change every UID that was ever derived."""
_UID = re.compile(r"[0-9][0-9.]{0,63}")


class Series(Protocol):
    """One DICOM series."""

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""

    @property
    def image_id(self) -> str | None:
        """Its id in the labelling app; None if it is not a scan to annotate."""

    @property
    def summary(self) -> Dataset:
        """Attributes of its patient, study and series."""

    @property
    def sop_uids(self) -> Sequence[str]:
        """Its instances, in order."""

    def read(self, sop_uid: str, *, pixels: bool = True) -> Dataset:
        """Read one instance, with file meta information; without `pixels`, all but the pixel data."""

    def scan_path(self) -> Path:
        """Return a path for `read_volume`, on the grid that a viewer sees: a file, or a folder of this series only."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a series."""

    series: Series
    sop_uid: str


def is_uid(text: str) -> bool:
    """Tell whether a text from outside is a UID, and hence safe as the name of a file."""
    return bool(_UID.fullmatch(text))


def stable_uid(*words: str) -> str:
    """Derive a UID (`2.25.` and a number) from words: the same in every run and on every machine."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(words)).int}"
