"""Grafana's dashboard asks only for what `/metrics` has."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_THE_PROCESS = {"process_resident_memory_bytes"}
"""From prometheus_client itself, on Linux."""


def test_every_metric_and_label_of_the_dashboard_exists():
    listed = json.loads((ROOT / "tests" / "golden" / "files" / "metrics.json").read_text())
    labels = {name: set(inner.rstrip("}").split(",")) for name, _, inner in (entry.partition("{") for entry in listed)}
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
    assert len(panels) == 8
    for expression in (target["expr"] for panel in panels for target in panel["targets"]):
        names = set(re.findall(r"(?:slicecast|process)_\w+", expression))
        assert names and names <= labels.keys() | OF_THE_PROCESS, expression
        known = set().union(*(labels.get(name, set()) for name in names))
        for group in re.findall(r"by \(([^)]*)\)", expression):
            assert {word.strip() for word in group.split(",")} <= known, expression
        assert set(re.findall(r"{(\w+)=", expression)) <= known, expression
