"""The active-learning page: what was simulated, under what circumstances, and what it says about the defaults."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicecast_lab.evaluation.page import circumstances_table
from slicecast_lab.evaluation.page import table as markdown_table
from slicecast_lab.simulation.tables import differs, tables_of

SECTIONS = {
    "slices": "Which slice next",
    "volumes": "Which volume next",
    "joint": "Both together, against the annotator's time",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One simulation.

    Args:
        title: of the set and the robot.
        report: as `experiments` returns it.
        said: its circumstances, from `evaluation.provenance`, with ``seconds``.
        picture: name of its plot, beside the page.
    """

    title: str
    report: Mapping[str, Any]
    said: Mapping[str, Any]
    picture: str

    @property
    def experiment(self) -> str:
        """Which experiment it is."""
        return str(self.report["experiment"])


def write_page(parts: Sequence[Part], absent: Sequence[str], target: Path) -> None:
    """Write the page; it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(page_text(parts, absent), encoding="utf-8")
    part.replace(target)


def page_text(parts: Sequence[Part], absent: Sequence[str] = ()) -> str:
    """Return the page as Markdown.

    Args:
        absent: titles of what was not simulated.
    """
    newest = max((part.said for part in parts), key=lambda said: str(said["date"]))
    blocks = [
        INTRODUCTION,
        circumstances_table(newest),
        *_warnings(parts, absent),
        "## What it says",
        *verdicts(parts),
    ]
    for experiment, heading in SECTIONS.items():
        own = [part for part in parts if part.experiment == experiment]
        if own:
            blocks += [f"## {heading}", PROTOCOLS[experiment]]
            blocks += [block for part in own for block in _section(part)]
    return "\n\n".join([*blocks, NOTES]) + "\n"


def verdicts(parts: Sequence[Part]) -> Iterator[str]:
    """Yield what each simulation says about the project's targets, nulls included."""
    lines = [line for part in parts for line in _VERDICTS[part.experiment](part)]
    yield "\n".join(f"* {line}" for line in lines)


def _section(part: Part) -> Iterator[str]:
    yield f"### {part.title}"
    yield f"![{part.title}]({part.picture})"
    for table in tables_of(part.report):
        yield f"**{table.title}**"
        yield table.markdown()
    if part.experiment == "slices":
        yield _confidence(part.report["summary"]["confidence"])
    if part.experiment == "volumes":
        yield _selected(part.report["summary"])
    settings = part.report["settings"]
    how = f", {settings['strokes']}" if part.experiment != "volumes" else ", every slice painted"
    yield f"Robot: {settings['robot']}{how}. Took {part.said['seconds'] / 60:.1f} minutes."


def _confidence(said: Mapping[str, Any]) -> str:
    """Say how well confidence fitted the truth, in volumes that the fit had not seen."""
    rows = [
        [name, *(f"{said[key][measure]:.3f}" for measure in ("spearman", "ece", "aurc"))]
        for key, name in (("before", "the model's own"), ("after", f"fitted ({said['method']}), volume left out"))
        if said[key] is not None
    ]
    if not rows:
        return "Too few slices to judge the model's confidence."
    verdict = "so it is used" if said["holds"] else "so `value` and `worst` fall back to `strided`"
    heading = ["confidence against true IoU of a slice", "Spearman", "ECE", "AURC"]
    text = (
        f"From {said['slices']} answered slices of {said['volumes']} volumes; the gate is a Spearman of 0.3, {verdict}."
    )
    return f"{markdown_table(heading, rows)}\n\n{text}"


def _selected(summary: Mapping[str, Any]) -> str:
    """List what the first campaign of each strategy labelled, in its order."""
    rows = [[name, ", ".join(own["selected"][0])] for name, own in summary["strategies"].items()]
    listed = markdown_table(["strategy", "labelled in the campaign of seed 0"], rows)
    return f"<details><summary>Selected volumes</summary>\n\n{listed}\n\n</details>"


def _warnings(parts: Sequence[Part], absent: Sequence[str]) -> Iterator[str]:
    if len({part.report["model"]["sha256"] for part in parts}) > 1:
        yield "**These sections come from different weights:** run `make simulate` again."
    if len({part.said["command"] for part in parts}) > 1:
        yield "**These sections come from different commands**, the one named is the newest."
    if absent:
        yield f"Not simulated here: {', '.join(absent)}."


def _of_slices(part: Part) -> Iterator[str]:
    summary = part.report["summary"]
    first = next(iter(summary["strategies"]))
    for other in ("strided", "worst"):
        against = summary["first_against"].get(other)
        if against is not None:
            mean = against["slices_to_goal"]
            verdict = "reached" if mean["high"] < 0 else "not reached"
            yield (
                f"{part.title}: slices to Dice {summary['goal']}, `{first}` minus `{other}`: {differs(mean, 2)}. "
                f"The target, fewer with an interval that excludes 0, is **{verdict}**."
            )
    proposals = {n: own["aubc"]["value"] for n, own in summary["strategies"].items() if not n.startswith("oracle")}
    best = max(proposals, key=lambda name: proposals[name])
    yield f"{part.title}: the largest area under Dice against slices has `{best}` ({proposals[best]:.3f})."


def _of_volumes(part: Part) -> Iterator[str]:
    summary = part.report["summary"]
    headroom, auto = summary["headroom"], summary["strategies"].get("auto")
    budgets, own = summary["budgets"], summary["strategies"][summary["reference"]]["dice"]
    first = int(budgets[0] == 0)
    said = [f"{own[n]['value']:.3f} from {budgets[n]}" for n in (first, len(budgets) - 1)]
    most = f"{summary['every_label']['value']:.3f} from all {summary['pool']}"
    yield (
        f"{part.title}: what labels are worth to this learner, `{summary['reference']}`: Dice {', '.join(said)}, "
        f"{most}."
    )

    if headroom is not None and headroom["low"] <= 0:
        yield f"{part.title}: no headroom. Even the oracle is not surely better than chance ({differs(headroom, 4)})."
    if auto is not None and auto["against_reference"] is not None:
        own = auto["against_reference"]
        verdict = "not inferior" if own["not_inferior"] else "not shown to be not inferior, so the default is the other"
        named = f"`auto` minus `{summary['reference']}`"
        yield f"{part.title}: {named}: {differs(own, 4)}; by the margin it is **{verdict}**."


def _of_joint(part: Part) -> Iterator[str]:
    said = part.report["summary"]["efforts"]["as given"]
    areas = {name: own["aubc"]["value"] for name, own in said["strategies"].items()}
    best = max(areas, key=lambda name: areas[name])
    own = said["strategies"][best]["against_reference"]
    compared = "the reference itself" if own is None else f"{differs(own, 4)} against {said['reference']}"
    yield f"{part.title}: the largest area over effort has `{best}`, {compared}."


_VERDICTS = {"slices": _of_slices, "volumes": _of_volumes, "joint": _of_joint}

INTRODUCTION = """# Which volume next, which slice next

A robot that knows the truth annotates through the product, request by request, and strategies are compared on
what its work achieves. The page, with its pictures, is written by `make simulate`; the command behind it is
[`slicecast simulate`](../cli.md#slicecast-simulate). Protocol, goal and margins were fixed before the first run;
nothing was tuned on test cases, and results that show nothing are here as well. Intervals are 95 % bootstrap
intervals."""

PROTOCOLS = {
    "slices": """The weights are frozen. The robot puts the object's largest slice right, the strategy names a
slice, the robot puts that right, and so on; each time the product answers from all that was said. `raw:` strategies
use the model's own confidence, the others what labels of *other* volumes taught about it (of the pool, or of the
other patients). A strategy that finds the volume good enough is followed by `strided`. A slice of which only its
presence was asked (`extent`) counts as annotated, and takes one click. `random` takes any slice that the answer
shows; `oracle_worst` knows the truth, so it is no proposal.""",
    "volumes": """The model that learns from labelled volumes is **not fine-tuned**. It is the product's automatic
prompt, training-free: of all labelled volumes the one that looks most like the test volume (by its embedding) is
put into memory, what it calls up is boxed, and the boxes are one request. More labels help only because the nearest
gets nearer; a network that is trained on them may prefer other volumes. The robot paints every slice of a label.
`oracle` takes the volume that helps the test volumes most, one after the other. Scores are taken of a random
sub-pool, from the nearest labelled volume.""",
    "joint": """A volume costs what the robot does to it: the first slice, then those that the slice strategy names,
until it finds them good enough or the budget is used up. What is submitted, faults included, is the label. The
robot's hand is the same in all campaigns; seeds differ in the volumes. Seconds: look at a slice 1, click 2, paint
80, and painting at half and at twice that.""",
}

NOTES = """## Reading the numbers

* Areas are by trapezoids, with the axis stretched to 0 to 1: a curve that stays at 0.6 has area 0.6.
* Differences are paired: same cases, same seeds. Intervals of campaigns draw seeds and test cases independently.
* A robot is more consistent than any person, also the noisy one: its outlines wander by one or two pixels, its clicks
  slip by about one, and 7 % of them have the wrong sign.
* Painting takes nearly all of the annotator's time, so to halve or double it stretches the axis of *Both
  together* and leaves its order alone.
* The bundled model is small and zero-shot on all real scans; with better weights other strategies may win."""
