"""The report on one page."""

import pytest
from campaigns import played

from slicecast.campaign.report import html_report, write_report
from slicecast.campaign.state import State
from slicecast.errors import ConfigError


def test_html(tmp_path):
    text = write_report(played(), tmp_path / "r.html", title="<liver>").read_text()
    assert "&lt;liver&gt;" in text and "<liver>" not in text and text.count("<svg") == 3
    assert "0.930" in text and "<script" not in text and "src=" not in text and "<link" not in text


def test_png(tmp_path):
    assert write_report(played(), tmp_path / "r.png", title="liver").read_bytes().startswith(b"\x89PNG")


def test_an_empty_campaign_says_so():
    assert html_report(State(), title="x").count("Not enough data yet") == 5


def test_another_ending(tmp_path):
    with pytest.raises(ConfigError, match=r"\.html or \.png"):
        write_report(State(), tmp_path / "r.pdf", title="x")
