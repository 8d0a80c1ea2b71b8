"""The tables of the results page."""

import pytest

from slicecast.evaluation import page
from slicecast.evaluation.report import as_json
from slicecast.evaluation.run import evaluate
from slicecast.evaluation.settings import Settings

CLICKS = "clicks:5"


@pytest.fixture
def row(cases, service) -> page.Row:
    asked = {
        "mask": Settings(corrections=1, baselines=("copy", "walker")),
        "box": Settings(prompt="box"),
        CLICKS: Settings(prompt="clicks", clicks=5),
    }
    reports = {prompt: as_json(evaluate(cases, service, settings), {}) for prompt, settings in asked.items()}
    return page.Row("phantoms", {"mask": 0.1, "box": 0.1, CLICKS: 1.01}, reports)


def cells(table: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1, table
    return lines


def test_every_table_is_whole(row):
    tables = [
        page.dice_table([row], clicks=CLICKS),
        page.baseline_table([row]),
        page.surface_table([row], ["mask", "box"]),
        page.click_table([row], clicks=CLICKS),
        page.correction_table([row]),
        page.seconds_table([row], clicks=CLICKS),
    ]
    for table in tables:
        heading, rule, *body = cells(table)
        assert set(rule) == {"---"} and body and all(line[0] == "phantoms" for line in body), heading
        assert all(all(line) for line in body)


def test_a_missed_target_is_marked(row):
    assert row.misses == [CLICKS]
    *_, (name, count, mask, _box, _first, clicks) = cells(page.dice_table([row], clicks=CLICKS))
    assert (name, count) == ("phantoms", "3")
    assert "target 0.10" in mask and "missed" not in mask and clicks.endswith("**missed**")


def test_a_difference_is_decided_by_its_interval(row):
    said = page.baseline_table([row])
    assert "model better (+" in said
    assert "random walker" in said and "copy to every slice" in said


def test_who_corrects_is_named(row):
    assert [line[1] for line in cells(page.correction_table([row]))[2:]] == [
        "the product",
        "truth: most wrong voxels",
        "rule: middle of the widest gap",
    ]


def test_circumstances_are_told():
    machine = {"cpu": "X", "cores": 2, "memory_gib": 8, "device": "cpu", "load": [1.5, 1, 1]}
    machine |= {"system": "Linux", "python": "3.11", "torch": "2"}
    said = {"machine": machine, "model": {"name": "m", "sha256": "0" * 64, "image_size": 128}}
    said |= {"commit": "abc+", "command": "make results", "date": "2026-01-01 00:00 UTC"}
    text = page.circumstances_table(said)
    assert "`abc+` (and changes)" in text and "0" * 64 in text and "load average 1.5" in text
