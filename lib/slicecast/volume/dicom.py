"""Read the one DICOM series of a folder, and say what is unusual about its slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from slicecast.errors import VolumeError
from slicecast.volume.dicom_headers import GREY, TELLS_APART, Header, is_dicom, read_header
from slicecast.volume.grid import DIRECTION_TOLERANCE
from slicecast.volume.headers import MAX_VOXELS, open_image, quiet_itk, reason, require_size

GAP_TOLERANCE = 0.02
"""Slice distances that differ from their median by more than this share are uneven."""
SAME_PLACE_MM = 1e-3
"""Slices closer than this lie at the same position."""
TILT_TOLERANCE_DEG = 0.5
"""A stack that leans by more than this is a tilted gantry."""


@dataclass(frozen=True, slots=True)
class DicomSeries:
    """An image with what its headers say; no patient data."""

    image: sitk.Image
    modality: str | None
    series_uid: str | None
    warnings: tuple[str, ...]


def read_series(folder: Path, *, max_voxels: int = MAX_VOXELS) -> DicomSeries:
    """Read the DICOM series in `folder` (not in its subfolders), slices sorted by position.

    Raises:
        VolumeError: there is no series, more than one, or it cannot be stacked to a volume of `max_voxels` or less.
    """
    headers = _headers_of_only_series(folder)
    if len(headers) == 1:
        return _read_one(headers[0], max_voxels)
    first = headers[0]
    _require_alike(headers, folder)
    require_size([first.columns, first.rows, len(headers)], folder, max_voxels=max_voxels)
    ordered, warnings = _stack(headers, folder)
    quiet_itk()
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(header.path) for header in ordered])
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(f"The DICOM series in {folder} cannot be stacked to a volume: {reason(error)}.") from error
    uneven = _uneven_gaps(ordered, image.GetSpacing()[2])
    return DicomSeries(image, first.modality, first.series_uid or None, (*uneven, *warnings))


def read_dicom_file(path: Path, *, max_voxels: int = MAX_VOXELS) -> DicomSeries:
    """Read one DICOM file: a multi-frame volume, or a single slice.

    Raises:
        VolumeError: it is no readable image of one number per voxel, or has more than `max_voxels`.
    """
    header = read_header(path)
    if header is None:
        raise VolumeError(f"{path} holds no image, such as a report or contours. Give the images themselves.")
    return _read_one(header, max_voxels)


def _read_one(header: Header, max_voxels: int) -> DicomSeries:
    """Read a file of one slice, or of many, which are sorted by position as files would be."""
    _require_grey(header)
    require_size([header.columns, header.rows, header.frames], header.path, max_voxels=max_voxels)
    if header.rescaled:
        raise VolumeError(f"The frames of {header.path} have scales of their own. Save them as one file per slice.")
    order, warnings = _order(header.positions_mm, header.orientations, header.path)
    image = _pixels(header)
    if order is not None and header.frames > 1:
        image = _placed(image, header, order)
        warnings = (*_uneven(header.positions_mm[order], image.GetSpacing()[2], header.orientations[0]), *warnings)
    return DicomSeries(image, header.modality, header.series_uid or None, warnings if header.frames > 1 else ())


def _pixels(header: Header) -> sitk.Image:
    try:
        return open_image(header.path, "GDCMImageIO").Execute()
    except RuntimeError as error:
        raise VolumeError(f"The pixels of {header.path} cannot be read: {reason(error)}.") from error


def _placed(image: sitk.Image, header: Header, order: np.ndarray) -> sitk.Image:
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


def _require_alike(headers: Sequence[Header], folder: Path) -> None:
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
    except _SamePlace as error:
        raise VolumeError(f"{error} {_remedy(headers)}") from None
    if order is None:
        return sorted(headers, key=lambda header: header.number), warnings
    return [headers[n] for n in order], warnings


class _SamePlace(VolumeError):
    """Several slices lie at one position."""


def _order(
    positions_mm: np.ndarray, orientations: np.ndarray, source: Path
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the order of slices along their normal, and what is unusual; None where they do not say where they lie."""
    if not (np.isfinite(positions_mm).all() and np.isfinite(orientations).all()):
        return None, (f"The slices in {source.name} do not say where they lie; their order and distance are a guess.",)
    if np.abs(orientations - orientations[0]).max() > DIRECTION_TOLERANCE:
        raise VolumeError(
            f"The slices of the series in {source} lie in different directions (scout images?). "
            "Keep only the slices of one direction."
        )
    offsets = positions_mm @ _axes(orientations[0])
    order = np.argsort(offsets[:, 2], kind="stable")
    if len(order) > 1 and np.diff(offsets[order, 2]).min() < SAME_PLACE_MM:
        raise _SamePlace(f"Several slices of the series in {source} lie at the same position (time points or echoes).")
    return order, tuple(filter(None, (_tilt(offsets[order]),)))


def _remedy(headers: Sequence[Header]) -> str:
    """Say by what the volumes of a series differ, and what to do."""
    for word in TELLS_APART:
        values = [header.tells_apart.get(word, "") for header in headers]
        groups = {
            value: [h for h, v in zip(headers, values, strict=True) if v == value] for value in sorted(set(values))
        }
        if len(groups) > 1 and all(_apart(members) for members in groups.values()):
            listed = ", ".join(f"{value or 'none'} ({len(m)} files)" for value, m in list(groups.items())[:6])
            return f"They are {len(groups)} volumes, told apart by {word}: {listed}. Keep the files of one of them."
    return "Keep the files of one of them, or remove files that are there twice."


def _apart(headers: Sequence[Header]) -> bool:
    positions = np.concatenate([header.positions_mm for header in headers])
    along = np.sort(positions @ _axes(headers[0].orientations[0])[:, 2])
    return len(along) > 1 and float(np.diff(along).min()) >= SAME_PLACE_MM


def _axes(orientation: np.ndarray) -> np.ndarray:
    """Return the directions of row, column and normal as columns, float64 (3, 3)."""
    row, column = orientation.reshape(2, 3)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _uneven_gaps(ordered: Sequence[Header], spacing_mm: float) -> tuple[str, ...]:
    positions = np.concatenate([header.positions_mm for header in ordered])
    known = np.isfinite(positions).all() and np.isfinite(ordered[0].orientations).all()
    return _uneven(positions, spacing_mm, ordered[0].orientations[0]) if known else ()


def _uneven(positions_mm: np.ndarray, spacing_mm: float, orientation: np.ndarray) -> tuple[str, ...]:
    gaps_mm = np.abs(np.diff(positions_mm @ _axes(orientation)[:, 2]))
    usual = float(np.median(gaps_mm))
    if np.abs(gaps_mm - usual).max() <= GAP_TOLERANCE * usual:
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
