"""Numbers for pages and reports."""

import pytest
from campaigns import played

from slicecast.campaign.state import State
from slicecast.campaign.summary import (
    Bin,
    agreements,
    calibration,
    expected_calibration_error,
    learning_curve,
    people,
    progress,
    rows,
)


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


def test_calibration():
    bins = calibration(played())
    assert len(bins) == 10 and sum(b.slices for b in bins) == 60
    assert bins[0].confidence == pytest.approx(0.5) and bins[0].dice == pytest.approx(0.6)


def test_calibration_error():
    assert expected_calibration_error([Bin(0.5, 0.7, 30), Bin(0.9, 0.9, 10)]) == pytest.approx(0.15)


def test_too_little_is_nothing():
    few = played(2, second=False)
    assert learning_curve(few) == [] and calibration(few) == [] and agreements(few) == []
    assert people(State()) == [] and rows(State()) == []


def test_a_row_per_case():
    first = rows(played())[0]
    assert (first["case"], first["annotator"], first["active_s"], first["second_reader"]) == (
        "case-0",
        "bob",
        90.0,
        "cid",
    )
