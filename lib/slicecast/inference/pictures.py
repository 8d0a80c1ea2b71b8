"""Slices of a scan as matplotlib draws them: pixels of their true shape, outlines of masks, which slices to show."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from slicecast.volume import Geometry, SliceAxis, SliceStack

COLOURS = ("#ff3b6b", "#36c5f0", "#ffd166", "#2ecc71", "#b388ff", "#ff9f43")
"""Of the objects 1, 2, 3, ..."""


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
