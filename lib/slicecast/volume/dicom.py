"""DICOM images: their headers, and the one series of a folder as a volume.

Headers are read with pydicom before GDCM touches a file: GDCM reserves as much memory as a file claims, and takes the
order and the distance of frames from how they are stored.
"""

import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.misc import is_dicom
from pydicom.uid import DeflatedExplicitVRLittleEndian

from slicecast.errors import VolumeError, VolumeTooLarge
from slicecast.volume.grid import DIRECTION_TOLERANCE, Volume
from slicecast.volume.headers import MAX_VOXELS, open_image, quiet_itk, reason, require_size

DAMAGED = (
    *(InvalidDicomError, OSError, ValueError, LookupError, AttributeError, EOFError, NotImplementedError),
    *(TypeError, struct.error, zlib.error, ArithmeticError, RecursionError, AssertionError, BytesLengthException),
)
"""What pydicom raises for files that are not valid DICOM."""

GREY = ("MONOCHROME1", "MONOCHROME2")

MAX_UNPACKED_BYTES = 1 << 30  # A deflated file that unpacks to more is not read
_DEFERRED_BYTES = 4096  # Longer values are skipped; only their length matters
_UNDEFINED = 0xFFFFFFFF
_PIXELS = 0x7FE00010
_PREAMBLE_BYTES = 132
_MAX_DEPTH = 12
_META_GROUP = 0x0002
_CHUNK_BYTES = 1 << 20
GAP_TOLERANCE = 0.02  # Slice distances that differ from their median by more than this share are uneven
SAME_POSITION_MM = 1e-3  # Slices closer than this lie at the same position
TILT_TOLERANCE_DEG = 0.5  # A stack whose slices are offset by more than this from their normal has a tilted gantry
DISTINGUISHING = ("TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "InversionTime", "DiffusionBValue",
               "TriggerTime", "AcquisitionNumber", "ImageType", "AcquisitionTime", "ContentTime")  # fmt: skip
"""Attributes by which the volumes of one series can differ; the error names the first that separates them."""
GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
          "PixelValueTransformationSequence")  # fmt: skip
"""Functional groups of an enhanced object that describe each frame."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header tells about its slices; no patient data."""

    path: Path
    series_uid: str  # "" if missing
    modality: str | None
    description: str | None
    columns: int
    rows: int
    samples: int  # values per pixel
    photometric: str
    number: int
    positions_mm: np.ndarray  # float64 (N, 3), centre of the first pixel of each slice, LPS; NaN if missing
    orientations: np.ndarray  # float64 (N, 6), direction cosines of rows and columns; NaN if missing
    spacings_mm: np.ndarray  # float64 (N, 2), between rows, between columns; NaN if missing
    rescaled: bool  # the slices have different rescale slopes or intercepts
    # values of `DISTINGUISHING` attributes, which differ between time points, echoes and so on
    distinguishing: dict[str, str]

    @property
    def frames(self) -> int:
        """Number of slices in the file."""
        return len(self.positions_mm)


def require_small_unpacked(stream: BinaryIO, *, most: int = MAX_UNPACKED_BYTES) -> None:
    """Check that a deflated file unpacks to `most` bytes or less; pydicom unpacks it at once, without a limit.

    Raises:
        VolumeTooLarge: it does.
    """
    stream.seek(_PREAMBLE_BYTES)
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
    """Read a file's header; None if the file holds no image.

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
    planes, turns, measures, scales = _frame_groups(data, frames)
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
        distinguishing={keyword: _text(data, keyword) for keyword in DISTINGUISHING if keyword in data},
    )


def _text(data: Dataset, keyword: str) -> str:
    value = data.get(keyword)
    return "" if value is None else str(value).strip()


def _frame_groups(data: Dataset, frames: int) -> list[list[Dataset]]:
    """Return, for each of GROUPS, the item that holds it for every frame: the data set itself if there is one frame."""
    if "PerFrameFunctionalGroupsSequence" not in data:
        return [[data if frames == 1 else Dataset()] * frames] * 4
    groups = list(data.PerFrameFunctionalGroupsSequence)
    if len(groups) != frames:
        raise ValueError(f"{len(groups)} groups for {frames} frames")
    shared = (data.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return [[_group(group, shared, keyword) for group in groups] for keyword in GROUPS]


def _group(group: Dataset, shared: Dataset, keyword: str) -> Dataset:
    for place in (group, shared):
        if place.get(keyword):
            return place[keyword][0]
    return Dataset()


def _numbers(data: Sequence[Dataset], keyword: str, count: int) -> np.ndarray:
    """Read `count` numbers of each; all of them NaN when there are not that many."""
    return np.array([_vector(one.get(keyword), count) for one in data], float).reshape(len(data), count)


def _vector(value: Any, count: int) -> list[float]:
    try:
        numbers = [float(number) for number in value or ()]
    except (TypeError, ValueError):
        numbers = []
    return numbers if len(numbers) == count else [math.nan] * count


def _require_whole(data: FileDataset, path: Path) -> None:
    """Check that no value is longer than the file or ends beyond it; GDCM would reserve what the length claims."""
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
    """Yield the length that each fragment of compressed pixels claims."""
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


def read_series(folder: Path, *, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read the DICOM series in `folder` (not in its subfolders), slices sorted by position.

    Raises:
        VolumeError: there is no series, more than one, or it cannot be stacked to a volume of `max_voxels` or less.
    """
    headers = _headers_of_only_series(folder)
    if len(headers) == 1:
        return _read_one(headers[0], max_voxels)
    ordered, warnings = _stackable(headers, folder, max_voxels)
    first = headers[0]
    quiet_itk()
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(header.path) for header in ordered])
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(f"The DICOM series in {folder} cannot be stacked to a volume: {reason(error)}.") from error
    positions = np.concatenate([header.positions_mm for header in ordered])
    uneven = _uneven(positions, image.GetSpacing()[2], first.orientations[0])
    return _volume(image, first, (*uneven, *warnings))


def check_series(folder: Path, *, max_voxels: int = MAX_VOXELS) -> None:
    """Check the headers of a series as `read_series` does.

    Raises:
        VolumeError: see `read_series`.
    """
    headers = _headers_of_only_series(folder)
    if len(headers) > 1:
        _stackable(headers, folder, max_voxels)


def _stackable(headers: Sequence[Header], folder: Path, max_voxels: int) -> tuple[list[Header], tuple[str, ...]]:
    _require_same_size(headers, folder)
    require_size([headers[0].columns, headers[0].rows, len(headers)], folder, max_voxels=max_voxels)
    return _stack(headers, folder)


def read_dicom_file(path: Path, *, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read one DICOM file: a multi-frame volume, or a single slice.

    Raises:
        VolumeError: it is no readable image of one number per voxel, or has more than `max_voxels`.
    """
    header = read_header(path)
    if header is None:
        raise VolumeError(f"{path} holds no image, such as a report or contours. Give the images themselves.")
    return _read_one(header, max_voxels)


def _read_one(header: Header, max_voxels: int) -> Volume:
    """Read a file of one slice, or of many, which are sorted by position as files would be."""
    _require_grey(header)
    require_size([header.columns, header.rows, header.frames], header.path, max_voxels=max_voxels)
    if header.rescaled:
        raise VolumeError(f"The frames of {header.path} have scales of their own. Save them as one file per slice.")
    order, warnings = _order(header.positions_mm, header.orientations, header.path)
    image = _pixels(header)
    if order is not None and header.frames > 1:
        image = _positioned(image, header, order)
        warnings = (*_uneven(header.positions_mm[order], image.GetSpacing()[2], header.orientations[0]), *warnings)
    return _volume(image, header, warnings if header.frames > 1 else ())


def _volume(image: sitk.Image, header: Header, warnings: tuple[str, ...]) -> Volume:
    return Volume.from_image(image, modality=header.modality, series_uid=header.series_uid or None, warnings=warnings)


def _pixels(header: Header) -> sitk.Image:
    try:
        return open_image(header.path, "GDCMImageIO").Execute()
    except RuntimeError as error:
        raise VolumeError(f"The pixels of {header.path} cannot be read: {reason(error)}.") from error


def _positioned(image: sitk.Image, header: Header, order: np.ndarray) -> sitk.Image:
    """Put frames where they lie in the patient; ITK would trust the order in which they are stored."""
    sorted_image = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(image)[order])
    positions = header.positions_mm[order]
    axes = _axes(header.orientations[0])
    distance = float((positions[-1] - positions[0]) @ axes[:, 2]) / (len(order) - 1)
    between_rows, between_columns = header.spacings_mm[0].tolist()
    known = np.isfinite(header.spacings_mm[0]).all()
    in_plane = (between_columns, between_rows) if known else image.GetSpacing()[:2]
    sorted_image.SetSpacing((*in_plane, distance))
    sorted_image.SetOrigin(positions[0].tolist())
    sorted_image.SetDirection(axes.ravel().tolist())
    return sorted_image


def _headers_of_only_series(folder: Path) -> list[Header]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and is_dicom(path)]
    headers = [header for header in map(read_header, files) if header is not None]
    if not headers:
        raise VolumeError(
            f"{folder} holds no DICOM image series. Give the folder in which the .dcm files themselves lie, "
            "or a NIfTI, NRRD or MHA file."
        )
    series: dict[str, list[Header]] = {}
    for header in headers:
        series.setdefault(header.series_uid, []).append(header)
    if len(series) > 1:
        listed = "; ".join(_describe(members) for members in list(series.values())[:8])
        raise VolumeError(
            f"{folder} holds {len(series)} DICOM series: {listed}{'; ...' if len(series) > 8 else ''}. "
            "Put the one to be used into a folder of its own."
        )
    return headers


def _describe(members: Sequence[Header]) -> str:
    words = [members[0].modality or "?", members[0].description or "without description"]
    return f"{' '.join(words)}, {len(members)} files ({members[0].series_uid})"


def _require_same_size(headers: Sequence[Header], folder: Path) -> None:
    for header in headers:
        _require_grey(header)
    sizes = sorted({(header.columns, header.rows, header.frames) for header in headers})
    if len(sizes) > 1 or sizes[0][2] > 1:
        listed = ", ".join(" x ".join(map(str, size)) for size in sizes[:4])
        raise VolumeError(
            f"The images of the series in {folder} cannot be stacked to a volume: they have {listed} pixels and "
            "frames. Keep those that belong together."
        )


def _require_grey(header: Header) -> None:
    if header.samples != 1:
        raise VolumeError(
            f"{header.path} holds {header.samples} numbers per voxel ({header.photometric}), such as colour. "
            "Give a scan of one number per voxel."
        )
    if header.photometric not in GREY:
        raise VolumeError(f"{header.path} is in colour ({header.photometric[:16]}). Give a scan in grey values.")


def _stack(headers: Sequence[Header], folder: Path) -> tuple[list[Header], tuple[str, ...]]:
    """Sort slices by position, or by number where they have none."""
    positions = np.concatenate([header.positions_mm for header in headers])
    orientations = np.concatenate([header.orientations for header in headers])
    try:
        order, warnings = _order(positions, orientations, folder)
    except _SamePosition as error:
        raise VolumeError(f"{error} {_how_to_separate(headers)}") from None
    if order is None:
        return sorted(headers, key=lambda header: header.number), warnings
    return [headers[n] for n in order], warnings


class _SamePosition(VolumeError):
    """Several slices lie at the same position."""


def _order(
    positions_mm: np.ndarray, orientations: np.ndarray, source: Path
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the order of slices along their normal (None if they lack positions or orientations), and warnings."""
    if not (np.isfinite(positions_mm).all() and np.isfinite(orientations).all()):
        return None, (f"The slices in {source.name} do not say where they lie; their order and distance are a guess.",)
    if np.abs(orientations - orientations[0]).max() > DIRECTION_TOLERANCE:
        raise VolumeError(
            f"The slices of the series in {source} lie in different directions (scout images?). "
            "Keep only the slices of one direction."
        )
    offsets = positions_mm @ _axes(orientations[0])
    order = np.argsort(offsets[:, 2], kind="stable")
    if len(order) > 1 and np.diff(offsets[order, 2]).min() < SAME_POSITION_MM:
        raise _SamePosition(
            f"Several slices of the series in {source} lie at the same position (time points or echoes)."
        )
    return order, tuple(filter(None, (_tilt(offsets[order]),)))


def _how_to_separate(headers: Sequence[Header]) -> str:
    """Return a sentence: which attribute tells the volumes of the series apart, and what to do."""
    for keyword in DISTINGUISHING:
        values = [header.distinguishing.get(keyword, "") for header in headers]
        groups = {
            value: [h for h, v in zip(headers, values, strict=True) if v == value] for value in sorted(set(values))
        }
        if len(groups) > 1 and all(_at_distinct_positions(members) for members in groups.values()):
            listed = ", ".join(f"{value or 'none'} ({len(m)} files)" for value, m in list(groups.items())[:6])
            return f"They are {len(groups)} volumes, told apart by {keyword}: {listed}. Keep the files of one of them."
    return "Keep the files of one of them, or remove files that are there twice."


def _at_distinct_positions(headers: Sequence[Header]) -> bool:
    positions = np.concatenate([header.positions_mm for header in headers])
    along = np.sort(positions @ _axes(headers[0].orientations[0])[:, 2])
    return len(along) > 1 and float(np.diff(along).min()) >= SAME_POSITION_MM


def _axes(orientation: np.ndarray) -> np.ndarray:
    """Return the directions of row, column and normal as columns, float64 (3, 3)."""
    row, column = orientation.reshape(2, 3)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _uneven(positions_mm: np.ndarray, spacing_mm: float, orientation: np.ndarray) -> tuple[str, ...]:
    gaps_mm = np.abs(np.diff(positions_mm @ _axes(orientation)[:, 2]))
    usual = float(np.median(gaps_mm))
    if not np.abs(gaps_mm - usual).max() > GAP_TOLERANCE * usual:  # NaN where positions are missing
        return ()
    return (
        f"The slices are unevenly spaced ({gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm apart, or some are missing); "
        f"the volume is read as if they were {spacing_mm:.2f} mm apart, so lengths along the slices are not true.",
    )


def _tilt(offsets_mm: np.ndarray) -> str | None:
    run = offsets_mm[-1] - offsets_mm[0]
    degrees = float(np.degrees(np.arctan2(np.hypot(run[0], run[1]), abs(run[2]))))
    if degrees <= TILT_TOLERANCE_DEG:
        return None
    return (
        f"The gantry was tilted by {degrees:.1f} degrees; the volume is read as an upright stack, so positions "
        "away from the first slice are sheared."
    )
