"""A contact sheet of a result: slices with the outlines of what was found."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from slicecast.service.segment import SegmentResult
from slicecast.volume import Reorientation, SliceAxis, SliceStack, Volume, normalise

COLUMNS, ROWS = 4, 3
COLOURS = ("#ff3b6b", "#36c5f0", "#ffd166", "#2ecc71", "#b388ff", "#ff9f43")


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
    width, height = axis.pixel_spacing_mm(turn.geometry)
    figure = Figure(figsize=(3 * COLUMNS, 3 * ROWS), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for plot, n in zip(figure.subplots(ROWS, COLUMNS).flat, _numbers(mask), strict=False):
        grey = scan.slice(n) if result.window is None else normalise(scan.slice(n), result.window)
        plot.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect=height / width)
        for value in result.labels.values():
            if (mask.slice(n) == value).any():
                colour = COLOURS[(value - 1) % len(COLOURS)]
                plot.contour(mask.slice(n) == value, levels=[0.5], colors=colour, linewidths=1.0)
        stored = turn.to_source_slice(axis, n)
        asked = result.next_slice is not None and stored == result.next_slice.slice
        plot.set_title(f"{result.axis} {stored}" + (", annotate next" if asked else ""), fontsize=8)
        if axis is not SliceAxis.AXIAL:
            plot.invert_yaxis()
    for plot in figure.axes:
        plot.set_axis_off()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    return file


def _numbers(mask: SliceStack) -> list[int]:
    used = [n for n in range(mask.count) if mask.slice(n).any()]
    low, high = (used[0], used[-1]) if used else (0, mask.count - 1)
    return sorted(set(np.linspace(low, high, COLUMNS * ROWS).round().astype(int).tolist()))
