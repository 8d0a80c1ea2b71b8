"""Hidden truths."""

import hashlib

import pytest

from slicecast.campaign.gold import find_truth, keep_truth
from slicecast.errors import InputError, NotFound


def test_a_truth_is_kept_and_found(tmp_path):
    truth = tmp_path / "truth.nii.gz"
    truth.write_bytes(b"x")
    assert keep_truth(tmp_path / "campaign", "case.1", truth) == hashlib.sha256(b"x").hexdigest()
    assert find_truth(tmp_path / "campaign", "case.1").read_bytes() == b"x"
    assert find_truth(tmp_path / "campaign", "case") is None


def test_what_is_no_label(tmp_path):
    with pytest.raises(NotFound):
        keep_truth(tmp_path, "case", tmp_path / "none.nii.gz")
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(InputError, match="Convert it"):
        keep_truth(tmp_path, "case", tmp_path / "a.txt")
