"""Curves of a simulation, as SVG, PNG or PDF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.picture import FORMATS, new_figure, save_figure

Means = Sequence[Mapping[str, Any]]

MARKERS = "osD^vP*Xph"
DASHED = ("oracle", "random")
"""Lines of what is no proposal: the best there is, and chance."""


def draw_report(report: Mapping[str, Any], file: Path) -> Path:
    """Draw a report of any experiment; return `file`.

    Raises:
        ConfigError: the format cannot be drawn.
    """
    if file.suffix not in FORMATS:
        raise ConfigError(f"The picture {file} must end in one of {', '.join(FORMATS)}.")
    summary, experiment = report["summary"], report["experiment"]
    width = 15 if experiment == "joint" else 11
    figure = new_figure(width, 4.2)
    plots = figure.subplots(1, 3 if experiment == "joint" else 2)
    {"slices": _slices, "volumes": _volumes, "joint": _joint}[experiment](plots, summary)
    handles, labels = plots[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7), frameon=False, fontsize=9)
    return save_figure(figure, file)


def _slices(plots: Sequence[Axes], summary: Mapping[str, Any]) -> None:
    left, right = plots
    for place, (name, own) in enumerate(summary["strategies"].items()):
        _line(left, summary["slices"], own["dice"], name, place)
    left.axhline(summary["goal"], color="black", linewidth=0.8, linestyle=":")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(left, f"{summary['cases']} cases: mean and 95 % interval", "annotated slices", "Dice over the volume")
    first = next(iter(summary["strategies"]))
    against = {name: own["aubc"] for name, own in summary["first_against"].items()}
    _differences(right, against, f"area under the curve: {first} minus the other, paired")


def _volumes(plots: Sequence[Axes], summary: Mapping[str, Any]) -> None:
    left, right = plots
    first = int(summary["budgets"][0] == 0)  # without labels there is nothing to see but 0
    for place, (name, own) in enumerate(summary["strategies"].items()):
        _line(left, summary["budgets"][first:], own["dice"][first:], name, place)
    left.axhline(summary["every_label"]["value"], color="black", linewidth=0.8, linestyle=":")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"{summary['queries']} test volumes; dotted: all {summary['pool']} labelled"
    _dress(left, title, "labelled volumes", "Dice of test volumes")
    against = {
        name: own["against_reference"]
        for name, own in summary["strategies"].items()
        if own["against_reference"] is not None
    }
    _differences(right, against, f"area under the curve: minus {summary['reference']}, paired", -summary["margin"])


def _joint(plots: Sequence[Axes], summary: Mapping[str, Any]) -> None:
    for plot, (effort, curves) in zip(plots, summary["efforts"].items(), strict=True):
        minutes = [seconds / 60 for seconds in curves["seconds"]]
        for place, (name, own) in enumerate(curves["strategies"].items()):
            _line(plot, minutes, own["dice"], name, place, markers=False)
        _dress(plot, f"effort: {effort}", "minutes of the annotator", "Dice of test volumes")


def _line(plot: Axes, x: Sequence[float], means: Means, name: str, place: int, *, markers: bool = True) -> None:
    style = "--" if name.startswith(DASHED) else "-"
    marker = MARKERS[place % len(MARKERS)] if markers else None
    values = [mean["value"] for mean in means]
    (line,) = plot.plot(x, values, style, marker=marker, markersize=4, linewidth=1.4, label=name)
    low, high = [mean["low"] for mean in means], [mean["high"] for mean in means]
    plot.fill_between(x, low, high, color=line.get_color(), alpha=0.10, linewidth=0)


def _differences(plot: Axes, against: Mapping[str, Mapping[str, Any]], title: str, margin: float | None = None) -> None:
    """Draw paired differences with their intervals, one a row."""
    if not against:
        plot.set_axis_off()
        return
    for row, mean in enumerate(against.values()):
        plot.plot([mean["low"], mean["high"]], [row, row], color="#0b6e99", linewidth=2)
        plot.plot([mean["value"]], [row], "o", color="#0b6e99")
    plot.axvline(0.0, color="black", linewidth=0.8)
    if margin is not None:
        plot.axvline(margin, color="#b8860b", linewidth=0.8, linestyle=":")
    plot.xaxis.set_major_locator(MaxNLocator(6))
    plot.set_yticks(range(len(against)), list(against))
    plot.set_ylim(len(against) - 0.5, -0.5)
    _dress(plot, title, "difference", "")


def _dress(plot: Axes, title: str, x: str, y: str) -> None:
    plot.set_title(title, fontsize=9, loc="left")
    plot.set(xlabel=x, ylabel=y)
    plot.grid(alpha=0.3)
    plot.spines[["top", "right"]].set_visible(False)
