"""DICOM series: what the rest of the code needs of one, its identifiers, and those made of a NIfTI, NRRD or MHA file.

A volume's series lies on exactly its grid, is generated on request, and is the same at every start. A viewer shows rows
and columns of a slice as they are stored, and sorts slices along their cross product. So a series is always an upright,
right-handed grid, whatever the order and direction of the file's axes: NIfTI's slices would lie upside down. Every
slice stays a slice, and every voxel where it is in the patient.
"""

import hashlib
import json
import logging
import re
import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from slicecast.config import build
from slicecast.errors import UnknownImage, VolumeError
from slicecast.files import write_atomically
from slicecast.volume import Geometry, Volume, choose_window, read_volume, write_volume
from slicecast.volume.grid import Reorientation, onto_grid
from slicecast.volume.reading import dataset_description, without_folders
from slicecast.volume.windowing import looks_like_ct

logger = logging.getLogger(__name__)

FACTS = "volumes.json"  # Cache of each file's grid and encoding, so that listing needs no voxels after a restart
_KEPT_SERIES = 2  # Number of volumes whose pixels stay in memory
_VERSION = 3
_STEPS = 65535  # From the lowest to the highest 16-bit value


def implementation_uid() -> UID:
    """Name this software in the files it writes."""
    return UID(stable_uid("slicecast", "implementation"))


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a volume's numbers and grid are written."""

    geometry: Geometry  # of the series; see `upright`
    turned: bool  # the file stores its axes in another order or direction
    modality: str  # CT or MR
    signed: bool  # the stored values are int16, else uint16
    slope: float  # numbers are stored value times slope plus intercept
    intercept: float
    low: float  # lower end of the display window
    high: float  # upper end of the display window


@dataclass(frozen=True, slots=True)
class SeriesNames:
    """Identifiers and texts of the series' header."""

    study_uid: str
    series_uid: str
    patient: str
    description: str


def encoding_of(volume: Volume, *, modality: str | None = None) -> Encoding:
    """Choose how to write a volume; without a modality, numbers that look like Hounsfield units are CT, others MR."""
    found = modality or volume.modality or ("CT" if looks_like_ct(volume) else "MR")
    signed, slope, intercept = _scale(volume.array)
    window = choose_window(Volume(volume.array, volume.geometry, {"modality": found}))
    geometry = upright(volume.geometry)
    turned = bool(volume.geometry.differences(geometry))
    kind = "CT" if found == "CT" else "MR"
    return Encoding(
        geometry if turned else volume.geometry, turned, kind, signed, slope, intercept, window.low, window.high
    )


def upright(stored: Geometry) -> Geometry:
    """Return the right-handed grid of the same slices, each as radiologists look at it.

    The left of the patient is on the right and the back below; on sagittal slices the back is on the right. The feet
    are always below.
    """
    turn = Reorientation.of(stored)
    canonical, across = turn.geometry, turn.permutation.index(2)
    order = [*(axis for axis in range(3) if axis != across), across]
    signs = np.array([1.0, -1.0 if order[1] == 2 else 1.0, 1.0])
    signs[2] = np.sign(np.linalg.det(np.eye(3)[:, order] * signs))
    corner = [canonical.size_ijk[axis] - 1 if sign < 0 else 0 for axis, sign in zip(order, signs, strict=True)]
    return Geometry(
        size_ijk=tuple(canonical.size_ijk[axis] for axis in order),  # type: ignore[arg-type]
        spacing_mm=tuple(canonical.spacing_mm[axis] for axis in order),  # type: ignore[arg-type]
        origin_mm=canonical.index_to_world([corner[order.index(axis)] for axis in range(3)]),  # type: ignore[arg-type]
        direction=canonical.direction_matrix[:, order] * signs,
    )


def series_volume(volume: Volume, encoding: Encoding) -> Volume:
    """Bring a volume onto its series' grid."""
    return onto_grid(volume, encoding.geometry) if encoding.turned else volume


def stored_values(volume: Volume, encoding: Encoding) -> np.ndarray:
    """Return the series' pixels, 16 bits, [k, j, i]; `slope` and `intercept` turn them back into the numbers."""
    array = series_volume(volume, encoding).array
    kind = np.dtype(np.int16 if encoding.signed else np.uint16)
    if (encoding.slope, encoding.intercept) == (1.0, 0.0):
        return array.astype(kind)
    scaled = (array.astype(np.float64) - encoding.intercept) / encoding.slope
    return np.clip(np.rint(scaled), np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def slice_header(encoding: Encoding, names: SeriesNames, number: int) -> Dataset:
    """Write everything about slice `number` (k of the series' grid, from 0) but its pixels."""
    data = common_header(encoding, names)
    data.SOPClassUID = CTImageStorage if encoding.modality == "CT" else MRImageStorage
    data.SOPInstanceUID = slice_uid(names.series_uid, number)
    data.InstanceNumber = number + 1
    data.file_meta = _file_meta(data)
    data.is_little_endian, data.is_implicit_VR = True, False
    _add_position(data, encoding.geometry, number)
    _add_pixel_attributes(data, encoding)
    return data


def slice_uid(series_uid: str, number: int) -> str:
    """Name slice `number` of a series."""
    return f"{series_uid}.{number + 1}"


def common_header(encoding: Encoding, names: SeriesNames) -> Dataset:
    """Write the attributes of patient, study and series; nothing is known of the patient but the scan's name."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName = data.PatientID = names.patient[:64]
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyInstanceUID, data.SeriesInstanceUID = names.study_uid, names.series_uid
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = data.StudyID = ""
    data.StudyDescription = data.SeriesDescription = names.description[:64]
    data.SeriesNumber, data.Modality = 1, encoding.modality
    data.FrameOfReferenceUID = stable_uid("frame of reference", names.study_uid)
    data.PositionReferenceIndicator = data.Laterality = data.PatientPosition = ""
    data.Manufacturer = "Slicecast"
    return data


def _scale(array: np.ndarray) -> tuple[bool, float, float]:
    """Choose sign, slope and intercept; whole numbers that fit 16 bits are stored as they are."""
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind in "iub" or bool(np.all(array == np.rint(array)))
    for kind in (np.int16, np.uint16):
        if whole and np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind is np.int16, 1.0, 0.0
    # rounded as the header will hold them, so that a reader computes with exactly these numbers
    return False, float(format_number_as_ds((high - low) / _STEPS or 1.0)), float(format_number_as_ds(low))


def _add_position(data: Dataset, geometry: Geometry, number: int) -> None:
    columns, rows, _ = geometry.size_ijk
    i_mm, j_mm, k_mm = geometry.spacing_mm
    data.Rows, data.Columns = rows, columns
    data.PixelSpacing = _numbers(j_mm, i_mm)
    data.SliceThickness = data.SpacingBetweenSlices = format_number_as_ds(float(k_mm))
    data.ImagePositionPatient = _numbers(*geometry.index_to_world((0, 0, number)))
    data.ImageOrientationPatient = _numbers(*geometry.direction_matrix.T[:2].ravel())


def _add_pixel_attributes(data: Dataset, encoding: Encoding) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(encoding.signed)
    data.WindowCenter = format_number_as_ds((encoding.low + encoding.high) / 2)
    data.WindowWidth = format_number_as_ds(encoding.high - encoding.low)
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if encoding.modality == "CT" else "OTHER"]
    data.AcquisitionNumber = None
    if encoding.modality == "CT" or (encoding.slope, encoding.intercept) != (1.0, 0.0):  # unusual in MR
        data.RescaleSlope, data.RescaleIntercept = _numbers(encoding.slope, encoding.intercept)
    if encoding.modality == "CT":
        data.KVP, data.RescaleType = None, "HU"
        del data.SpacingBetweenSlices  # not an attribute of CT
    else:
        data.RepetitionTime = None
        data.ScanningSequence, data.SequenceVariant = "RM", "NONE"
        data.ScanOptions = data.MRAcquisitionType = ""
        data.EchoTime = data.EchoTrainLength = None


def _file_meta(data: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, implementation_uid()
    return meta


def _numbers(*values: float) -> list[str]:
    return [format_number_as_ds(float(value)) for value in values]


@dataclass(frozen=True, eq=False)
class VolumeSeries:
    """A volume's file as a DICOM series."""

    path: Path
    image_id: str  # the image's name, which is the patient's name too
    digest: str  # of the file's content; another content has other UIDs
    encoding: Encoding  # how its numbers are written
    turned_copies: Path  # folder for copies on the series' grid, which `scan_path` writes

    @cached_property
    def names(self) -> SeriesNames:
        """Identifiers and texts of the series' header."""
        words = ("study", "series, upright" if self.encoding.turned else "series")
        study, series = (stable_uid(word, self.image_id, self.digest) for word in words)
        return SeriesNames(study, series, self.image_id, self.path.name)

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""
        return self.names.series_uid

    @cached_property
    def summary(self) -> Dataset:
        """Attributes of its patient, study and series."""
        return common_header(self.encoding, self.names)

    @property
    def sop_uids(self) -> Sequence[str]:
        """Its instances, in order of k."""
        return [slice_uid(self.uid, number) for number in range(self.encoding.geometry.size_ijk[2])]

    def read(self, sop_uid: str, *, pixels: bool = True) -> Dataset:
        """Make one instance; raises UnknownImage if there is none of that UID."""
        number = self._number(sop_uid)
        data = slice_header(self.encoding, self.names, number)
        if pixels:
            data.PixelData = _stored_pixels(self.path, self.digest, self.encoding)[number].tobytes()
            data["PixelData"].VR = "OW"
        return data

    def scan_path(self) -> Path:
        """Return the file itself, or a copy on the series' grid."""
        if not self.encoding.turned:
            return self.path
        copy = self.turned_copies / f"{self.uid}.nrrd"
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_volume(copy, series_volume(read_volume(self.path), self.encoding), compress=False)
        return copy

    def _number(self, sop_uid: str) -> int:
        series, _, number = sop_uid.rpartition(".")
        count = self.encoding.geometry.size_ijk[2]
        if series != self.uid or not number.isdecimal() or not 1 <= int(number) <= count:
            raise UnknownImage(f"The series {self.uid} has no instance {sop_uid[:64]}. Ask for its instances again.")
        return int(number) - 1


@dataclass(slots=True)
class VolumeFiles:
    """The volumes of a folder as series."""

    work: Path  # folder for derived files: cached facts, and copies
    _cached: dict[str, Any] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        try:
            saved = json.loads((self.work / FACTS).read_text(encoding="utf-8"))
            self._cached = saved["files"] if saved["version"] == _VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._cached = {}

    def series(self, files: dict[str, Path]) -> list[VolumeSeries]:
        """Return a series for each file, by the image's name; files that are no volume are left out, with a warning."""
        with self._guard:
            before = len(self._cached)
            facts = {image_id: (path, self._facts(path)) for image_id, path in sorted(files.items())}
            if len(self._cached) != before:
                self._save()
        return [
            VolumeSeries(
                path, image_id, fact["digest"], build(Encoding, fact["encoding"], where=FACTS), self.work / "turned"
            )
            for image_id, (path, fact) in facts.items()
            if "encoding" in fact
        ]

    def _facts(self, path: Path) -> dict[str, Any]:
        state = path.stat()
        described = _described_modality(path.parent)
        key = f"{path}|{state.st_mtime_ns}|{state.st_size}|{described}"
        if key not in self._cached:
            self._cached[key] = _facts_of(path, described)
        return self._cached[key]

    def _save(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        write_atomically(self.work / FACTS, json.dumps({"version": _VERSION, "files": self._cached}).encode())


def _facts_of(path: Path, modality: str | None) -> dict[str, Any]:
    try:
        encoding = encoding_of(read_volume(path), modality=modality)
    except VolumeError as error:
        logger.warning("%s is not served as DICOM: %s", path.name, error)
        return {"refused": str(error)}
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return {"digest": digest, "encoding": asdict(encoding)}


def _described_modality(folder: Path) -> str | None:
    """Return the modality that a `dataset.json` names for all files, if it does."""
    words = dataset_description(folder).get("modality")
    named = list(words.values()) if isinstance(words, dict) else [words]
    if len(named) != 1 or not isinstance(named[0], str):
        return None
    word = named[0].upper()
    return "CT" if word == "CT" else "MR" if word.startswith(("MR", "FLAIR", "T1", "T2")) else None


@lru_cache(maxsize=_KEPT_SERIES)
def _stored_pixels(path: Path, digest: str, encoding: Encoding) -> np.ndarray:
    with without_folders(path):
        return stored_values(read_volume(path), encoding)


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


def copied(source: Dataset, keywords: Iterable[str]) -> Dataset:
    """Return the attributes of a data set that are among the keywords."""
    data = Dataset()
    for keyword in keywords:
        if keyword in source:
            data[keyword] = source[keyword]
    return data


def is_uid(text: str) -> bool:
    """Tell whether a text from outside is a UID, and hence safe as the name of a file."""
    return bool(_UID.fullmatch(text))


def stable_uid(*words: str) -> str:
    """Derive a UID (`2.25.` and a number) from words: the same in every run and on every machine."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(words)).int}"
