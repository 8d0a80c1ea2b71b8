"""Several engines on the same cases, in one table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from slicecast_lab.evaluation.report import bootstrap_mean, rounded, show_mean

SHOWN_CLICKS = (1, 3, 5)


def engine_cells(reports: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield a row for each report (`report.as_json`): Dice, and by how much it is above the first one's, paired."""
    for report in reports:
        clicks = report["summary"]["clicks"]
        steps = clicks["dice_by_click"] if clicks else [report["summary"]["dice"]]
        shown = [n for n in SHOWN_CLICKS if n <= len(steps)] if clicks else [1]
        names = {n: f"{n} click{'s' if n > 1 else ''}" if clicks else report["settings"]["prompt"] for n in shown}
        seconds = report["summary"]["seconds_first"]["p50"]
        yield {
            "engine": report["circumstances"]["model"]["name"],
            **{names[n]: show_mean(steps[n - 1]) for n in shown},
            **{f"{names[n]}, above the first": _above(report, reports[0], n) for n in (shown[0], shown[-1])},
            "seconds, first": f"{seconds:.2f}",
        }


def _above(report: Mapping[str, Any], first: Mapping[str, Any], step: int) -> str:
    """Write the mean difference with its interval; of the cases that both have."""
    if report is first:
        return ""
    others = {case["id"]: case for case in first["cases"]}
    pairs = [(case, others[case["id"]]) for case in report["cases"] if case["id"] in others]
    differences = [own["dice"][step - 1] - other["dice"][step - 1] for own, other in pairs]
    mean = rounded(bootstrap_mean(differences, [own["group"] for own, _ in pairs]))
    return f"{mean['value']:+.3f} ({mean['low']:+.3f} to {mean['high']:+.3f})"


def engines_table(reports: Sequence[Mapping[str, Any]]) -> Table:
    """Draw the rows for a terminal."""
    rows = list(engine_cells(reports))
    table = Table(*rows[0], title=f"{len(reports)} engines", caption="mean (95 % bootstrap interval)")
    for row in rows:
        table.add_row(*row.values())
    return table
