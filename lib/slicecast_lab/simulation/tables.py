"""The tables of a simulation, for the terminal and for pages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as RichTable

from slicecast_lab.evaluation.page import table as markdown_table
from slicecast_lab.evaluation.report import show_mean

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A table in words.

    Args:
        notes: sentences below it: what it says, and what it does not.
    """

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Write it with its notes, without its title."""
        return "\n\n".join([markdown_table(self.heading, self.rows), *self.notes])

    def rich(self) -> RichTable:
        """Draw it for a terminal."""
        drawn = RichTable(title=self.title, caption="\n".join(self.notes), title_justify="left", caption_justify="left")
        for name in self.heading:
            drawn.add_column(name, no_wrap=name == self.heading[0])
        for row in self.rows:
            drawn.add_row(*row)
        return drawn


def tables_of(report: Report) -> list[Table]:
    """Return the tables of a report of any experiment."""
    makers: dict[str, Callable[[Report], list[Table]]] = {"slices": _slices, "volumes": _volumes, "joint": _joint}
    return makers[report["experiment"]](report)


def differs(mean: Mapping[str, Any], digits: int = 3) -> str:
    """Write a paired difference with what its interval says."""
    if mean["low"] == mean["high"] == 0:
        return "the same in every case"
    said = "higher" if mean["low"] > 0 else "lower" if mean["high"] < 0 else "undecided"
    return f"{mean['value']:+.{digits}f} ({mean['low']:+.{digits}f} to {mean['high']:+.{digits}f}), {said}"


def _slices(report: Report) -> list[Table]:
    summary = report["summary"]
    goal, names = summary["goal"], list(summary["strategies"])
    shown = [n for n in summary["slices"] if n in (1, 2, 3, 4, 6, 9, 13, 21) or n == summary["slices"][-1]]
    curves = Table(
        "Which slice next: quality",
        ["strategy", *(f"{n} slice{'s' * (n > 1)}" for n in shown), "area", f"slices to {goal}", "never", "minutes"],
        [_slice_row(name, own, shown) for name, own in summary["strategies"].items()],
        [
            f"{summary['cases']} cases of {summary['groups']} patients. Dice over the volume after so many annotated "
            f"slices; area under that curve (95 % interval). A case that never reaches {goal} counts with all "
            f"{summary['slices'][-1]} slices; *never* is their share. Minutes of the annotator until then."
        ],
    )
    against = Table(
        f"Which slice next: {names[0]} against the others",
        [
            "other",
            f"slices to {goal}",
            "area under Dice",
            "seconds",
            "area over effort, painting x 0.5",
            "painting x 2",
        ],
        [_slice_difference(name, own) for name, own in summary["first_against"].items()],
        [
            f"Paired differences, {names[0]} minus the other, case by case, with 95 % intervals. "
            "Fewer slices and seconds are better, a larger area is."
        ],
    )
    return [curves, against] if against.rows else [curves]


def _slice_row(name: str, own: Mapping[str, Any], shown: Sequence[int]) -> list[str]:
    minutes = own["effort"]["as given"]["seconds_to_goal"]["value"] / 60
    return [
        name,
        *(f"{own['dice'][n - 1]['value']:.3f}" for n in shown),
        show_mean(own["aubc"]),
        f"{own['slices_to_goal']['value']:.2f}",
        f"{own['never']:.0%}",
        f"{minutes:.1f}",
    ]


def _slice_difference(name: str, own: Mapping[str, Any]) -> list[str]:
    return [
        name,
        differs(own["slices_to_goal"], 2),
        differs(own["aubc"]),
        differs(own["seconds_to_goal"], 0),
        differs(own["effort_aubc, painting x 0.5"]),
        differs(own["effort_aubc, painting x 2"]),
    ]


def _volumes(report: Report) -> list[Table]:
    summary = report["summary"]
    shown = summary["budgets"]
    headroom = summary["headroom"]
    notes = [
        f"Mean Dice of {summary['queries']} test volumes after so many labelled volumes of a pool of "
        f"{summary['pool']}, {report['settings']['seeds']} campaigns each; intervals over seeds and cases. Area from "
        f"the first label on. Not inferior: the interval of the paired difference lies above -{summary['margin']}.",
        f"With all of the pool labelled: {show_mean(summary['every_label'])}; with the best label for each test "
        f"volume, which nobody can know: {show_mean(summary['best_label'])}.",
    ]
    if headroom is not None:
        none = "**no headroom on this set**, so strategies cannot be told apart"
        verdict = "there is headroom" if headroom["low"] > 0 else none
        notes.append(f"Oracle minus random: {differs(headroom)}; {verdict}.")
    rows = [_volume_row(name, own, summary) for name, own in summary["strategies"].items()]
    heading = [
        "strategy",
        *(f"{n}" for n in shown),
        "area",
        f"minus {summary['reference']}",
        "not inferior",
        "of the gap",
    ]
    return [Table("Which volume next", heading, rows, notes)]


def _volume_row(name: str, own: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    against, captured = own["against_reference"], own["captured"]
    return [
        name,
        *(f"{mean['value']:.3f}" for mean in own["dice"]),
        show_mean(own["aubc"]),
        "-" if against is None else differs(against, 4),
        "-" if against is None else "yes" if against["not_inferior"] else "no",
        "-" if captured is None else f"{captured:.0%}",
    ]


def _joint(report: Report) -> list[Table]:
    return [_joint_table(effort, said, report) for effort, said in report["summary"]["efforts"].items()]


def _joint_table(effort: str, said: Mapping[str, Any], report: Report) -> Table:
    seconds = said["seconds"]
    places = [len(seconds) // 4, len(seconds) // 2, len(seconds) - 1]
    rows = [
        [
            name,
            *(f"{own['dice'][n]['value']:.3f}" for n in places),
            show_mean(own["aubc"]),
            "-" if own["against_reference"] is None else differs(own["against_reference"], 4),
        ]
        for name, own in said["strategies"].items()
    ]
    heading = [
        "volumes + slices",
        *(f"{seconds[n] / 60:.0f} min" for n in places),
        "area",
        f"minus {said['reference']}",
    ]
    labels = "; ".join(_label(name, own) for name, own in report["summary"]["labels"].items())
    notes = [
        "Mean Dice of the test volumes after so much of the annotator's time. "
        f"What a label costs and is worth, by slice strategy: {labels}."
    ]
    return Table(f"Both together, effort {effort}", heading, rows, notes)


def _label(name: str, own: Mapping[str, Any]) -> str:
    done = own["actions"]
    return f"{name}: {done['masks']:.1f} slices painted, {done['clicks']:.1f} clicks, Dice {own['dice']:.3f}"
