"""What everything that speaks DICOM needs of a series, wherever its numbers come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset

NO_IMAGES = frozenset(("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC", "AU", "ECG", "OT"))
"""Modalities that annotate, or are no pictures; they are served, but never offered for annotation."""


class Series(Protocol):
    """One DICOM series."""

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""

    @property
    def image_id(self) -> str | None:
        """Under which the labelling app knows it; None where it is no scan to annotate."""

    @property
    def summary(self) -> Dataset:
        """Attributes of its patient, study and series."""

    @property
    def sop_uids(self) -> Sequence[str]:
        """Its instances, in order."""

    def read(self, sop_uid: str, *, pixels: bool = True) -> Dataset:
        """Read one instance, with file meta information; without `pixels`, all but the pixel data."""

    def scan_path(self) -> Path:
        """Where `read_volume` finds it on the grid that a viewer sees: a folder with nothing else, or a file."""


@dataclass(frozen=True, slots=True)
class Found:
    """An instance that was asked for."""

    series: Series
    sop_uid: str
