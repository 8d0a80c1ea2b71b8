"""Which image a client has sent: one of the studies, recognised by its voxels, or else an upload.

The protocol sends pixels and spacing, no name. So the studies of the same size and spacing are compared with it, in
every order and direction of axes: 3D Slicer sends [k, j, i], programs on nibabel [i, j, k], napari what its reader made
of the file.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import InputError, SlicecastError
from slicecast.inference.studies import Studies, stamp_of
from slicecast.volume import Geometry, Volume, read_volume, write_volume
from slicecast.volume.headers import MAX_VOXELS
from slicecast.volume.nifti import nifti_grid
from slicecast.volume.reading import NIFTI_ENDINGS, open_itk

logger = logging.getLogger(__name__)

Three = tuple[int, int, int]

TOLERANCE = 1e-4
"""Of the range of a volume's values, by which two readings of one scan may differ: one scales in float32, one in 64."""
SPACING_SHARE = 0.01  # By which two readings of one spacing may differ
PROBE = 16  # Voxels along each axis that are compared before all are


@dataclass(frozen=True, slots=True)
class ArrayAxes:
    """How a client's array lies in the stored one."""

    shape_kji: Three  # of the stored array
    order: Three = (0, 1, 2)  # the stored axis of each axis of the client's array
    turned: tuple[bool, bool, bool] = (False, False, False)  # which of the client's axes count from the other end

    @property
    def shape(self) -> Three:
        """Shape of the client's array."""
        a, b, c = (self.shape_kji[axis] for axis in self.order)
        return a, b, c

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if turned else None) for turned in self.turned)

    def to_client(self, stored: NDArray) -> NDArray:
        """View a stored array [k, j, i] as the client's."""
        return stored.transpose(self.order)[self._steps]

    def to_stored(self, sent: NDArray) -> NDArray:
        """View a client's array as the stored [k, j, i]."""
        return sent[self._steps].transpose(np.argsort(self.order))

    def range_kji(self, bounds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return half-open bounds along the client's axes as half-open bounds along k, j, i."""
        found = [(0, 0)] * 3
        for axis, turned, size, (low, high) in zip(self.order, self.turned, self.shape, bounds, strict=True):
            found[axis] = (size - high, size - low) if turned else (low, high)
        return found


def all_axes(shape_kji: Three) -> Iterator[ArrayAxes]:
    """Yield every way in which an array can lie, the stored one first."""
    for order, turned in product(permutations(range(3)), product((False, True), repeat=3)):
        yield ArrayAxes(shape_kji, order, turned)  # type: ignore[arg-type]


def match(
    sent: NDArray, spacing_mm: Sequence[float], stored: NDArray, stored_spacing_kji: Sequence[float]
) -> ArrayAxes | None:
    """Return how a sent array lies in a stored volume [k, j, i]; None where they are not the same scan."""
    tolerance = TOLERANCE * (float(stored.max()) - float(stored.min()))
    for axes in all_axes(stored.shape):  # type: ignore[arg-type]
        spacing = [stored_spacing_kji[axis] for axis in axes.order]
        if axes.shape == sent.shape and np.allclose(spacing, spacing_mm, rtol=SPACING_SHARE, atol=0):
            turned = axes.to_client(stored)
            pairs = chain([(_probe(sent), _probe(turned))], zip(sent, turned, strict=True))
            if all(_close(first, second, tolerance) for first, second in pairs):
                return axes
    return None


def _probe(array: NDArray) -> NDArray:
    return array[tuple(slice(None, None, max(1, size // PROBE)) for size in array.shape)]


def _close(first: NDArray, second: NDArray, tolerance: float) -> bool:
    return bool((np.abs(first.astype(np.float64) - second) <= tolerance).all())


UPLOAD = "upload-"  # How the image id of an upload begins


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image that a client has sent, as it lies here."""

    image_id: str  # of the studies, or `UPLOAD` and a hash of the content
    path: Path  # file or DICOM folder
    axes: ArrayAxes  # how the client's arrays lie in it

    @property
    def uploaded(self) -> bool:
        """Whether it is none of the studies."""
        return self.image_id.startswith(UPLOAD)


def find_image(
    sent: NDArray, spacing_mm: Sequence[float], images: Iterable[tuple[str, Path]], studies: Studies
) -> SentImage | None:
    """Return the first of the images that holds the voxels that were sent, however its axes lie; None for none."""
    for image_id, path in images:
        try:
            if _same_grid(path, sent.shape, spacing_mm):
                study = studies.open(path)
                stored = study.reorientation.to_source_array(study.volume.array)
                axes = match(sent, spacing_mm, stored, study.reorientation.source.spacing_mm[::-1])
                if axes is not None:
                    return SentImage(image_id, path, axes)
        except (SlicecastError, OSError) as error:
            logger.warning("%s is not compared with a sent image: %s", image_id, error)
    return None


def store_upload(sent: NDArray, spacing_mm: Sequence[float], folder: Path) -> SentImage:
    """Keep an image that is none of the studies as a file; the same content has the same name.

    Raises:
        VolumeError: it cannot be segmented, such as one without real numbers.
    """
    digest = hashlib.blake2b(np.ascontiguousarray(sent).data, digest_size=16)
    digest.update(f"{sent.shape}{sent.dtype}{tuple(spacing_mm)}".encode())
    image_id = UPLOAD + digest.hexdigest()
    grid = Geometry(size_ijk=sent.shape[::-1], spacing_mm=tuple(spacing_mm[::-1]))  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    path = write_volume(folder / f"{image_id}.nrrd", Volume(_writable(sent), grid), compress=False)
    return SentImage(image_id, path, ArrayAxes(grid.shape_kji))


def checked_spacing(given: object) -> list[float]:
    """Return the spacing of a client's `image_properties`, in the order of its array's axes; 1 mm where there is none.

    Raises:
        InputError: it is not three numbers other than 0.
    """
    try:  # napari's reader of NIfTI has negative spacings, where an axis points the other way
        found = np.abs(np.asarray([1.0, 1.0, 1.0] if given is None else given, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"The spacing {str(given)[:100]} is not three numbers. Send one for each axis.") from error
    if found.shape == (2,):  # napari, of a picture
        found = np.array([1.0, *found])
    if found.shape != (3,) or not np.isfinite(found).all() or (found <= 0).any():
        raise InputError(f"The spacing {str(given)[:100]} is not three numbers other than 0. Send one for each axis.")
    return found.tolist()


def _writable(sent: NDArray) -> NDArray:
    """Return numbers that every file format has."""
    narrow = {"bool": np.uint8, "float16": np.float32, "int64": np.float32, "uint64": np.float32}
    return np.ascontiguousarray(sent.astype(narrow.get(sent.dtype.name, sent.dtype), copy=False))


def _same_grid(path: Path, shape: tuple[int, ...], spacing_mm: Sequence[float]) -> bool:
    """Tell whether an image can be the one sent, by its header: the same sizes and spacings, in whatever order."""
    pairs = _pairs(stamp_of(path))
    wanted = sorted(zip(shape, spacing_mm, strict=True))
    return [size for size, _ in pairs] == [size for size, _ in wanted] and np.allclose(
        sorted(spacing for _, spacing in pairs), sorted(spacing_mm), rtol=SPACING_SHARE, atol=0
    )


@lru_cache(maxsize=4096)
def _pairs(stamp: tuple) -> list[tuple[int, float]]:
    """Return the (size, spacing) of each axis of an image, sorted; from the header where it is a file."""
    path = Path(stamp[0])
    is_nifti = path.name.lower().endswith(NIFTI_ENDINGS)
    if is_nifti or path.is_dir() or path.suffix == ".dcm":
        grid = nifti_grid(path) if is_nifti else read_volume(path).geometry
        size, spacing = grid.size_ijk, grid.spacing_mm
    else:
        reader = open_itk(path, max_voxels=MAX_VOXELS)
        size, spacing = reader.GetSize()[:3], reader.GetSpacing()[:3]
    return sorted(zip(map(int, size), map(float, spacing), strict=True))
