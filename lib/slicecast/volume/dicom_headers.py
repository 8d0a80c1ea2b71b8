"""What DICOM headers say about slices, read before anything else touches the file.

GDCM reserves as much memory as a file claims; so whether a file can hold what it claims is settled here.
"""

import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from slicecast.errors import VolumeError, VolumeTooLarge

DAMAGED = (
    *(InvalidDicomError, OSError, ValueError, LookupError, AttributeError, EOFError, NotImplementedError),
    *(TypeError, struct.error, zlib.error, ArithmeticError, RecursionError, AssertionError, BytesLengthException),
)
"""What pydicom raises for files that are no proper DICOM."""

GREY = ("MONOCHROME1", "MONOCHROME2")

MAX_UNPACKED_BYTES = 1 << 30
"""A deflated file that unpacks to more is not read."""
_DEFERRED_BYTES = 4096
"""Longer values are skipped: only their length is of interest."""
_UNDEFINED = 0xFFFFFFFF
_PIXELS = 0x7FE00010
_MAGIC_PLACE, _MAGIC = 128, b"DICM"
_MAX_DEPTH = 12
_META_GROUP = 0x0002
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """One file's slices; no patient data.

    Args:
        path: the file.
        series_uid: of its series, "" where it does not say.
        modality: such as CT, or None.
        description: of its series.
        columns: of each slice.
        rows: of each slice.
        samples: numbers for each pixel.
        photometric: how these are meant.
        number: InstanceNumber.
        positions_mm: float64 (N, 3), the first pixel of each of its N slices; NaN where it does not say.
        orientations: float64 (N, 6), directions of row and column; NaN where it does not say.
        spacings_mm: float64 (N, 2), from row to row and from column to column; NaN where it does not say.
        rescaled: the slices have not all the same scale.
        tells_apart: values that differ between time points, echoes and the like, by attribute.
    """

    path: Path
    series_uid: str
    modality: str | None
    description: str | None
    columns: int
    rows: int
    samples: int
    photometric: str
    number: int
    positions_mm: np.ndarray
    orientations: np.ndarray
    spacings_mm: np.ndarray
    rescaled: bool
    tells_apart: dict[str, str]

    @property
    def frames(self) -> int:
        """How many slices it holds."""
        return len(self.positions_mm)


TELLS_APART = ("TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "InversionTime", "DiffusionBValue",
               "TriggerTime", "AcquisitionNumber", "ImageType", "AcquisitionTime", "ContentTime")  # fmt: skip
"""By which the volumes of one series can differ; the first that fits is named."""


GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
          "PixelValueTransformationSequence")  # fmt: skip
"""Of an enhanced object: what it says about each of its frames."""


def is_dicom(path: Path) -> bool:
    """Tell whether a file says that it is DICOM."""
    with path.open("rb") as stream:
        stream.seek(_MAGIC_PLACE)
        return stream.read(len(_MAGIC)) == _MAGIC


def require_small_unpacked(stream: BinaryIO, *, most: int = MAX_UNPACKED_BYTES) -> None:
    """Check that a deflated file unpacks to `most` bytes or less; pydicom unpacks it at once, without a limit.

    Raises:
        VolumeTooLarge: it does.
    """
    stream.seek(_MAGIC_PLACE + len(_MAGIC))
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != _META_GROUP)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        unpacker, found = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := unpacker.unconsumed_tail or stream.read(_CHUNK_BYTES):
            found += len(unpacker.decompress(chunk, _CHUNK_BYTES))
            if found > most:
                raise VolumeTooLarge(f"A deflated DICOM file unpacks to more than {most} bytes. Save it without.")
            if unpacker.eof:
                break
    stream.seek(0)


def read_header(path: Path) -> Header | None:
    """Read what a file says about its slices; None where it holds none.

    Raises:
        VolumeError: the file is damaged, cut off, or claims more than it can hold.
    """
    try:
        with path.open("rb") as stream:
            require_small_unpacked(stream)
        data = dcmread(path, defer_size=_DEFERRED_BYTES)
        _require_whole(data, path)
        return _header(data, path) if data.get("Rows") and _PIXELS in data else None
    except VolumeError:
        raise
    except DAMAGED as error:
        raise VolumeError(
            f"{path} is not a readable DICOM image (damaged, without header, or no image at all). Export it again."
        ) from error


def _header(data: FileDataset, path: Path) -> Header:
    frames = int(data.get("NumberOfFrames") or 1)
    columns, rows, samples = int(data.Columns), int(data.Rows), int(data.get("SamplesPerPixel") or 1)
    bits = int(data.BitsAllocated)
    if min(frames, columns, rows, samples, bits) < 1:
        raise VolumeError(f"{path} holds no pixels, by its own header. Export it again.")
    if not data.file_meta.TransferSyntaxUID.is_compressed:
        _require_bytes(path, math.ceil(frames * columns * rows * samples * bits / 8))
    planes, turns, measures, scales = _places(data, frames)
    return Header(
        path=path,
        series_uid=_text(data, "SeriesInstanceUID"),
        modality=_text(data, "Modality") or None,
        description=_text(data, "SeriesDescription") or None,
        columns=columns,
        rows=rows,
        samples=samples,
        photometric=_text(data, "PhotometricInterpretation") or GREY[-1],
        number=int(data.get("InstanceNumber") or 0),
        positions_mm=_numbers(planes, "ImagePositionPatient", 3),
        orientations=_numbers(turns, "ImageOrientationPatient", 6),
        spacings_mm=_numbers(measures, "PixelSpacing", 2),
        rescaled=len({(_text(scale, "RescaleSlope"), _text(scale, "RescaleIntercept")) for scale in scales}) > 1,
        tells_apart={word: _text(data, word) for word in TELLS_APART if word in data},
    )


def _text(data: Dataset, word: str) -> str:
    value = data.get(word)
    return "" if value is None else str(value).strip()


def _places(data: Dataset, frames: int) -> list[list[Dataset]]:
    """Return where position, direction, pixel size and scale of each frame are said: in groups, if it has many."""
    if "PerFrameFunctionalGroupsSequence" not in data:
        return [[data if frames == 1 else Dataset()] * frames] * 4
    groups = list(data.PerFrameFunctionalGroupsSequence)
    if len(groups) != frames:
        raise ValueError(f"{len(groups)} groups for {frames} frames")
    shared = (data.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return [[_group(group, shared, word) for group in groups] for word in GROUPS]


def _group(group: Dataset, shared: Dataset, word: str) -> Dataset:
    for place in (group, shared):
        if place.get(word):
            return place[word][0]
    return Dataset()


def _numbers(data: Sequence[Dataset], word: str, count: int) -> np.ndarray:
    """Read `count` numbers of each; all of them NaN when there are not that many."""
    return np.array([_vector(one.get(word), count) for one in data], float).reshape(len(data), count)


def _vector(value: Any, count: int) -> list[float]:
    try:
        numbers = [float(number) for number in value or ()]
    except (TypeError, ValueError):
        numbers = []
    return numbers if len(numbers) == count else [math.nan] * count


def _require_whole(data: FileDataset, path: Path) -> None:
    """Check that no value claims to be longer than the file, and none goes beyond its end."""
    size = path.stat().st_size
    ends = [e.value_tell + e.length for e in data.values() if isinstance(e, RawDataElement) and e.length != _UNDEFINED]
    if max(ends, default=0) > size:
        raise VolumeError(f"{path} is cut off or damaged: a value goes beyond its end. Copy or export it again.")
    for length in _lengths(data, 0):
        if length > size:
            raise VolumeError(f"{path} is cut off or damaged: a value claims {length} bytes. Copy or export it again.")


def _lengths(data: Dataset, depth: int) -> Iterable[int]:
    if depth > _MAX_DEPTH:
        raise ValueError("sequences within sequences without end")
    for element in list(data.values()):
        tag = element.tag
        if isinstance(element, RawDataElement):
            undefined = element.length == _UNDEFINED
            yield 0 if undefined else element.length
        else:
            undefined = element.is_undefined_length
        if tag == _PIXELS:
            if undefined and isinstance(element.value, bytes):
                yield from _fragments(element.value)
        elif (element.VR or (dictionary_has_tag(tag) and dictionary_VR(tag))) == "SQ":
            for item in data[tag].value:
                yield from _lengths(item, depth + 1)


def _fragments(value: bytes) -> Iterable[int]:
    """Yield the length that each piece of compressed pixels claims."""
    place = 0
    while place + 8 <= len(value):
        length = int(struct.unpack_from("<I", value, place + 4)[0])
        yield length
        place += 8 + length


def _require_bytes(path: Path, least: int) -> None:
    size = path.stat().st_size
    if size < least:
        raise VolumeError(
            f"{path} is cut off: {size} bytes cannot hold pixels of {least} bytes. Copy or export it again."
        )
