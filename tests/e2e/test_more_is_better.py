"""The promise of the product: of painted slices, more never lower the mean Dice. On the sample scans."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import MaskPrompt, ObjectPrompts, PromptSet
from slicecast.volume import read_volume
from slicecast.volume.metrics import dice

SAMPLES = Path(__file__).parents[2] / "sample-data"
TOLERANCE = 0.002


@pytest.fixture(scope="module")
def service():
    return SegmentService()


def painted(service, scan: str, truth: np.ndarray, numbers: list[int]) -> float:
    """Paint slices of an object with its true mask; return the Dice over the volume."""
    prompts = PromptSet((ObjectPrompts("a", masks=(MaskPrompt(truth, slices=tuple(numbers)),)),))
    return dice(service.segment(SegmentRequest(SAMPLES / "studies" / scan, prompts)).mask == 1, truth)


def subsets(truth: np.ndarray) -> list[list[int]]:
    """Return slices to paint: the largest and every 12th, 6th and 3rd.

    From the largest alone to a few the mean may still fall, see decision 24.
    """
    shown = np.flatnonzero(truth.any(axis=(1, 2))).tolist()
    largest = int(truth.sum(axis=(1, 2)).argmax())
    every = (shown[step // 2 :: step] for step in (12, 6, 3))
    return [sorted({largest, *numbers}) for numbers in every]


@pytest.mark.parametrize("scan", ["ct_abdomen_a.nii.gz", "mr_brain_a.nii.gz"])
def test_more_painted_slices_never_lower_the_mean(service, scan):
    labels = read_volume(SAMPLES / "truth" / scan).array
    truths = [labels == value for value in np.unique(labels) if value]
    means = np.mean(
        [[painted(service, scan, truth, numbers) for numbers in subsets(truth)] for truth in truths], axis=0
    )
    assert all(after >= before - TOLERANCE for before, after in pairwise(means)), means
