"""The page of the speed benchmark."""

from slicecast_lab.benchmarks.speed_page import LEAST, contest_cells, ratios, speed_tables

PROVENANCE = {
    "date": "2026-11-21 07:00 UTC",
    "commit": "abc",
    "command": "make bench",
    "model": {"name": "m", "sha256": "0" * 64},
    "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 24, "torch": "2.15", "device": "cpu", "load": [0.5, 1, 1]},
}


def answer(seconds: float, *, peak: int = 500) -> dict:
    return {
        "seconds": seconds,
        "peak_mib": peak,
        "voxels": 1,
        "propagated": 9,
        "recomputed": 9,
        "encoded": 8,
        "parts": {},
    }


def turn(first: float, theirs: float) -> dict:
    return {
        "first": {"ours": answer(first), "theirs": answer(theirs)},
        "correction": {"ours": answer(1, peak=600), "theirs": answer(12, peak=1000)},
        "before late": {"ours": answer(1)},
        "whole": {"ours": answer(2), "direct": answer(1.8)},
    }


def scan(*turns: dict) -> dict:
    return {"title": "scan", "slices": 9, "span": [1, 3], "turns": list(turns)}


def part(figures: object) -> dict:
    return {"provenance": PROVENANCE, "figures": figures}


def test_ratios_are_of_the_same_turn():
    assert ratios(scan(turn(1, 5), turn(2, 6))["turns"], "first", "theirs") == [5, 3]


def test_a_row_has_the_spread_and_says_whether_the_target_is_met():
    first, correction = contest_cells(scan(turn(1, 5), turn(2, 6), turn(1, 3)), "theirs", LEAST["mr"])
    assert first["other / ours"] == "**3.00** (3.00 to 5.00, n=3)"
    assert (first["target"], first["met"]) == ("at least 4", "**no**")
    assert (correction["target"], correction["met"]) == ("at least 6", "yes")
    (whole,) = contest_cells(scan(turn(1, 5)), "direct", LEAST["mr"])
    assert (whole["other / ours"], whole["met"]) == ("**0.90** (n=1)", "not settled: one reading")


def test_the_tables_have_every_part_and_its_circumstances():
    alone = [answer(1), answer(2), answer(3)]
    once = {key: {"three": answer(4), "each": alone} for key in ("zoom", "no zoom")}
    objects = {"title": "scan", "objects": 3, "turns": [once]}
    server = {
        "clicks": {"first": {"p95_ms": 80.2, "p50_ms": 40.0, "clicks": 35}},
        "info": {"busy_p95_ms": 120, "idle_p95_ms": 5},
        "throughput": {"masks_equal": True, "ratio": 1.2},
        "memory": {"growth_percent": -6.0, "after_warm_up_mib": 900, "rounds": 200},
    }
    profiles = {"first click": [("aten::addmm", 0.31)]}
    parts = {
        "large": scan(turn(1, 5)),
        "objects": objects,
        "tiny": scan(turn(1, 5)),
        "tiny512": scan(turn(1, 5)),
        "server": server,
    }
    tables = speed_tables({name: part(figures) for name, figures in {**parts, "profiles": profiles}.items()})
    text = "\n".join(tables.values())
    for words in (
        "* `large`: Measured on 2026-11-21 07:00 UTC at commit `abc` by `make bench`: a CPU",
        "600 MiB against 1000 MiB: **0.60** | at most 0.3 of MONAI Label's | **no** |",
        "**2.00** (n=1) | at most 1.8 | **no** |",
        "p95 **80 ms**, median 40 (35 clicks) | p95 at most 100 ms | yes |",
        "120 ms (idle 5 ms) | under 100 ms | **no** |",
        "throughput **1.20** times that of 1; masks equal the serial run's | equal masks, at least 1.7 | **no** |",
        "-6.0 % (900 MiB before) | within 5 % | yes |",
        "(MONAI Label) |",
        "ours at 512 pixels (MONAI Label at 1024) |",
        "* first click: `aten::addmm` 31 %",
    ):
        assert words in text
    assert speed_tables({"mr": part(scan(turn(1, 5)))}).keys() == {"parts", "MONAI Label", "SAM 2"}
