"""A client's region of interest as a box in the volume."""

from collections.abc import Iterable, Sequence

from slicecast.errors import PromptError
from slicecast.labelling.tasks.wire import IJK
from slicecast.prompts import Box


def roi_box(roi: Sequence[int], size_ijk: IJK, *, points: Iterable[IJK] = (), slice: int | None = None) -> Box:
    """Turn a ROI into a box clipped to the volume; on `slice`, a flat one.

    Slicer sends i0, i1, j0, j1, k0, k1 with pairs in either order; MONAI Label's own task reads two corners,
    i0, j0, i1, j1, k0, k1. Of the two readings the one that holds more of the points is meant, then the one that
    lies inside the volume, then Slicer's.

    Raises:
        PromptError: the box lies outside the volume, or four numbers came without a slice.
    """
    if len(roi) == 4 and slice is None:
        raise PromptError(f"'roi' is {list(roi)}; a volume needs six numbers, i0, i1, j0, j1, k0, k1.")
    a, b, c, d, k0, k1 = roi if slice is None else (*roi[:4], slice, slice)
    clicks = list(points)
    readings = [_sorted((a, c, k0), (b, d, k1)), _sorted((a, b, k0), (c, d, k1))]
    low, high = max(readings, key=lambda corners: _fit(corners[0], corners[1], clicks, size_ijk))
    if any(first >= size or last < 0 for first, last, size in zip(low, high, size_ijk, strict=True)):
        size = " x ".join(map(str, size_ijk))
        raise PromptError(f"The region of interest {list(roi)} lies outside the volume of {size} voxels. Move it.")
    return Box(_clipped(low, size_ijk), _clipped(high, size_ijk))


def _sorted(first: IJK, second: IJK) -> tuple[IJK, IJK]:
    pairs = list(zip(first, second, strict=True))
    return tuple(map(min, pairs)), tuple(map(max, pairs))  # type: ignore[return-value]


def _fit(low: IJK, high: IJK, points: Iterable[IJK], size_ijk: IJK) -> tuple[int, bool]:
    held = sum(low[0] <= i <= high[0] and low[1] <= j <= high[1] for i, j, _ in points)
    return held, min(low) >= 0 and all(last < size for last, size in zip(high, size_ijk, strict=True))


def _clipped(ijk: IJK, size_ijk: IJK) -> IJK:
    return tuple(min(max(n, 0), size - 1) for n, size in zip(ijk, size_ijk, strict=True))  # type: ignore[return-value]
