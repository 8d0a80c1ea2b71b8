"""Pictures of an evaluation: best, median and worst case, and Dice against clicks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from slicecast_lab.evaluation.run import COLUMNS, CaseResult, Evaluation, Snapshot, SnapshotSlice

TRUTH, RESULT, PROMPTED = "#2ecc71", "#ff3b3b", "#ffd166"


def draw_cases(evaluation: Evaluation, file: Path, *, title: str = "") -> Path:
    """Draw slices of the best, the median and the worst case by Dice; return `file`."""
    chosen = best_median_worst(evaluation.results)
    figure = new_figure(2 * COLUMNS, 2.3 * len(chosen) + 0.5)
    rows = figure.subplots(len(chosen), COLUMNS, squeeze=False)
    for axes, (word, result) in zip(rows, chosen.items(), strict=True):
        if result.snapshot is not None:
            _draw_case(axes, result.snapshot)
        axes[0].set_title(f"{word}: {result.files.id}, Dice {result.final_dice:.3f}\n", fontsize=9, loc="left")
    prompt = f"prompted slice ({evaluation.settings.prompt_words})"
    lines = ((TRUTH, "truth"), (RESULT, "result"), (PROMPTED, prompt))
    handles = [Line2D([], [], color=colour, label=words) for colour, words in lines]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return save_figure(figure, file)


def best_median_worst(results: Sequence[CaseResult]) -> dict[str, CaseResult]:
    """Choose up to three cases by Dice; no case twice."""
    ranked = sorted(results, key=lambda result: (-result.final_dice, result.files.id))
    chosen = {"best": ranked[0]}
    if len(ranked) > 2:
        chosen["median"] = ranked[len(ranked) // 2]
    if len(ranked) > 1:
        chosen["worst"] = ranked[-1]
    return chosen


def draw_clicks(curves: Mapping[str, Sequence[dict[str, Any]]], file: Path) -> Path:
    """Draw mean Dice with its interval against the number of clicks, a line for each name; return `file`."""
    figure = new_figure(7, 4)
    plot = figure.subplots()
    for name, steps in curves.items():
        clicks = list(range(1, len(steps) + 1))
        (line,) = plot.plot(clicks, [s["value"] for s in steps], marker="o", label=f"{name} ({steps[0]['count']})")
        low, high = [s["low"] for s in steps], [s["high"] for s in steps]
        plot.fill_between(clicks, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    plot.set(xlabel="clicks on one slice", ylabel="Dice over the volume", ylim=(0, 1))
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return save_figure(figure, file)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, file: Path) -> Path:
    """Write a figure, whole or not at all; the same drawing gives the same bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".part-{file.name}")
    with rc_context({"svg.hashsalt": "slicecast"}):
        figure.savefig(part, dpi=90, metadata={"Date": None} if file.suffix == ".svg" else None)
    return part.replace(file)


def _draw_case(axes: Sequence[Axes], snapshot: Snapshot) -> None:
    for plot in axes:
        plot.set_axis_off()
    for plot, shown in zip(axes, snapshot.slices, strict=False):
        _draw_slice(plot, shown)
        plot.set_aspect(snapshot.aspect)
        if snapshot.y_up:
            plot.invert_yaxis()


def _draw_slice(plot: Axes, shown: SnapshotSlice) -> None:
    plot.imshow(shown.grey, cmap="gray", vmin=0, vmax=255)
    for shape, colour in ((shown.truth, TRUTH), (shown.result, RESULT)):
        if shape.any() and not shape.all():
            plot.contour(shape, levels=[0.5], colors=colour, linewidths=1.0)
    plot.set_title(f"slice {shown.slice}", fontsize=8, color="#b8860b" if shown.prompted else "black")
    if shown.prompted:
        plot.set_axis_on()
        plot.set(xticks=[], yticks=[])
        for edge in plot.spines.values():
            edge.set(color=PROMPTED, linewidth=2.5)
