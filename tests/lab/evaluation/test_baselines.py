"""Baselines on phantoms."""

import numpy as np
import pytest

from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.baselines import METHODS, run_baseline
from slicecast_lab.evaluation.prompts import pick_slice


@pytest.mark.parametrize("name", METHODS)
def test_the_painted_slice_stays_as_painted(case, name):
    number = pick_slice(case, "largest")
    found = run_baseline(name, case, number)
    assert found.shape == case.truth.shape and found.dtype == bool
    assert np.array_equal(case.slices(found).slice(number), case.slices(case.truth).slice(number))


def test_copies_fill_the_volume_or_the_extent(case):
    number = pick_slice(case, "largest")
    painted = case.slices(case.truth).slice(number)
    everywhere, within = (case.slices(run_baseline(name, case, number)) for name in ("copy", "copy-extent"))
    assert all(np.array_equal(everywhere.slice(n), painted) for n in range(everywhere.count))
    shown = [n for n in range(within.count) if within.slice(n).any()]
    assert (shown[0], shown[-1]) == case.extent


@pytest.mark.parametrize(("name", "least"), [("region", 0.8), ("levelset", 0.6)])
def test_a_bright_ball_is_found_by_growing(case, name, least):
    """The anisotropic phantom is a spindle; the level set's window is too short for it, and smooths its ends away."""
    found = dice(run_baseline(name, case, pick_slice(case, "largest")), case.truth)
    assert found > (0.35 if (name, case.files.id) == ("levelset", "anisotropic") else least)


def test_a_bright_ball_is_found_by_walking(case):
    """The anisotropic phantom is a spindle six times as long as wide, which is beyond the walker's window."""
    found, copied = (
        dice(run_baseline(name, case, pick_slice(case, "largest")), case.truth) for name in ("walker", "copy")
    )
    assert found > (0.7 if case.files.id == "anisotropic" else max(copied, 0.75))


def test_a_large_window_is_thinned(case, monkeypatch):
    monkeypatch.setattr("slicecast_lab.evaluation.baselines.WALKER_MAX_SIDE", 8)
    number = pick_slice(case, "largest")
    assert dice(run_baseline("walker", case, number), case.truth) > 0.6
