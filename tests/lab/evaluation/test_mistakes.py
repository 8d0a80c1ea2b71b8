"""Shares of wrong voxels, on phantoms."""

import numpy as np
import pytest

from slicecast_lab.evaluation.cases import pick_slice
from slicecast_lab.evaluation.mistakes import KINDS, mistake_shares


def test_a_right_answer_has_none(case):
    shares = mistake_shares(case, case.truth, pick_slice(case, "largest"))
    assert set(shares) == set(KINDS) and not any(shares.values())


def test_nothing_found_is_missed(case):
    number = pick_slice(case, "largest")
    shares = mistake_shares(case, np.zeros_like(case.truth), number)
    assert shares["prompted"] == pytest.approx(case.areas[number] / case.areas.sum())
    assert shares["missed"] == pytest.approx(1 - shares["prompted"])
    assert shares["excess"] == shares["beyond"] == 0


def test_everything_found_is_too_much(case):
    shares = mistake_shares(case, np.ones_like(case.truth), pick_slice(case, "largest"))
    first, last = case.extent
    wrong = np.count_nonzero(~case.truth)
    area = case.truth.size // len(case.areas)
    assert shares["beyond"] == pytest.approx(area * (len(case.areas) - (last - first + 1)) / wrong)
    assert sum(shares.values()) == pytest.approx(1)
