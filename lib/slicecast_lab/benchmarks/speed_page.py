"""The tables of docs/results/speed.md, from the figures of `slicecast_lab.benchmarks.speed`."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slicecast_lab.evaluation.page import bullets, markdown, source_line

Figures = Mapping[str, Any]
Cells = dict[str, str]

SCANS = ("ct", "mr", "large")
FIGURES = {
    "first": "first click, in the middle of the object",
    "beginning": "first click, near the object's beginning",
    "correction": "correction on another slice (2nd click)",
    "late": "correction late in a session (6th click)",
    "whole": "whole volume, no stop rule, no zoom, first click",
}
LEAST = {
    "ct": {"first": 2.0, "correction": 3.0, "whole": 2.0},
    "mr": {"first": 4.0, "correction": 6.0, "whole": 2.0},
    "large": {"first": 8.0, "correction": 15.0, "whole": 2.0},
}
"""Times faster than the other, at least, by scan; a figure without one is for information."""

TINY = (
    ("tiny", "direct", " (sam2 directly)", {"whole": 1.0}),
    ("tiny", "theirs", " (MONAI Label)", {"correction": 5.0}),
    ("tiny512", "theirs", ", ours at 512 pixels (MONAI Label at 1024)", {"correction": 15.0}),
)
"""The same for SAM 2.1 tiny: the part, the other, what to add to the figure's name, the least."""

WINDOWS = {"zoom": "each in its own window (default)", "no zoom": "whole slices, encoded once"}
MOST_OBJECTS, MOST_INFO_MS, MOST_GROWTH, MOST_MEMORY = 1.8, 100.0, 5.0, 0.3
MOST_CLICK_MS, MOST_CORRECTION_MS, LEAST_CROWD = 100.0, 60.0, 1.7


def speed_tables(parts: Mapping[str, Figures]) -> dict[str, str]:
    """Return the page's blocks by name; those of which nothing was measured are left out, so that the page keeps them.

    Args:
        parts: by name, each with its `provenance` and `figures`.
    """
    figures = {name: part["figures"] for name, part in parts.items()}
    scans = [(figures[name], LEAST[name]) for name in SCANS if name in figures]
    tiny = [(figures[part], who, least, name) for part, who, name, least in TINY if part in figures]
    rows: dict[str, Iterator[Cells]] = {
        "MONAI Label": (cells for scan, least in scans for cells in contest_cells(scan, "theirs", least)),
        "SAM 2": (cells for scan, least in scans for cells in contest_cells(scan, "direct", least)),
        "tiny": (cells for one in tiny for cells in contest_cells(*one)),
        "objects, memory, server": _other_cells(figures),
    }
    tables = {
        "parts": bullets(f"`{name}`: {source_line(part['provenance'])}" for name, part in parts.items()),
        **{name: markdown(cells) for name, cells in rows.items()},
        "profiles": bullets(_profile(*pair) for pair in figures.get("profiles", {}).items()),
    }
    return {name: text for name, text in tables.items() if text}


def ratios(turns: Sequence[Figures], figure: str, other: str) -> list[float]:
    """Return how many times longer the other took, turn by turn."""
    pairs = [turn[figure] for turn in turns if other in turn.get(figure, {})]
    return [pair[other]["seconds"] / pair["ours"]["seconds"] for pair in pairs]


def contest_cells(scan: Figures, other: str, least: Mapping[str, float], suffix: str = "") -> Iterator[Cells]:
    """Yield a scan's rows against another contestant."""
    turns = scan["turns"]
    for figure, name in FIGURES.items():
        values = ratios(turns, figure, other)
        if values:
            goal = least.get(figure)
            seconds = [statistics.median(turn[figure][who]["seconds"] for turn in turns) for who in ("ours", other)]
            ours, theirs = turns[0][figure]["ours"], turns[0][figure][other]
            yield {
                "scan": scan["title"],
                "figure": name + suffix,
                "ours, s": f"{seconds[0]:.2f}",
                "other, s": f"{seconds[1]:.2f}",
                "other / ours": _spread(values),
                "slices answered, ours / other": f"{ours['propagated']} ({ours['recomputed']} computed, "
                f"{ours['encoded']} encoded) / {theirs['propagated']}",
                "target": "" if goal is None else f"at least {goal:g}",
                "met": "" if goal is None else _reached(values, goal),
            }


def _reached(values: Sequence[float], goal: float) -> str:
    return _yes(statistics.median(values) >= goal) if len(values) > 1 else "not settled: one reading"


def _spread(values: Sequence[float]) -> str:
    middle = f"**{statistics.median(values):.2f}**"
    return middle + (f" ({min(values):.2f} to {max(values):.2f}, n={len(values)})" if len(values) > 1 else " (n=1)")


def _other_cells(figures: Mapping[str, Figures]) -> Iterator[Cells]:
    if "objects" in figures:
        yield from _objects(figures["objects"])
    if "large" in figures:
        yield _memory(figures["large"])
    server = figures.get("server", {})
    yield from _clicks(server.get("clicks", {}))
    for name, cells in (("info", _info), ("throughput", _throughput), ("memory", _growth)):
        if name in server:
            yield cells(server[name])


def _objects(figures: Figures) -> Iterator[Cells]:
    """Yield three objects at once over the mean of each alone."""
    for key, words in WINDOWS.items():
        values = [
            turn[key]["three"]["seconds"] / statistics.fmean(alone["seconds"] for alone in turn[key]["each"])
            for turn in figures["turns"]
        ]
        name = f"{figures['objects']} objects against the mean of one, {figures['title']}, {words}"
        yield _cells(name, _spread(values), f"at most {MOST_OBJECTS}", statistics.median(values) <= MOST_OBJECTS)


def _memory(scan: Figures) -> Cells:
    ours, theirs = (scan["turns"][0]["correction"][who]["peak_mib"] for who in ("ours", "theirs"))
    measured = f"{ours} MiB against {theirs} MiB: **{ours / theirs:.2f}**"
    name = f"peak memory of the process, click and correction, {scan['title']}"
    return _cells(name, measured, f"at most {MOST_MEMORY} of MONAI Label's", ours <= MOST_MEMORY * theirs)


def _clicks(clicks: Figures) -> Iterator[Cells]:
    for kind, most in (("first", MOST_CLICK_MS), ("correction", MOST_CORRECTION_MS)):
        if found := clicks.get(kind):
            measured = f"p95 **{found['p95_ms']:.0f} ms**, median {found['p50_ms']:.0f} ({found['clicks']} clicks)"
            name = f"{kind} click to that slice's mask at the client, warm server"
            yield _cells(name, measured, f"p95 at most {most:g} ms", found["p95_ms"] <= most)


def _info(info: Figures) -> Cells:
    measured = f"{info['busy_p95_ms']:.0f} ms (idle {info['idle_p95_ms']:.0f} ms)"
    met = info["busy_p95_ms"] < MOST_INFO_MS
    return _cells("`/info/` p95 while a propagation runs", measured, "under 100 ms", met)


def _throughput(load: Figures) -> Cells:
    same = "masks equal the serial run's" if load["masks_equal"] else "MASKS DIFFER"
    measured = f"throughput **{load['ratio']:.2f}** times that of 1; {same}"
    met = load["masks_equal"] and load["ratio"] >= LEAST_CROWD
    return _cells("8 annotators, 4 volumes", measured, f"equal masks, at least {LEAST_CROWD}", met)


def _growth(memory: Figures) -> Cells:
    measured = f"{memory['growth_percent']:+.1f} % ({memory['after_warm_up_mib']:.0f} MiB before)"
    name = f"memory after {memory['rounds']} sessions"
    return _cells(name, measured, "within 5 %", memory["growth_percent"] <= MOST_GROWTH)


def _cells(figure: str, measured: str, target: str, met: bool) -> Cells:
    return {"figure": figure, "measured": measured, "target": target, "met": _yes(met)}


def _profile(title: str, operations: Sequence[tuple[str, float]]) -> str:
    return f"{title}: " + ", ".join(f"`{name}` {100 * share:.0f} %" for name, share in operations)


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"
