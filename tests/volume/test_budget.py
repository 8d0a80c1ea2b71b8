"""How many voxels may be read at once."""

import threading

import pytest
from builders import phantom

from slicecast.errors import ReadingFull
from slicecast.inference.status import http_headers, http_status
from slicecast.volume import read_volume, write_volume
from slicecast.volume.budget import READING, VoxelBudget, claim


def test_what_does_not_fit_beside_others_is_refused_with_a_time_to_come_back():
    budget = VoxelBudget(10 << 20, wait_s=0.0)
    budget.take(6 << 20)
    with pytest.raises(ReadingFull, match=r"6 million voxels.* 5 million more") as caught:
        budget.take(5 << 20)
    assert http_status(caught.value) == 503 and "Retry-After" in http_headers(caught.value)
    budget.take(4 << 20)
    budget.give(6 << 20)
    budget.take(6 << 20)


def test_one_volume_alone_may_be_larger():
    VoxelBudget(1, wait_s=0.0).take(100)


def test_it_waits_for_others():
    budget = VoxelBudget(10, wait_s=30.0)
    budget.take(10)
    threading.Timer(0.05, budget.give, [10]).start()
    budget.take(10)


def test_room_is_taken_once_and_given_back_after_errors():
    budget = VoxelBudget(10, wait_s=0.0)
    with pytest.raises(ZeroDivisionError), budget.reading():
        claim(8)
        claim(8)
        raise ZeroDivisionError
    budget.take(10)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_every_reader_counts(tmp_path, monkeypatch, ending):
    path = write_volume(tmp_path / f"scan{ending}", phantom().volume)
    monkeypatch.setattr(READING, "most", 1)
    monkeypatch.setattr(READING, "_wait_s", 0.0)
    read_volume(path)
    READING.take(1)
    try:
        with pytest.raises(ReadingFull):
            read_volume(path)
    finally:
        READING.give(1)
    read_volume(path)
