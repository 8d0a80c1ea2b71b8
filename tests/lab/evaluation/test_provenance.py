"""Results say where they come from."""

import datetime
import re

from slicecast.models.registry import bundled_spec
from slicecast_lab.evaluation.provenance import provenance


def test_a_result_says_where_it_comes_from():
    now = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    said = provenance(bundled_spec(), "slicecast evaluate", device="cpu", now=now)
    assert said["date"] == "2026-01-02 03:04 UTC" and said["command"] == "slicecast evaluate"
    assert re.fullmatch(r"[0-9a-f]{64}", said["model"]["sha256"])
    assert said["commit"] is None or re.fullmatch(r"[0-9a-f]{12}\+?", said["commit"])
    assert said["machine"]["cores"] >= 1 and said["machine"]["device"] == "cpu"
