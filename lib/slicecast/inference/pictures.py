"""Pictures of results, drawn by matplotlib: a contact sheet of a whole result, and a montage of slices in a row as PNG.

Pixels have their true shape, and coronal and sagittal slices stand upright.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from slicecast.errors import GeometryError
from slicecast.inference.results import SegmentResult
from slicecast.inference.studies import Study
from slicecast.volume import Geometry, Reorientation, SliceAxis, SliceStack, Volume, choose_axis, normalise

COLOURS = ("#ff3b6b", "#36c5f0", "#ffd166", "#2ecc71", "#b388ff", "#ff9f43")
"""Of the objects 1, 2, 3, ..."""

COLUMNS, ROWS = 4, 3  # Of a contact sheet
COUNT, INCH = 8, 1.7  # Slices of a montage, and how wide each is drawn


def new_figure(width: float, height: float, *, background: str = "white") -> Figure:
    """Return an empty figure, in inches, that belongs to no window."""
    return Figure(figsize=(width, height), layout="constrained", facecolor=background)


def show_slice(plot: Axes, grey: NDArray[np.floating], *, axis: SliceAxis, geometry: Geometry) -> None:
    """Show a slice: y is up the body on coronal and sagittal ones.

    Args:
        grey: (H, W), 0 black to 1 white.
        axis: which way the volume is cut.
        geometry: of the canonical volume.
    """
    width, height = axis.pixel_spacing_mm(geometry)
    plot.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect=height / width)
    if axis is not SliceAxis.AXIAL:
        plot.invert_yaxis()
    plot.set_axis_off()


def outline(plot: Axes, labels: NDArray, *, colours: Sequence[str] = COLOURS, width: float = 1.0) -> None:
    """Outline each object of a slice of labels (H, W); after the last colour comes the first again."""
    for value in np.unique(labels[labels > 0]):
        inside = labels == value
        if not inside.all():
            plot.contour(inside, levels=[0.5], colors=colours[(int(value) - 1) % len(colours)], linewidths=width)


def spread(mask: SliceStack | None, *, count: int, total: int) -> list[int]:
    """Choose up to `count` slices at equal distances, from one end of a mask to the other; without one, of `total`."""
    used = [] if mask is None else [n for n in range(mask.count) if mask.slice(n).any()]
    low, high = (used[0], used[-1]) if used else (0, total - 1)
    return sorted(set(np.linspace(low, high, count).round().astype(int).tolist()))


def draw_result(volume: Volume, result: SegmentResult, file: Path) -> Path:
    """Draw slices from one end of the result to the other; the slice to annotate next is marked.

    Args:
        volume: the image, as stored.
        file: PNG, PDF or SVG, by its extension.
    """
    turn = Reorientation.of(result.geometry)
    axis = SliceAxis[result.axis.upper()]
    scan = SliceStack(turn.to_canonical_array(volume.array), axis)
    mask = SliceStack(turn.to_canonical_array(result.mask), axis)
    figure = new_figure(3 * COLUMNS, 3 * ROWS)
    shown = spread(mask, count=COLUMNS * ROWS, total=scan.count)
    for plot, n in zip(figure.subplots(ROWS, COLUMNS).flat, shown, strict=False):
        grey = scan.slice(n) if result.window is None else normalise(scan.slice(n), result.window)
        show_slice(plot, grey, axis=axis, geometry=turn.geometry)
        outline(plot, mask.slice(n))
        stored = turn.to_source_slice(axis, n)
        asked = result.next_slice is not None and stored == result.next_slice.slice
        plot.set_title(f"{result.axis} {stored}" + (", annotate next" if asked else ""), fontsize=8)
    for plot in figure.axes:
        plot.set_axis_off()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    return file


def draw_montage(study: Study, mask: Volume | None = None, *, count: int = COUNT) -> bytes:
    """Draw slices through the mask (or through the whole scan), numbered as stored; return a PNG.

    Args:
        mask: on the scan's stored grid; each value is an object.

    Raises:
        GeometryError: the mask lies on another grid.
    """
    turn = study.reorientation
    if mask is not None and mask.array.shape != turn.source.shape_kji:
        raise GeometryError(
            f"The mask has {mask.array.shape} voxels, its image {turn.source.shape_kji}. Save it again."
        )
    axis = choose_axis(study.volume.geometry)
    scan = SliceStack(study.volume.array, axis)
    labels = None if mask is None else SliceStack(turn.to_canonical_array(mask.array), axis)
    window = study.window("auto")
    numbers = spread(labels, count=count, total=scan.count)
    figure = new_figure(INCH * len(numbers), INCH * 1.16, background="black")
    shown = sorted(numbers, key=lambda n: turn.to_source_slice(axis, n))
    for plot, n in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        show_slice(plot, normalise(scan.slice(n), window), axis=axis, geometry=study.volume.geometry)
        if labels is not None:
            outline(plot, labels.slice(n), width=1.2)
        plot.set_title(str(turn.to_source_slice(axis, n)), fontsize=8, color="white", pad=2)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90)
    return png.getvalue()
