"""Curves are drawn where there is something to draw."""

import xml.etree.ElementTree as ET

import pytest
from campaigns import played
from matplotlib.figure import Figure

from slicecast.campaign.report import draw_calibration, draw_learning_curve, draw_minutes, put_curves
from slicecast.campaign.state import State


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
