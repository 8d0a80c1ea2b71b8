"""The tables of the results page."""

import numpy as np
import pytest

from slicecast_lab.evaluation import page
from slicecast_lab.evaluation.mistakes import KINDS
from slicecast_lab.evaluation.monailabel import MonaiLabelAnswer
from slicecast_lab.evaluation.report import as_json
from slicecast_lab.evaluation.run import evaluate
from slicecast_lab.evaluation.settings import Settings

CLICKS = "clicks:5"


class Nothing:
    """Stands in for MONAI Label's task, and finds nothing."""

    def write_scan(self, frames):
        return frames

    def segment(self, scan, **prompts):
        return MonaiLabelAnswer(np.zeros(scan.shape, dtype=bool), 0.1, 1)


@pytest.fixture
def row(cases, service) -> page.Row:
    asked = {
        "mask": Settings(corrections=1, baselines=("copy", "walker")),
        "box": Settings(prompt="box", baselines=("monailabel",)),
        CLICKS: Settings(prompt="clicks", clicks=5, baselines=("monailabel",)),
    }
    reports = {
        prompt: as_json(evaluate(cases, service, settings, monailabel=Nothing()), {})
        for prompt, settings in asked.items()
    }
    return page.Row("phantoms", {"mask": 0.1, "box": 0.1, CLICKS: 1.01}, reports)


def cells(table: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1, table
    return lines


def test_every_table_is_whole(row):
    tables = [
        page.dice_table([row], clicks=CLICKS),
        page.baseline_table([row]),
        page.monailabel_table([row], ["box", CLICKS]),
        page.shortfall_table([row]),
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


def test_a_missed_target_comes_with_where_the_wrong_voxels_are(row):
    ((name, prompt, _dice, goal, where),) = cells(page.shortfall_table([row]))[2:]
    assert (name, prompt, goal) == ("phantoms", CLICKS, "1.01")
    assert any(words in where for words in KINDS.values()) and "%" in where


def test_monai_label_has_a_table_of_its_own(row):
    assert "MONAI" not in page.baseline_table([row])
    assert page.monailabel_table([row], ["box"]).count("0.000; model better") == 1


def test_one_case_decides_nothing(cases, service):
    report = as_json(evaluate(cases[:1], service, Settings(baselines=("copy",))), {})
    assert "too few cases to say (+" in page.baseline_table([page.Row("one", {}, {"mask": report})])


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
