"""Which volumes are not worth a first look."""

import numpy as np
import pytest

from slicecast.active.features import flaw_of

GRID = np.indices((12, 20, 24)).sum(axis=0).astype(np.float32)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((8, 8, 8), np.int16), "constant"),
        (np.where(GRID > 40, np.nan, GRID), "no numbers"),
        (np.random.default_rng(0).normal(size=(12, 20, 24)), "neighbouring voxels are unrelated"),
    ],
)
def test_what_is_wrong_is_said(array, said):
    assert said in flaw_of(array)


def test_a_scan_with_noise_is_fine():
    noisy = GRID + np.random.default_rng(0).normal(size=GRID.shape) * GRID.std()
    assert flaw_of(noisy) == "" and flaw_of(GRID.astype(np.int16)) == ""
