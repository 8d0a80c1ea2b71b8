"""STOW-RS: DICOM SEG objects of the studies' images; each is stored once and never replaced."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import SegmentationStorage
from sqlalchemy.exc import DatabaseError

from slicecast.databases import is_disk_full
from slicecast.dicom.seg import read_seg, referenced_series
from slicecast.dicom.series import Series, is_uid
from slicecast.errors import Conflict, SlicecastError
from slicecast.files import appearing
from slicecast.volume import read_volume, write_mask
from slicecast.volume.dicom import DAMAGED, require_small_unpacked

logger = logging.getLogger(__name__)

NOT_SUPPORTED, CANNOT_UNDERSTAND, MISMATCH, DUPLICATE = 0x0122, 0xC000, 0xA900, 0x0111
NO_ROOM, FAILED = 0xA700, 0x0110  # Failure reasons of DICOM PS3.4
SaveLabel = Callable[[str, Path, dict[str, object]], None]  # Saves a final label: image id, file, record


@dataclass(slots=True)
class Outcome:
    """Stored and refused parts of a message."""

    stored: list[Dataset] = field(default_factory=list)
    refused: list[tuple[Dataset, int]] = field(default_factory=list)

    def answer(self, root: str) -> Dataset:
        """Build the answer of STOW-RS."""
        data = Dataset()
        if self.stored:
            data.RetrieveURL = f"{root}/studies/{self.stored[0].StudyInstanceUID}"
            data.ReferencedSOPSequence = Items([_reference(one, root=root) for one in self.stored])
        if self.refused:
            data.FailedSOPSequence = Items([_reference(one, reason=reason) for one, reason in self.refused])
        return data


@dataclass(frozen=True, slots=True)
class Store:
    """Stores segmentations."""

    folder: Path  # of their files
    find: Callable[[str], Series | None]  # returns the series of a UID, or None
    save_label: SaveLabel  # saves one as the image's final label

    def take(self, parts: Sequence[bytes], *, study: str = "") -> Outcome:
        """Store each part that can be stored; a refused one does not affect the others."""
        outcome = Outcome()
        for part in parts:
            data = _parse(part)
            reason = CANNOT_UNDERSTAND if data is None else self._keep(data, part, study)
            if reason is None and data is not None:
                outcome.stored.append(data)
            else:
                outcome.refused.append((data or Dataset(), reason or CANNOT_UNDERSTAND))
        return outcome

    def _keep(self, data: Dataset, content: bytes, study: str) -> int | None:
        """Store one object; return the failure reason, or None."""
        if data.SOPClassUID != SegmentationStorage:
            return NOT_SUPPORTED
        series = self.find(referenced_series(data))
        if series is None or series.image_id is None or (study and data.StudyInstanceUID != study):
            return MISMATCH
        file = self.folder / f"{data.SOPInstanceUID}.dcm"
        if file.exists():
            return None if file.read_bytes() == content else DUPLICATE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with appearing(file) as part:  # takes the room on the disk first, and appears with the label
                part.write_bytes(content)
                self._label(data, series)
        except (SlicecastError, OSError, DatabaseError) as error:
            logger.warning("A segmentation of %s was refused: %s", series.image_id, error)
            return _reason(error)
        return None

    def _label(self, data: Dataset, series: Series) -> None:
        geometry = read_volume(series.scan_path()).geometry
        mask, labels = read_seg(data, geometry)
        with tempfile.TemporaryDirectory() as folder:
            file = write_mask(Path(folder) / "label.nrrd", mask, geometry)
            info = [{"name": name, "idx": value} for name, value in labels.items()]
            record: dict[str, object] = {"label_info": info, "dicom_seg": str(data.SOPInstanceUID)}
            self.save_label(series.uid, file, record)
        logger.info("A segmentation of %s with %d voxels was stored", series.image_id, np.count_nonzero(mask))


def _reason(error: Exception) -> int:
    if is_disk_full(error):
        return NO_ROOM
    return FAILED if isinstance(error, OSError | DatabaseError | Conflict) else CANNOT_UNDERSTAND


def _parse(content: bytes) -> Dataset | None:
    try:
        require_small_unpacked(BytesIO(content))
        data = dcmread(BytesIO(content))
        uids = (data.SOPInstanceUID, data.SOPClassUID, data.StudyInstanceUID, data.SeriesInstanceUID)
    except DAMAGED:
        return None
    return data if all(is_uid(str(uid)) for uid in uids) else None


def _reference(data: Dataset, *, root: str = "", reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = data.get("SOPClassUID", "")
    item.ReferencedSOPInstanceUID = data.get("SOPInstanceUID", "")
    if reason is not None:
        item.FailureReason = reason
    else:
        place = f"{root}/studies/{data.StudyInstanceUID}/series/{data.SeriesInstanceUID}"
        item.RetrieveURL = f"{place}/instances/{data.SOPInstanceUID}"
    return item
