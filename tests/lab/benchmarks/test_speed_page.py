"""The page of the speed benchmark."""

from slicecast_lab.benchmarks.speed_page import LEAST, ratios, rows, speed_page

PROVENANCE = {
    "date": "2026-11-21 07:00 UTC",
    "commit": "abc",
    "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 24, "torch": "2.15", "load": [0.5, 1, 1]},
}


def answer(seconds: float, *, peak: int = 500) -> dict:
    return {"seconds": seconds, "peak_mib": peak, "voxels": 1, "walked": 9, "recomputed": 9, "encoded": 8, "parts": {}}


def turn(first: float, theirs: float) -> dict:
    return {
        "first": {"ours": answer(first), "theirs": answer(theirs)},
        "correction": {"ours": answer(1, peak=600), "theirs": answer(12, peak=1000)},
        "before late": {"ours": answer(1)},
        "whole": {"ours": answer(2), "direct": answer(1.8)},
    }


def scene(*turns: dict) -> dict:
    return {"title": "scan", "slices": 9, "span": [1, 3], "turns": list(turns)}


def part(figures: object) -> dict:
    return {"provenance": PROVENANCE, "figures": figures}


def test_ratios_are_of_the_same_turn():
    assert ratios(scene(turn(1, 5), turn(2, 6))["turns"], "first", "theirs") == [5, 3]


def test_a_row_has_the_spread_and_says_whether_the_target_is_met():
    first, correction = rows(scene(turn(1, 5), turn(2, 6), turn(1, 3)), "theirs", LEAST)
    assert "**3.00** (3.00 to 5.00, n=3)" in first and first[-2:] == ("at least 4", "**no**")
    assert correction[-2:] == ("at least 10", "yes")
    (whole,) = rows(scene(turn(1, 5)), "direct", LEAST)
    assert "**0.90** (n=1)" in whole and whole[-1] == "not settled: one reading"


def test_the_page_has_every_part_and_its_circumstances():
    alone = [answer(1), answer(2), answer(3)]
    once = {key: {"three": answer(4), "each": alone} for key in ("zoom", "no zoom")}
    objects = {"title": "scan", "objects": 3, "turns": [once]}
    server = {
        "info": {"busy_p95_ms": 120, "idle_p95_ms": 5},
        "throughput": {"masks_equal": True, "ratio": 1.2},
        "memory": {"growth_percent": -6.0, "after_warm_up_mib": 900, "sessions": 200},
    }
    parts = {"large": scene(turn(1, 5)), "objects": objects, "tiny": scene(turn(1, 5)), "server": server}
    text = speed_page({name: part(figures) for name, figures in parts.items()})
    for words in (
        "* Not measured: ct, mr, profiles.",
        "* `large`: 2026-11-21 07:00 UTC, commit abc, load 0.5 before.",
        "600 MiB against 1000 MiB: **0.60** | at most 0.5 of MONAI Label's | **no** |",
        "**2.00** (n=1) | at most 1.8 | **no** |",
        "120 ms (idle 5 ms) | under 100 ms | **no** |",
        "throughput **1.20** times that of 1; masks equal the serial run's | equal masks, at least 1 | yes |",
        "-6.0 % (900 MiB before) | within 5 % | yes |",
    ):
        assert words in text
