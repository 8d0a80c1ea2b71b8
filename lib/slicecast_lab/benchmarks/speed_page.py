"""The page docs/results/speed.md, from the figures of `slicecast_lab.benchmarks.speed`."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]

CAUSES = "## Causes"
"""Where the part begins that is written by hand."""

SCENES = ("ct", "mr", "large")
PARTS = (*SCENES, "objects", "tiny", "profiles", "server")
NAMES = {
    "first": "first click, in the middle of the object",
    "beginning": "first click, near the object's beginning",
    "correction": "correction on another slice (2nd click)",
    "late": "correction late in a session (6th click)",
    "whole": "whole volume, no stop rule, no zoom, first click",
}
LEAST = {"first": 4.0, "beginning": 4.0, "correction": 10.0, "whole": 1.0}
"""Times faster than the other, at least; a figure without one is for information."""

LEAST_TINY = {"correction": 5.0, "whole": 1.0}
MOST_OBJECTS, MOST_INFO_MS, MOST_GROWTH, MOST_MEMORY = 1.8, 100.0, 5.0, 0.5


def speed_page(parts: Mapping[str, Figures]) -> str:
    """Return the page's text; parts that were not measured are named.

    Args:
        parts: by name, each with its `provenance` and `figures`.
    """
    figures = {name: part["figures"] for name, part in parts.items()}
    scenes = [figures[name] for name in SCENES if name in figures]
    sections = [
        "# Speed",
        _introduction(parts),
        "## Against MONAI Label's own SAM 2 task, bundled model",
        table([row for scene in scenes for row in rows(scene, "theirs", LEAST)], HEAD),
        NOTE,
        "## Against SAM 2's video predictor driven directly",
        table([row for scene in scenes for row in rows(scene, "direct", LEAST)], HEAD),
    ]
    if "tiny" in figures:
        sections += ["## SAM 2.1 tiny at 1024 pixels, random weights", table(_tiny(figures["tiny"]), HEAD), NOTE_TINY]
    sections += ["## Objects, memory, server", table(_others(figures), ("figure", "measured", "target", "met"))]
    if "profiles" in figures:
        sections += ["## Profiles", PROFILE, *(_profile(*pair) for pair in figures["profiles"].items())]
    return "\n\n".join(sections) + "\n"


HEAD = ("scan", "figure", "ours, s", "other, s", "other / ours", "slices answered, ours / other", "target", "met")

NOTE = (
    "MONAI Label's task walks forwards only, from the first slice with a click: its answer has nothing before that. "
    "The slices that were answered are beside each figure. A click near the object's beginning is the case in which "
    "both answer nearly all of the object. A correction goes to the state that it keeps (no reset), its fastest way."
)
NOTE_TINY = (
    "The click is on the clip's first slice, so that all three answer every slice once. No stop rule anywhere. "
    "The other is named in brackets."
)
PROFILE = '`torch.profiler`, shares of the CPU time of all operations, of the contestant "ours".'


def ratios(turns: Sequence[Figures], figure: str, other: str) -> list[float]:
    """Return how many times longer the other took, turn by turn."""
    pairs = [turn[figure] for turn in turns if other in turn.get(figure, {})]
    return [pair[other]["seconds"] / pair["ours"]["seconds"] for pair in pairs]


def rows(scene: Figures, other: str, least: Mapping[str, float], suffix: str = "") -> list[Sequence[str]]:
    """Return a scan's rows against another contestant."""
    found: list[Sequence[str]] = []
    for figure, name in NAMES.items():
        values = ratios(scene["turns"], figure, other)
        if values:
            target = least.get(figure)
            words = ("", "") if target is None else (f"at least {target:g}", _met(values, target))
            costs = [_seconds(scene["turns"], figure, who) for who in ("ours", other)]
            told = (_spread(values), _walked(scene, figure, other), *words)
            found.append((scene["title"], name + suffix, *costs, *told))
    return found


def _met(values: Sequence[float], target: float) -> str:
    return _yes(statistics.median(values) >= target) if len(values) > 1 else "not settled: one reading"


def _tiny(scene: Figures) -> list[Sequence[str]]:
    theirs = rows(scene, "theirs", {"correction": LEAST_TINY["correction"]}, " (MONAI Label)")
    direct = rows(scene, "direct", {"whole": LEAST_TINY["whole"]}, " (sam2 directly)")
    return [*direct, *theirs]


def _walked(scene: Figures, figure: str, other: str) -> str:
    pair = scene["turns"][0][figure]
    ours = pair["ours"]
    return f"{ours['walked']} ({ours['recomputed']} computed, {ours['encoded']} encoded) / {pair[other]['walked']}"


def _seconds(turns: Sequence[Figures], figure: str, who: str) -> str:
    return f"{statistics.median(turn[figure][who]['seconds'] for turn in turns):.2f}"


def _spread(values: Sequence[float]) -> str:
    middle = f"**{statistics.median(values):.2f}**"
    return middle + (f" ({min(values):.2f} to {max(values):.2f}, n={len(values)})" if len(values) > 1 else " (n=1)")


def _others(figures: Mapping[str, Figures]) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    if "objects" in figures:
        found += _objects(figures["objects"])
    if "large" in figures:
        found.append(_memory(figures["large"]))
    if "server" in figures:
        found += _server(figures["server"])
    return found


def _objects(figures: Figures) -> list[Sequence[str]]:
    """Three objects at once over the mean of each alone."""
    found: list[Sequence[str]] = []
    for key, words in (("zoom", "each in its own window (default)"), ("no zoom", "whole slices, encoded once")):
        values = [
            turn[key]["three"]["seconds"] / statistics.fmean(alone["seconds"] for alone in turn[key]["each"])
            for turn in figures["turns"]
        ]
        name = f"{figures['objects']} objects against the mean of one, {figures['title']}, {words}"
        met = _yes(statistics.median(values) <= MOST_OBJECTS)
        found.append((name, _spread(values), f"at most {MOST_OBJECTS}", met))
    return found


def _memory(scene: Figures) -> Sequence[str]:
    turn = scene["turns"][0]
    ours, theirs = (turn["correction"][who]["peak_mib"] for who in ("ours", "theirs"))
    words = f"{ours} MiB against {theirs} MiB: **{ours / theirs:.2f}**"
    name = f"peak memory of the process, click and correction, {scene['title']}"
    return name, words, f"at most {MOST_MEMORY} of MONAI Label's", _yes(ours <= MOST_MEMORY * theirs)


def _server(figures: Figures) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    if "info" in figures:
        p95 = figures["info"]["busy_p95_ms"]
        words = f"{p95:.0f} ms (idle {figures['info']['idle_p95_ms']:.0f} ms)"
        found.append(("`/info/` p95 while a propagation runs", words, "under 100 ms", _yes(p95 < MOST_INFO_MS)))
    if "throughput" in figures:
        load = figures["throughput"]
        same = "masks equal the serial run's" if load["masks_equal"] else "MASKS DIFFER"
        words = f"throughput **{load['ratio']:.2f}** times that of 1; {same}"
        met = _yes(load["masks_equal"] and load["ratio"] >= 1)
        found.append(("8 annotators, 4 volumes", words, "equal masks, at least 1", met))
    if "memory" in figures:
        memory = figures["memory"]
        words = f"{memory['growth_percent']:+.1f} % ({memory['after_warm_up_mib']:.0f} MiB before)"
        met = _yes(abs(memory["growth_percent"]) <= MOST_GROWTH or memory["growth_percent"] < 0)
        found.append((f"memory after {memory['sessions']} sessions", words, "within 5 %", met))
    return found


def _introduction(parts: Mapping[str, Figures]) -> str:
    lines = ["Written by `make bench`; what is measured and how: `lib/slicecast_lab/benchmarks/speed.py`."]
    for name, part in parts.items():
        said = part["provenance"]
        lines.append(f"`{name}`: {said['date']}, commit {said['commit']}, load {said['machine']['load'][0]} before.")
    missing = [name for name in PARTS if name not in parts]
    if missing:
        lines.append(f"Not measured: {', '.join(missing)}.")
    if parts:
        machine = next(iter(parts.values()))["provenance"]["machine"]
        lines.append(
            f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, no GPU used; torch "
            f"{machine['torch']}. Threads of PyTorch, for every contestant: 1 with the bundled model, 2 with tiny."
        )
    return "\n".join(lines[:1]) + "\n\n" + "\n".join(f"* {line}" for line in lines[1:])


def _profile(title: str, operations: Sequence[tuple[str, float]]) -> str:
    return f"* {title}: " + ", ".join(f"`{name}` {100 * share:.0f} %" for name, share in operations)


def table(found: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Return rows as a Markdown table."""
    lines = [head, ["---"] * len(head), *found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"
