"""The report on one page."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from campaigns import played
from matplotlib.figure import Figure

from slicecast.active.calibration import Calibration, Reliability
from slicecast.campaign.report import (
    agreements,
    calibration,
    calibration_words,
    draw_calibration,
    draw_learning_curve,
    draw_minutes,
    html_report,
    learning_curve,
    people,
    progress,
    put_curves,
    rows,
    slice_pairs,
    write_report,
)
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


def test_progress():
    assert progress(played()) == {"open": 0, "needs review": 0, "submitted": 5, "rejected": 1, "approved": 0}


def test_people_and_their_minutes():
    found = {person.who: (person.cases, person.minutes) for person in people(played())}
    assert found == {"ann": (4, 1.5), "bob": (2, 1.5), "cid": (1, 0.0)}


def test_agreement_is_that_of_second_readers():
    (only,) = agreements(played())
    assert (only.case, only.who, only.dice, only.hd95_mm) == ("case-0", "cid", 0.93, 1.5)


def test_the_curve_is_in_the_order_of_submission():
    curve = learning_curve(played())
    assert [dice for _, dice, _ in curve] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    assert curve[-1][2] == pytest.approx(9.0)


def test_calibration_learns_from_what_was_submitted():
    found = calibration(played())
    assert (found.method, found.slices, found.volumes, found.model) == ("ridge", 60, 6, "w:1")
    assert found.before.spearman == 0 and found.after.spearman > 0.9 and found.holds
    words = calibration_words(found)
    assert "60 slices of 6 submitted cases" in words and "rank correlation 0.00" in words and "is used" in words


def test_only_the_newest_models_answers_count():
    old = played()
    newer = dict(old.cases["case-1"].comparisons[0], model_hash="w:2", when_s=1e9)
    case = replace(old.cases["case-1"], comparisons=(newer,))
    state = replace(old, cases={**old.cases, "case-1": case})
    pairs, model = slice_pairs(state)
    assert model == "w:2" and {pair.volume for pair in pairs} == {"case-1"} and len(pairs) == 10


def test_a_confidence_that_does_not_rank_is_said_not_to_be_used():
    flat = Reliability(0.1, 0.2, 0.3, ())
    assert "even steps" in calibration_words(Calibration("ridge", 60, 6, flat, flat))
    assert calibration_words(Calibration()) == ""


def test_too_little_is_nothing():
    few = played(2, second=False)
    assert learning_curve(few) == [] and calibration(few).method == "raw" and agreements(few) == []
    assert people(State()) == [] and rows(State()) == []


def test_a_row_per_case():
    first = rows(played())[0]
    assert (first["case"], first["annotator"], first["active_s"], first["second_reader"]) == (
        "case-0",
        "bob",
        90.0,
        "cid",
    )


@pytest.mark.parametrize("draw", [draw_learning_curve, draw_calibration, draw_minutes])
def test_svg_without_a_header(draw):
    assert ET.fromstring(draw(played())).tag.endswith("svg")


@pytest.mark.parametrize("draw", [draw_learning_curve, draw_calibration, draw_minutes])
def test_nothing_from_nothing(draw):
    assert draw(State()) is None


def test_a_sentence_in_place_of_a_curve():
    axes = Figure().subplots(1, 3)
    put_curves(State(), axes)
    assert [plot.texts[0].get_text() for plot in axes] == ["Not enough data yet"] * 3
