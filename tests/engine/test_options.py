from dataclasses import fields

import pytest

from slicecast.engine.options import STOCK, EngineOptions, from_stored
from slicecast.errors import ConfigError


def test_the_defaults_are_valid():
    assert EngineOptions().zoom == "auto"


def test_stored_options_answer_as_they_did_when_they_were_stored():
    assert EngineOptions(**from_stored({"leap": 2.0, "settle_slices": 1})) == EngineOptions(
        leap=2.0, taper=0.0, parts=False, progressive=False, calibrate=False
    )
    later = {"taper": 3.0, "parts": True, "progressive": True, "calibrate": True}
    assert EngineOptions(**from_stored(later)) == EngineOptions(taper=3.0)


def test_stock_switches_every_rule_off_whatever_else_is_said():
    stock = EngineOptions(stock=True, zoom="on", least_iou=0.9)
    assert {name: getattr(stock, name) for name in STOCK} == STOCK
    assert {f.name for f in fields(EngineOptions)} == {*STOCK, "stock", "zoom_margin", "zoom_rounds"}  # those need zoom


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"zoom": "yes"}, "zoom is 'yes'; it must be auto, on or off"),
        ({"zoom_margin": 0.5}, "zoom_margin in engine.yaml: propagation is 0.5; give a number from 1 to 10"),
        ({"zoom_margin": float("nan")}, "zoom_margin in .* is nan"),
        ({"like_share": 1.5}, "like_share in .* is 1.5; give a number from 0 to 1"),
        ({"least_iou": -0.1}, "least_iou in .* is -0.1; give a number from 0 to 1"),
        ({"taper": -1.0}, "taper in .* is -1.0; give a number from 0 to 100"),
        ({"zoom_rounds": -1}, "zoom_rounds in .* is -1; give a whole number from 0"),
        ({"gone_slices": -2}, "gone_slices in .* is -2"),
        ({"fill_holes_px": -1}, "fill_holes_px in .* is -1"),
    ],
)
def test_a_bad_value_is_named(given, complaint):
    with pytest.raises(ConfigError, match=complaint):
        EngineOptions(**given)
