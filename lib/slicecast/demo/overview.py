"""A picture of annotated cases: slices with the outlines of truth and result."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from slicecast.demo.annotator import SampleCase, ObjectRecord, merge
from slicecast.inference.pictures import new_figure, outline, show_slice
from slicecast.volume import Reorientation, SliceStack, choose_axis, choose_window, normalise

COLUMNS = 4
TRUTH, RESULT = "#2ecc71", "#ff3b6b"


def draw_overview(done: Sequence[tuple[SampleCase, list[ObjectRecord]]], file: Path) -> Path:
    """Draw a row of slices for each case, through its structures from one end to the other; return `file`."""
    figure = new_figure(3 * COLUMNS, 3 * len(done) + 0.4)
    rows = figure.subplots(len(done), COLUMNS, squeeze=False)
    for axes, (case, records) in zip(rows, done, strict=True):
        _draw_case(axes, case, records)
    handles = [Line2D([], [], color=TRUTH, label="truth"), Line2D([], [], color=RESULT, label="result")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    return file


def _draw_case(axes: Sequence[Axes], case: SampleCase, records: list[ObjectRecord]) -> None:
    to_canonical = Reorientation.of(case.volume.geometry)
    axis = choose_axis(to_canonical.geometry)
    scan, truth, result = (
        SliceStack(to_canonical.to_canonical_array(array), axis)
        for array in (case.volume.array, case.truth, merge(case, records))
    )
    window = choose_window(case.volume)
    for plot, n in zip(axes, _slices_through(truth), strict=True):
        show_slice(plot, normalise(scan.slice(n), window), axis=axis, geometry=to_canonical.geometry)
        for stack, colour in ((truth, TRUTH), (result, RESULT)):
            outline(plot, stack.slice(n), colours=[colour], width=0.9)
        plot.set_title(f"\n{axis.name.lower()} slice {to_canonical.to_source_slice(axis, n)}", fontsize=8)
    scores = ", ".join(f"{record.name} {record.final_dice:.2f}" for record in records)
    heading = f"{case.id}: {scores}\n"  # stands in the line that the slices' titles leave free
    axes[0].text(0, 1.02, heading, transform=axes[0].transAxes, fontsize=9, va="bottom").set_in_layout(False)


def _slices_through(truth: SliceStack) -> list[int]:
    """Choose COLUMNS slices at equal distances inside the structures' extent."""
    shown = [n for n in range(truth.count) if truth.slice(n).any()] or list(range(truth.count))
    return [shown[round((column + 0.5) / COLUMNS * (len(shown) - 1))] for column in range(COLUMNS)]
