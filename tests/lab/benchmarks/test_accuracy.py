"""The benchmark that writes the tables of the accuracy page, on phantoms that stand in for the real sets."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import phantom

from slicecast.volume import write_mask, write_volume
from slicecast_lab.benchmarks import accuracy
from slicecast_lab.benchmarks.accuracy import (
    CORRECTED,
    MEASURES,
    Row,
    baseline_cells,
    correction_cells,
    dice_cells,
    shortfall_cells,
)
from slicecast_lab.evaluation.monailabel import MonaiLabelAnswer
from slicecast_lab.evaluation.report import as_json
from slicecast_lab.evaluation.run import MISTAKES, evaluate
from slicecast_lab.evaluation.settings import FIXED, Settings

MODULE = "slicecast_lab.benchmarks.accuracy"
CLICKS = "clicks:5"


class FindsNothing:
    """Stands in for MONAI Label's task."""

    def write_scan(self, frames):
        return frames

    def segment(self, scan, **prompts):
        return MonaiLabelAnswer(np.zeros(scan.shape, dtype=bool), 0.1, 1)


@pytest.fixture
def row(cases, service) -> Row:
    asked = {
        "mask": Settings(every=(12, 5), baselines=("copy", "walker")),
        "box": Settings(prompt="box", baselines=("monailabel",)),
        CLICKS: Settings(prompt="clicks", clicks=5, baselines=("monailabel",)),
        CORRECTED: Settings(prompt="clicks", corrections=10),
    }
    made = {"date": "now", "commit": "abc", "command": "x", "model": {"name": "m", "sha256": "0", "image_size": 64}}
    made["machine"] = dict.fromkeys(("cpu", "cores", "memory_gib", "device", "system", "python", "torch"), 1)
    made["machine"]["load"] = [0.0]
    reports = {
        prompt: as_json(evaluate(cases, service, settings, monailabel=FindsNothing()), made)
        for prompt, settings in asked.items()
    }
    return Row("phantoms", dict(zip(MEASURES, (0.1, 1.01, 0.1, 0.1, 0.1), strict=True)), reports)


def test_every_block_has_a_table_without_empty_cells(row):
    blocks = accuracy.blocks({"acdc_lv": row})
    assert "Not measured here: hippocampus" in blocks.pop("cases")
    for name, text in blocks.items():
        heading, _rule, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
        assert body and all(all(line) and len(line) == len(heading) for line in body), name


def test_a_missed_target_is_marked_and_comes_with_where_the_wrong_voxels_are(row):
    cells = dice_cells(row)
    assert (cells["set"], cells["cases"]) == ("phantoms", "3") and "missed" not in cells["one mask"]
    assert "target 0.10" in cells["one mask"] and cells["one box"].endswith("**missed**")
    (missed,) = shortfall_cells(row)
    assert (missed["prompt"], missed["target"]) == ("box", "1.01")
    assert any(words in missed["where the wrong voxels are"] for words in MISTAKES.values())


def test_a_difference_is_decided_by_its_interval(row):
    cells = baseline_cells(row)
    assert "model better (+" in cells["copy to every slice"] and "random walker" in cells
    assert accuracy.monailabel_cells(row)["MONAI Label, box"].startswith("0.000; model better")


def test_one_case_decides_nothing(cases, service):
    report = as_json(evaluate(cases[:1], service, Settings(baselines=("copy",))), {})
    assert "too few cases to say (+" in baseline_cells(Row("one", {}, {"mask": report}))["copy to every slice"]


def test_who_corrects_is_named(row):
    assert [cells["corrections"] for cells in correction_cells(row)] == list(accuracy.CORRECTED_BY.values())


def test_corrections_that_lower_the_mean_are_listed(row):
    steps = [{"value": value} for value in (0.5, 0.6, 0.59, 0.7, 0.7, 0.71, 0.72, 0.73, 0.74, 0.75, 0.7495)]
    summary = {"cases": 3, "corrections": {"worst": steps, "suggested": [{"value": 0.5}] * 11}}
    worst, suggested = correction_cells(replace(row, reports={CORRECTED: {"protocol": FIXED, "summary": summary}}))
    assert worst["lower after"] == "+2 (-0.0100), +10 (-0.0005)" and suggested["lower after"] == "none"


@pytest.fixture
def data(tmp_path) -> Path:
    """Two cases of hippocampus, and one patient's two phases of ACDC."""
    sets = {"hippocampus": ["hippocampus_1", "hippocampus_2"], "acdc": ["patient1_frame1", "patient1_frame2"]}
    for name, cases in sets.items():
        for part in ("images", "labels"):
            (tmp_path / name / part).mkdir(parents=True)
        for case, kind in zip(cases, ("sphere", "anisotropic"), strict=True):
            scan, truth = phantom(kind)
            write_volume(tmp_path / name / "images" / f"{case}.nii.gz", scan)
            write_mask(tmp_path / name / "labels" / f"{case}.nii.gz", truth.astype("uint8"), scan.geometry)
    (tmp_path / "hippocampus" / "split.json").write_text(json.dumps({"test": sets["hippocampus"]}))
    return tmp_path


@pytest.mark.slow
def test_the_page_is_written_from_what_is_there(data, tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_DATA", str(data))
    monkeypatch.setenv("SLICECAST_MODEL", "sam2_nano")
    page = tmp_path / "docs" / "accuracy.md"
    words = ["--quick", "--only", "hippocampus", "--only", "acdc_rv", "--build", tmp_path / "build", "--page", page]
    subprocess.run([sys.executable, "-m", MODULE, *map(str, words)], check=True)
    text = page.read_text()
    for words in ("| 2 ", "| 2 (of 1 patients) |", "Not measured here: ACDC left", "<!-- MONAI Label: ", "level set"):
        assert words in text
    assert {file.name for file in page.parent.iterdir()} == {"accuracy.md", "accuracy-clicks.png"}
    assert (tmp_path / "build" / "acdc_rv-mask.png").is_file()
