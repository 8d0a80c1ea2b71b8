"""The results page: Markdown tables of several sets, each measured from a mask, a box and clicks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.mistakes import KINDS
from slicecast_lab.evaluation.report import PROTOCOL, show_mean

Report = Mapping[str, Any]
"""One evaluation, as `report.as_json` writes it."""

FEWEST_CASES = 3
"""With fewer a bootstrap interval says nothing at all."""

BASELINE_NAMES = {
    "copy": "copy to every slice",
    "copy-extent": "copy within true extent",
    "region": "region growing",
    "levelset": "level set",
    "walker": "random walker",
    "monailabel": "MONAI Label's SAM 2 task, same weights",
}

MONAI_LABEL = "monailabel"

SMALLEST_SHARE = 0.05
"""Of the wrong voxels; smaller ones are not listed."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One set's results.

    Args:
        title: of the set.
        targets: Dice to reach, by prompt.
        reports: by prompt: ``mask``, ``box``, ``clicks:5``.

    Raises:
        ConfigError: a report is of another protocol, whose numbers mean something else.
    """

    title: str
    targets: Mapping[str, float]
    reports: Mapping[str, Report]

    def __post_init__(self) -> None:
        for report in self.reports.values():
            if report["protocol"] != PROTOCOL:
                raise ConfigError(
                    f"A report of protocol {report['protocol']!r} does not belong in a table of {PROTOCOL}. "
                    "Measure again with --protocol fixed."
                )

    def summary(self, prompt: str) -> Mapping[str, Any]:
        """Return the summary of one prompt."""
        return self.reports[prompt]["summary"]

    @property
    def misses(self) -> list[str]:
        """The prompts whose mean Dice lies below the target."""
        return [prompt for prompt, goal in self.targets.items() if self.summary(prompt)["dice"]["value"] < goal]


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def dice_table(rows: Sequence[Row], *, clicks: str) -> str:
    """Write Dice with interval beside its target, for each prompt; `clicks` is the longest prompt of clicks."""
    heading = ["set", "cases", "one mask", "one box", "one click", clicks.replace("clicks:", "") + " clicks"]
    return table(
        heading,
        (
            [
                row.title,
                _count(row.summary("mask")),
                _against(row, "mask"),
                _against(row, "box"),
                show_mean(row.summary(clicks)["clicks"]["dice_by_click"][0]),
                _against(row, clicks),
            ]
            for row in rows
        ),
    )


def baseline_table(rows: Sequence[Row]) -> str:
    """Write the model from one mask beside what simple methods make of the same mask."""
    names = [name for name in rows[0].summary("mask")["baselines"] if name != MONAI_LABEL]
    heading = ["set", "model", *(BASELINE_NAMES[name] for name in names)]
    return table(
        heading,
        (
            [row.title, _value(row.summary("mask")["dice"])]
            + [_compared(row.summary("mask")["baselines"][name]) for name in names]
            for row in rows
        ),
    )


def shortfall_table(rows: Sequence[Row]) -> str:
    """Write each missed target with where its wrong voxels are, the largest share first."""
    lines = [(row, prompt, row.summary(prompt)) for row in rows for prompt in row.misses]
    return table(
        ["set", "prompt", "Dice", "target", "where the wrong voxels are"],
        (
            [row.title, prompt, _value(said["dice"]), f"{row.targets[prompt]:.2f}", _places(said["mistakes"])]
            for row, prompt, said in lines
        ),
    )


def monailabel_table(rows: Sequence[Row], prompts: Sequence[str]) -> str:
    """Write the model beside MONAI Label's own task with the same weights, slices and prompts."""
    heading = ["set", *(f"{who}, {prompt}" for prompt in prompts for who in ("Slicecast", "MONAI Label"))]
    return table(
        heading,
        (
            [
                row.title,
                *(
                    cell
                    for said in map(row.summary, prompts)
                    for cell in (_value(said["dice"]), _compared(said["baselines"][MONAI_LABEL]))
                ),
            ]
            for row in rows
        ),
    )


def surface_table(rows: Sequence[Row], prompts: Sequence[str]) -> str:
    """Write NSD and HD95 for each prompt."""
    heading = ["set", "unit", *(f"{measure}, {prompt}" for prompt in prompts for measure in ("NSD", "HD95"))]
    return table(heading, ([row.title, row.summary("mask")["unit"], *_surfaces(row, prompts)] for row in rows))


def click_table(rows: Sequence[Row], *, clicks: str) -> str:
    """Write Dice after each click and what is derived from it."""
    first = rows[0].summary(clicks)["clicks"]
    count = len(first["dice_by_click"])
    heading = [
        "set",
        *(f"after {n}" for n in range(1, count + 1)),
        "AUC (of 4)",
        f"clicks to {first['goal']}",
        "failures",
    ]
    return table(heading, ([row.title, *_clicks(row.summary(clicks)["clicks"])] for row in rows))


def correction_table(rows: Sequence[Row]) -> str:
    """Write Dice after each further painted slice, by who chose it; sets without corrections are left out."""
    lines = [(row.title, who, steps) for row in rows for who, steps in row.summary("mask")["corrections"].items()]
    count = max(len(steps) for _, _, steps in lines)
    heading = ["set", "slice chosen by", "one slice", *(f"+{n}" for n in range(1, count))]
    words = {"suggested": "the product", "worst": "truth: most wrong voxels", "even": "rule: middle of the widest gap"}
    return table(heading, ([title, words[who], *map(_value, steps)] for title, who, steps in lines))


def seconds_table(rows: Sequence[Row], *, clicks: str) -> str:
    """Write seconds of the first and the next interaction, and memory."""
    heading = ["set", "first click p50", "p95", "next click p50", "p95", "peak memory, MiB"]

    def cells(row: Row) -> list[str]:
        summary = row.summary(clicks)
        pairs = (summary["seconds_first"], summary["seconds_next"])
        seconds = [f"{pair[key]:.2f}" if pair else "-" for pair in pairs for key in ("p50", "p95")]
        return [row.title, *seconds, str(summary["peak_rss_mib"])]

    return table(heading, map(cells, rows))


def circumstances_table(said: Mapping[str, Any]) -> str:
    """Write under what circumstances the numbers came about."""
    machine, model = said["machine"], said["model"]
    cpu = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, on {machine['device']}"
    return table(
        ["what", "value"],
        [
            ["model", f"{model['name']}, input {model['image_size']} px"],
            ["SHA-256 of its weights", f"`{model['sha256']}`"],
            ["commit", f"`{said['commit']}`" + (" (and changes)" if str(said["commit"]).endswith("+") else "")],
            ["command", f"`{said['command']}`"],
            ["date", said["date"]],
            ["machine", f"{cpu}; load average {machine['load'][0]} at the end"],
            ["software", f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}"],
        ],
    )


def _against(row: Row, prompt: str) -> str:
    goal, mean = row.targets[prompt], row.summary(prompt)["dice"]
    return f"{show_mean(mean)}; target {goal:.2f}{' **missed**' if mean['value'] < goal else ''}"


def _compared(baseline: Mapping[str, Any]) -> str:
    """Write a baseline's Dice and by how much the model is better, case by case."""
    difference = baseline["difference"]
    if difference["count"] < FEWEST_CASES:
        return f"{_value(baseline['dice'])}; too few cases to say ({difference['value']:+.3f})"
    low, high = difference["low"], difference["high"]
    verdict = "model better" if low > 0 else "model worse" if high < 0 else "undecided"
    return f"{_value(baseline['dice'])}; {verdict} ({low:+.3f} to {high:+.3f})"


def _surfaces(row: Row, prompts: Sequence[str]) -> list[str]:
    cells = []
    for prompt in prompts:
        summary = row.summary(prompt)
        undefined = summary["hd95_undefined"]
        hd95 = show_mean(summary["hd95"], 1) + (f", {undefined} undefined" if undefined else "")
        cells += [show_mean(summary["nsd"]), hd95]
    return cells


def _clicks(clicks: Mapping[str, Any]) -> list[str]:
    steps = [_value(step) for step in clicks["dice_by_click"]]
    return [*steps, show_mean(clicks["auc"], 2), f"{clicks['noc']:.2f}", f"{clicks['failure_rate']:.0%}"]


def _count(summary: Mapping[str, Any]) -> str:
    cases, groups = summary["cases"], summary["groups"]
    return f"{cases}" if cases == groups else f"{cases} (of {groups} patients)"


def _places(mistakes: Mapping[str, float]) -> str:
    ranked = sorted(mistakes.items(), key=lambda item: -item[1])
    return "; ".join(f"{share:.0%} {KINDS[kind]}" for kind, share in ranked if share >= SMALLEST_SHARE)


def _value(mean: Mapping[str, Any]) -> str:
    return f"{mean['value']:.3f}"
