"""Tables and JSON."""

import io
import json

from rich.console import Console

from slicecast_lab.evaluation.report import as_json, show_mean, summary_table, write_json
from slicecast_lab.evaluation.run import evaluate
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
        "corrected: even",
        "model minus copy",
        "AUC",
        "peak memory",
    ):
        assert words in text.getvalue()


def test_means_are_shown_with_their_interval():
    assert show_mean({"value": 0.8123, "low": 0.79, "high": 0.83, "count": 9}) == "0.812 (0.790 to 0.830)"
    assert show_mean(None) == "-"
