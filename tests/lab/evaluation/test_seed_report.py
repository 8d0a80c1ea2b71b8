"""The published study's table, and that no other numbers get into it."""

import pytest

from slicecast.errors import ConfigError
from slicecast_lab.benchmarks.accuracy import Row
from slicecast_lab.evaluation.cases import CaseFiles
from slicecast_lab.evaluation.seed import SeedEvaluation, SeedResult
from slicecast_lab.evaluation.seed_report import find_seed_sets, seed_as_json, study_settings, study_table
from slicecast_lab.evaluation.settings import SeedSettings

SECONDS = {"load": 1.0, "prompt": 0.5, "forward": 2.0, "reverse": 2.0}


def report(*dices, set_name="Spleen", settings=None, model="sam2_hiera_large"):
    results = tuple(
        SeedResult(CaseFiles(str(n), None, None, (), str(n)), (3, 9), 3, 0, 6, value, 0.5, SECONDS)
        for n, value in enumerate(dices)
    )
    done = SeedEvaluation(settings or SeedSettings(), results, {}, 100.0)
    return seed_as_json(done, {"model": {"name": model}}, set_name=set_name, fill_hole_area_px=0)


def test_a_report_says_protocol_and_what_was_measured():
    said = report(0.8, 0.9)
    assert said["protocol"] == "seed-exact" and said["settings"]["fill_hole_area_px"] == 0
    assert said["summary"]["dice"]["value"] == pytest.approx(0.85) and said["summary"]["slices"] == 12
    assert said["cases"][1] == {
        "id": "1",
        "slices": [3, 9],
        "prompted": 6,
        "clicks": 0,
        "visited": 6,
        "dice": 0.9,
        "nsd": 0.5,
        "seconds": SECONDS,
    }


def test_the_table_has_a_row_for_each_model_and_prompt_and_a_column_for_each_set():
    one, five, mask = study_settings(256)
    reports = [report(0.4, settings=one), report(0.6, 0.6, settings=five), report(0.7, settings=mask, set_name="Lung")]
    reports.append(report(0.5, settings=one, model="sam2_hiera_tiny"))
    table = study_table(reports, columns=["Spleen", "Lung"])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert lines[0] == ["model", "prompt", "Spleen", "Lung"]
    assert lines[2] == ["sam2_hiera_large", "1 click", "0.400 (0.400 to 0.400), 1 cases", "-"]
    assert lines[3] == ["sam2_hiera_large", "5 clicks", "0.600 (0.600 to 0.600), 2 cases", "-"]
    assert lines[4] == ["sam2_hiera_large", "1 mask", "-", "0.700 (0.700 to 0.700), 1 cases"]
    assert lines[5][:2] == ["sam2_hiera_tiny", "1 click"] and lines[5][2].startswith("0.500")


def test_the_two_protocols_never_share_a_table():
    ours = {**report(0.8), "protocol": "fixed"}
    with pytest.raises(ConfigError, match="'fixed'"):
        study_table([report(0.8), ours], columns=["Spleen"])
    with pytest.raises(ConfigError, match="'seed-exact'"):
        Row("spleen", {"mask": 0.9}, {"mask": report(0.8)})


def test_no_case_at_all_is_an_error():
    with pytest.raises(ConfigError, match="No case could be evaluated"):
        report()


def test_the_studys_sets_are_found_also_one_level_deeper(tmp_path):
    for name in ("msd/Task03_Liver", "Task07_Pancreas", "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData"):
        (tmp_path / name).mkdir(parents=True)
    found = find_seed_sets(tmp_path)
    assert list(found) == ["BraTS2020", "Liver", "Pancreas"]
    assert found["BraTS2020"].name == "MICCAI_BraTS2020_TrainingData"
    with pytest.raises(ConfigError, match="Task09_Spleen"):
        find_seed_sets(tmp_path / "msd" / "Task03_Liver")
