"""What `configs/campaign.yaml` may say."""

from pathlib import Path

import pytest

from slicecast.campaign.settings import CampaignSettings, campaign_settings
from slicecast.errors import ConfigError


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
