"""Tables and JSON."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.report import (
    as_json,
    bootstrap_mean,
    click_auc,
    clicks_to_reach,
    describe_case,
    show_mean,
    summarise,
    summary_table,
    write_json,
)
from slicecast_lab.evaluation.run import Evaluation, evaluate
from slicecast_lab.evaluation.settings import Settings


def test_the_report_holds_everything(cases, service, tmp_path):
    settings = Settings(prompt="clicks", clicks=5, corrections=1, baselines=("copy",))
    report = as_json(evaluate(cases, service, settings), {"commit": "abc"})
    write_json(report, tmp_path / "new" / "report.json")
    read = json.loads((tmp_path / "new" / "report.json").read_text())
    assert read == report and len(read["cases"]) == 3 and read["protocol"] == "fixed"
    assert read["settings"]["prompt"] == "clicks:5" and read["circumstances"] == {"commit": "abc"}
    text = io.StringIO()
    Console(file=text, width=120).print(summary_table(report["summary"], settings))
    for words in (
        "Dice by click",
        "NSD at 2 mm",
        "HD95, mm",
        "corrected: worst",
        "model minus copy",
        "AUC",
        "peak memory",
    ):
        assert words in text.getvalue()


def test_means_are_shown_with_their_interval():
    assert show_mean({"value": 0.8123, "low": 0.79, "high": 0.83, "count": 9}) == "0.812 (0.790 to 0.830)"
    assert show_mean(None) == "-"


@pytest.fixture
def clicked(cases, service) -> Evaluation:
    return evaluate(cases, service, Settings(prompt="clicks", clicks=5, corrections=1, baselines=("copy",)))


def test_means_are_those_of_the_cases(clicked):
    summary = summarise(clicked)
    finals = [result.final_dice for result in clicked.results]
    mean = pytest.approx(sum(finals) / 3, abs=1e-4)
    assert summary["dice"]["value"] == mean and summary["dice"]["count"] == summary["cases"] == 3
    assert summary["clicks"]["dice_by_click"][-1] == summary["dice"]
    assert summary["corrections"]["worst"][0] == summary["dice"] and len(summary["corrections"]["worst"]) == 2
    copied = summary["baselines"]["copy"]
    assert copied["difference"]["value"] == pytest.approx(summary["dice"]["value"] - copied["dice"]["value"], abs=2e-4)
    assert 0 <= summary["clicks"]["auc"]["value"] <= 4 and 1 <= summary["clicks"]["noc"] <= 5


def test_a_mask_has_no_click_measures(cases, service):
    summary = summarise(evaluate(cases[:1], service, Settings()))
    assert summary["clicks"] is None and summary["seconds_next"] is None and summary["baselines"] == {}


def test_everything_is_json(clicked):
    assert json.loads(json.dumps(summarise(clicked))) == summarise(clicked)
    assert json.loads(json.dumps(describe_case(clicked.results[0])))["id"] == "anisotropic"


def test_nothing_measured_is_an_error():
    with pytest.raises(ConfigError, match="too small"):
        summarise(Evaluation(Settings(), (), {"a": "too small"}, 1.0))


def test_the_bootstrap_holds_the_mean_and_repeats():
    values = np.random.default_rng(1).normal(0.7, 0.1, 50).tolist()
    mean = bootstrap_mean(values)
    assert mean.low < mean.value < mean.high and mean.count == 50
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(50), rel=0.25)
    assert bootstrap_mean(values) == mean
    assert bootstrap_mean([0.5]) == bootstrap_mean([0.5], ["a"])


def test_the_bootstrap_draws_patients_whole():
    """Each patient twice says no more than each once."""
    values = [0.2, 0.4, 0.9, 0.7]
    twice = bootstrap_mean(values * 2, list("abcd") * 2)
    assert (twice.low, twice.high) == pytest.approx((bootstrap_mean(values).low, bootstrap_mean(values).high))


def test_click_measures():
    course = [0.1, 0.5, 0.8, 0.86, 0.9]
    assert click_auc(course) == pytest.approx(0.3 + 0.65 + 0.83 + 0.88)
    assert click_auc([1] * 5) == 4 and click_auc(course[:4]) is None
    assert clicks_to_reach(course, 0.85) == 4 and clicks_to_reach(course, 0.95) is None
