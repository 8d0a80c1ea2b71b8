from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.active.calibration import (
    MAX_PAIRS,
    MIN_ISOTONIC,
    MIN_RIDGE,
    UNCALIBRATED,
    Fit,
    Pair,
    SliceFeatures,
    calibrate,
    left_out,
    rank_correlation,
    reliability,
    risk_of_coverage,
)

unit = st.floats(0, 1)
values = st.lists(st.tuples(unit, unit), min_size=2, max_size=60).map(lambda pairs: np.array(pairs).T)


def features(**given):
    values = {"predicted_iou": 0.8, "presence": 0.9, "agreement": 1.0, "distance": 1.0, "area_ratio": 0.9}
    plain = SliceFeatures(raw=0.8, seen=True, **values)
    return replace(plain, **given)


def pairs_of(slices, volumes=6, *, rng=None, tells=True):
    """Slices whose IoU falls with the distance, or (tells=False) with nothing that is known; raw says the opposite."""
    rng = rng or np.random.default_rng(0)
    found = []
    for n in range(slices):
        distance = float(rng.integers(1, 12))
        iou = float(np.clip(1 - distance / 12 + rng.normal(0, 0.05), 0, 1)) if tells else float(rng.random())
        found.append(Pair(f"case-{n % volumes}", features(distance=distance, raw=min(1.0, distance / 12)), iou))
    return found


def test_a_fit_ranks_volumes_it_has_not_seen_and_its_values_are_true():
    found = calibrate(pairs_of(400), model="w:1")
    assert (found.method, found.slices, found.volumes, found.holds) == ("isotonic", 400, 6, True)
    assert found.before.spearman < -0.8 and found.after.spearman > 0.8
    assert found.after.ece < 0.05 < found.before.ece and found.after.aurc < found.before.aurc
    near, far = found.qualities([features(distance=1.0), features(distance=11.0)])
    assert near > 0.85 and far < 0.2


@pytest.mark.parametrize(
    ("slices", "volumes", "method"),
    [
        (MIN_RIDGE - 1, 6, "raw"),
        (MIN_RIDGE, 6, "ridge"),
        (MIN_RIDGE, 2, "raw"),
        (MIN_ISOTONIC - 1, 6, "ridge"),
        (MIN_ISOTONIC, 6, "isotonic"),
    ],
)
def test_how_much_is_fitted_depends_on_how_much_there_is(slices, volumes, method):
    found = calibrate(pairs_of(slices, volumes))
    assert found.method == method and (found.after is None) == (method == "raw")


def test_a_constant_confidence_fails_the_gate():
    same = [replace(pair, features=features()) for pair in pairs_of(300)]
    found = calibrate(same)
    assert found.after.spearman < 0.3 and not found.holds and found.failed
    assert found.qualities([features(raw=0.77)]).tolist() == [0.77]


def test_what_tells_nothing_fails_the_gate():
    found = calibrate(pairs_of(600, tells=False))
    assert not found.holds and found.failed


def test_too_few_labels_neither_hold_nor_fail():
    found = calibrate([])
    assert not found.holds and not found.failed and found.qualities([features(raw=0.4)]).tolist() == [0.4]
    assert UNCALIBRATED.qualities([]).tolist() == []


def test_each_volume_is_judged_by_the_others_only():
    pairs = pairs_of(300)
    turned = [replace(p, iou=1 - p.iou) if p.volume == "case-0" else p for p in pairs]
    own = np.array([p.volume == "case-0" for p in pairs])
    assert (left_out(pairs, curve=True)[own] == left_out(turned, curve=True)[own]).all()
    assert (left_out(pairs, curve=True)[~own] != left_out(turned, curve=True)[~own]).any()


@given(st.lists(st.tuples(unit, unit), min_size=5, max_size=40), st.lists(unit, min_size=2, max_size=20))
def test_the_curve_rises(known, asked):
    """More predicted IoU never lowers the quality where IoU rose with it, whatever the noise."""
    rows = [features(predicted_iou=said) for said, _ in known]
    fit = Fit.of(rows, np.array([so for _, so in known]), curve=True)
    flat = Fit(fit.ridge, None)
    asked_rows = [features(predicted_iou=value) for value in asked]
    order = np.argsort(flat.qualities(asked_rows), kind="stable")
    assert (np.diff(fit.qualities(asked_rows)[order]) >= -1e-12).all()
    assert ((fit.qualities(asked_rows) >= 0) & (fit.qualities(asked_rows) <= 1)).all()


def test_only_the_newest_count():
    old = [replace(pair, iou=0.0) for pair in pairs_of(300)]
    assert calibrate([*old, *pairs_of(MAX_PAIRS)]).after.spearman == calibrate(pairs_of(MAX_PAIRS)).after.spearman


def test_another_models_calibration_says_nothing():
    found = calibrate(pairs_of(300), model="w:1")
    assert found.of_model("w:1") is found and found.of_model("w:2") is UNCALIBRATED
    assert UNCALIBRATED.of_model("w:2") is UNCALIBRATED


@given(values)
def test_measures_lie_where_they_must(pair):
    said, so = pair
    found = reliability(said, so)
    assert -1 - 1e-9 <= found.spearman <= 1 + 1e-9 and 0 <= found.ece <= 1 and 0 <= found.aurc <= 1 + 1e-9
    assert sum(count for *_, count in found.bins) == len(said) and len(found.bins) <= 10


@given(values)
def test_what_is_exactly_so_has_no_calibration_error_and_the_least_risk(pair):
    _, so = pair
    assert reliability(so, so).ece == pytest.approx(0, abs=1e-12)
    assert risk_of_coverage(so, so) <= risk_of_coverage(-so, so) + 1e-12


def test_bins_have_equal_mass():
    counts = [count for *_, count in reliability(np.linspace(0, 1, 103), np.zeros(103)).bins]
    assert len(counts) == 10 and max(counts) - min(counts) <= 1


def test_the_risk_of_a_constant_confidence_is_the_mean_risk():
    so = np.array([0.0, 1.0, 0.5, 0.9])
    assert risk_of_coverage(np.full(4, 0.3), so) == pytest.approx(1 - so.mean())


def test_nothing_varies_so_nothing_is_ranked():
    assert rank_correlation(np.full(5, 0.5), np.arange(5.0)) == 0.0


@given(st.builds(SliceFeatures, unit, st.booleans(), unit, unit, unit, st.floats(0, 500), unit))
def test_signs_survive_being_written(given_signs):
    again = SliceFeatures.from_row(given_signs.to_row())
    assert again.seen == given_signs.seen and again.to_row() == given_signs.to_row()
    assert again.raw == pytest.approx(given_signs.raw, abs=1e-4)
