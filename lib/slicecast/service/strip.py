"""A strip of slices with the outline of a mask, as PNG: what a result looks like at a glance."""

import io
from collections.abc import Collection

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from slicecast.errors import GeometryError
from slicecast.service.picture import COLOURS
from slicecast.service.studies import Study
from slicecast.volume import SliceAxis, SliceStack, Volume, choose_axis, normalise

COUNT = 8
INCH = 1.7


def draw_strip(study: Study, mask: Volume | None = None, *, count: int = COUNT, must: Collection[int] = ()) -> bytes:
    """Draw slices through the mask (or through the whole scan), numbered as stored; return a PNG.

    Args:
        mask: on the scan's stored grid; each value is an object.
        count: how many slices.
        must: slices, as stored, to show in any case.

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
    width, height = axis.pixel_spacing_mm(study.volume.geometry)
    asked = {turn.to_canonical_slice(axis, n) for n in must}
    numbers = _numbers(labels, scan.count, count) | {n for n in asked if 0 <= n < scan.count}
    figure = Figure(figsize=(INCH * len(numbers), INCH * 1.16), layout="constrained", facecolor="black")
    FigureCanvasAgg(figure)
    shown = sorted(numbers, key=lambda n: turn.to_source_slice(axis, n))
    for plot, n in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        plot.imshow(normalise(scan.slice(n), window), cmap="gray", vmin=0, vmax=1, aspect=height / width)
        if labels is not None:
            _outline(plot, labels.slice(n))
        plot.set_title(str(turn.to_source_slice(axis, n)), fontsize=8, color="white", pad=2)
        plot.set_axis_off()
        if axis is not SliceAxis.AXIAL:
            plot.invert_yaxis()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90)
    return png.getvalue()


def _outline(plot: Axes, labels: np.ndarray) -> None:
    for value in np.unique(labels[labels > 0]):
        colour = COLOURS[(int(value) - 1) % len(COLOURS)]
        plot.contour(labels == value, levels=[0.5], colors=colour, linewidths=1.2)


def _numbers(labels: SliceStack | None, total: int, count: int) -> set[int]:
    used = [] if labels is None else [n for n in range(total) if labels.slice(n).any()]
    low, high = (used[0], used[-1]) if used else (0, total - 1)
    return {int(n) for n in np.linspace(low, high, count).round()}
