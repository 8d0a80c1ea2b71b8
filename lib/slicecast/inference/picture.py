"""A contact sheet of a result: slices with the outlines of what was found."""

from pathlib import Path

from slicecast.inference.pictures import new_figure, outline, show_slice, spread
from slicecast.inference.segment import SegmentResult
from slicecast.volume import Reorientation, SliceAxis, SliceStack, Volume, normalise

COLUMNS, ROWS = 4, 3


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
