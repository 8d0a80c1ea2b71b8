"""What `configs/campaign.yaml` may say."""

import hashlib
from pathlib import Path

import pytest

from slicecast.campaign.settings import CampaignSettings, campaign_settings, find_truth, keep_truth
from slicecast.errors import ConfigError, InputError, NotFound


def test_the_projects_file_is_the_defaults():
    assert campaign_settings() == CampaignSettings()


@pytest.mark.parametrize(
    "wrong", [{"second_share": 1.5}, {"gold_share": "0.1"}, {"lease_s": 1}, {"lease_s": float("nan")}]
)
def test_values_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CampaignSettings(**wrong)


def test_where_it_lies():
    assert CampaignSettings().url(Path("/data/campaign")) == "sqlite:////data/campaign/campaign.db"
    assert CampaignSettings(database="postgresql://host/x").url(Path("/data")) == "postgresql://host/x"


def test_a_truth_is_kept_and_found(tmp_path):
    truth = tmp_path / "truth.nii.gz"
    truth.write_bytes(b"x")
    assert keep_truth(tmp_path / "campaign", "case.1", truth) == hashlib.sha256(b"x").hexdigest()
    assert find_truth(tmp_path / "campaign", "case.1").read_bytes() == b"x"
    assert find_truth(tmp_path / "campaign", "case") is None


def test_a_truth_in_another_format_replaces_the_one_before(tmp_path):
    for ending in (".nii.gz", ".nrrd", ".nii.gz"):
        truth = tmp_path / f"truth{ending}"
        truth.write_bytes(ending.encode())
        keep_truth(tmp_path / "campaign", "case", truth)
        assert find_truth(tmp_path / "campaign", "case").read_bytes() == ending.encode()


def test_what_is_no_label(tmp_path):
    with pytest.raises(NotFound):
        keep_truth(tmp_path, "case", tmp_path / "none.nii.gz")
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(InputError, match="Convert it"):
        keep_truth(tmp_path, "case", tmp_path / "a.txt")
