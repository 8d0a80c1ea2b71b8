"""The tables of a simulation, for the terminal and for pages, and its curves as SVG, PNG or PDF."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.picture import new_figure, save_figure
from slicecast_lab.evaluation.report import show_mean
from slicecast_lab.evaluation.settings import FORMATS

Report = Mapping[str, Any]
Cells = dict[str, str]

SHOWN_SLICES = (1, 2, 3, 4, 6, 9, 13, 21)


@dataclass(frozen=True, slots=True, eq=False)
class ReportTable:
    """A table of texts."""

    title: str
    frame: pd.DataFrame
    notes: Sequence[str] = ()  # sentences below it: what it says, and what it does not

    def rich(self) -> Table:
        """Draw it for a terminal."""
        notes = "\n".join(self.notes)
        drawn = Table(title=self.title, caption=notes, title_justify="left", caption_justify="left")
        for place, name in enumerate(self.frame.columns):
            drawn.add_column(name, no_wrap=place == 0)
        for row in self.frame.itertuples(index=False):
            drawn.add_row(*row)
        return drawn


def tables_of(report: Report) -> list[ReportTable]:
    """Return the tables of a report of any experiment."""
    makers: dict[str, Callable[[Report], Iterator[ReportTable]]] = {
        "slices": _slices,
        "volumes": _volumes,
        "joint": _joint,
    }
    return list(makers[report["experiment"]](report))


def differs(mean: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Write a paired difference with what its interval says."""
    if mean is None:
        return "-"
    if mean["low"] == mean["high"] == 0:
        return "the same in every case"
    verdict = "higher" if mean["low"] > 0 else "lower" if mean["high"] < 0 else "undecided"
    return f"{mean['value']:+.{digits}f} ({mean['low']:+.{digits}f} to {mean['high']:+.{digits}f}), {verdict}"


def confidence_table(fit: Mapping[str, Any]) -> pd.DataFrame:
    """Return how well confidence fitted the truth; empty with too few slices to judge."""
    names = {"before": "the model's own", "after": f"fitted ({fit['method']}), volume left out"}
    measures = {"Spearman": "spearman", "ECE": "ece", "AURC": "aurc"}
    return pd.DataFrame(
        {
            "confidence against true IoU of a slice": name,
            **{title: f"{fit[key][measure]:.3f}" for title, measure in measures.items()},
        }
        for key, name in names.items()
        if fit[key] is not None
    )


def _slices(report: Report) -> Iterator[ReportTable]:
    summary = report["summary"]
    first, goal = next(iter(summary["strategies"])), summary["goal"]
    yield ReportTable(
        "Which slice next: quality",
        pd.DataFrame(_slice_cells(name, own, summary) for name, own in summary["strategies"].items()),
        [
            f"{summary['cases']} cases of {summary['groups']} patients. Dice over the volume after so many annotated "
            f"slices; area under that curve (95 % interval). A case that never reaches {goal} counts with all "
            f"{summary['slices'][-1]} slices; *never* is their share. Minutes of the annotator until then."
        ],
    )
    if summary["first_against"]:
        yield ReportTable(
            f"Which slice next: {first} against the others",
            pd.DataFrame(_difference_cells(name, own, goal) for name, own in summary["first_against"].items()),
            [
                f"Paired differences, {first} minus the other, case by case, with 95 % intervals. "
                "Fewer slices and seconds are better, a larger area is."
            ],
        )


def _slice_cells(name: str, own: Mapping[str, Any], summary: Mapping[str, Any]) -> Cells:
    shown = [n for n in summary["slices"] if n in SHOWN_SLICES or n == summary["slices"][-1]]
    minutes = own["effort"]["as given"]["seconds_to_goal"]["value"] / 60
    return {
        "strategy": name,
        **{f"{n} slice{'s' * (n > 1)}": _value(own["dice"][n - 1]) for n in shown},
        "area": show_mean(own["aubc"]),
        f"slices to {summary['goal']}": f"{own['slices_to_goal']['value']:.2f}",
        "never": f"{own['never']:.0%}",
        "minutes": f"{minutes:.1f}",
    }


def _difference_cells(name: str, own: Mapping[str, Any], goal: float) -> Cells:
    return {
        "other": name,
        f"slices to {goal}": differs(own["slices_to_goal"], 2),
        "area under Dice": differs(own["aubc"]),
        "seconds": differs(own["seconds_to_goal"], 0),
        "area over effort, painting x 0.5": differs(own["effort_aubc, painting x 0.5"]),
        "painting x 2": differs(own["effort_aubc, painting x 2"]),
    }


def _volumes(report: Report) -> Iterator[ReportTable]:
    summary = report["summary"]
    headroom = summary["headroom"]
    notes = [
        f"Mean Dice of {summary['queries']} test volumes after so many labelled volumes of a pool of "
        f"{summary['pool']}, {report['settings']['seeds']} campaigns each; intervals over seeds and cases. Area from "
        f"the first label on. Not inferior: the interval of the paired difference lies above -{summary['margin']}.",
        f"With all of the pool labelled: {show_mean(summary['every_label'])}; with the best label for each test "
        f"volume, which cannot be known: {show_mean(summary['best_label'])}.",
    ]
    if headroom is not None:
        none = "**no headroom on this set**, so strategies cannot be compared"
        notes.append(
            f"Oracle minus random: {differs(headroom)}; {'there is headroom' if headroom['low'] > 0 else none}."
        )
    cells = [_volume_cells(name, own, summary) for name, own in summary["strategies"].items()]
    yield ReportTable("Which volume next", pd.DataFrame(cells), notes)


def _volume_cells(name: str, own: Mapping[str, Any], summary: Mapping[str, Any]) -> Cells:
    against, captured = own["against_reference"], own["captured"]
    return {
        "strategy": name,
        **{f"{n}": _value(mean) for n, mean in zip(summary["budgets"], own["dice"], strict=True)},
        "area": show_mean(own["aubc"]),
        f"minus {summary['reference']}": differs(against, 4),
        "not inferior": "-" if against is None else "yes" if against["not_inferior"] else "no",
        "of the gap": "-" if captured is None else f"{captured:.0%}",
    }


def _joint(report: Report) -> Iterator[ReportTable]:
    labels = "; ".join(_label(name, own) for name, own in report["summary"]["labels"].items())
    note = (
        "Mean Dice of the test volumes after so much of the annotator's time. "
        f"What a label costs and is worth, by slice strategy: {labels}."
    )
    for effort, curves in report["summary"]["efforts"].items():
        cells = [_joint_cells(name, own, curves) for name, own in curves["strategies"].items()]
        yield ReportTable(f"Both together, effort {effort}", pd.DataFrame(cells), [note])


def _joint_cells(name: str, own: Mapping[str, Any], curves: Mapping[str, Any]) -> Cells:
    seconds = curves["seconds"]
    places = [len(seconds) // 4, len(seconds) // 2, len(seconds) - 1]
    return {
        "volumes + slices": name,
        **{f"{seconds[n] / 60:.0f} min": _value(own["dice"][n]) for n in places},
        "area": show_mean(own["aubc"]),
        f"minus {curves['reference']}": differs(own["against_reference"], 4),
    }


def _label(name: str, own: Mapping[str, Any]) -> str:
    done = own["actions"]
    return f"{name}: {done['masks']:.1f} slices painted, {done['clicks']:.1f} clicks, Dice {own['dice']:.3f}"


def _value(mean: Mapping[str, Any]) -> str:
    return f"{mean['value']:.3f}"


Means = Sequence[Mapping[str, Any]]

MARKERS = "osD^vP*Xph"
DASHED = ("oracle", "random")  # Lines of what is no proposal: the best there is, and chance


def draw_report(report: Mapping[str, Any], file: Path) -> Path:
    """Draw a report of any experiment; return `file`; raises ConfigError if the format cannot be drawn."""
    if file.suffix not in FORMATS:
        raise ConfigError(f"The picture {file} must end in one of {', '.join(FORMATS)}.")
    summary, experiment = report["summary"], report["experiment"]
    width = 15 if experiment == "joint" else 11
    figure = new_figure(width, 4.2)
    plots = figure.subplots(1, 3 if experiment == "joint" else 2)
    {"slices": _draw_slices, "volumes": _draw_volumes, "joint": _draw_joint}[experiment](plots, summary)
    handles, labels = plots[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7), frameon=False, fontsize=9)
    return save_figure(figure, file)


def _draw_slices(plots: Sequence[Axes], summary: Mapping[str, Any]) -> None:
    left, right = plots
    for place, (name, own) in enumerate(summary["strategies"].items()):
        _line(left, summary["slices"], own["dice"], name, place)
    left.axhline(summary["goal"], color="black", linewidth=0.8, linestyle=":")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(left, f"{summary['cases']} cases: mean and 95 % interval", "annotated slices", "Dice over the volume")
    first = next(iter(summary["strategies"]))
    against = {name: own["aubc"] for name, own in summary["first_against"].items()}
    _differences(right, against, f"area under the curve: {first} minus the other, paired")


def _draw_volumes(plots: Sequence[Axes], summary: Mapping[str, Any]) -> None:
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


def _draw_joint(plots: Sequence[Axes], summary: Mapping[str, Any]) -> None:
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
