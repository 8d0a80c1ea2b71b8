"""A campaign's settings, from `configs/campaign.yaml`, and where it lies."""

import math
from dataclasses import dataclass
from pathlib import Path

from slicecast.campaign.choose import Rules
from slicecast.campaign.store import sqlite_url
from slicecast.config import build, read_config
from slicecast.errors import ConfigError

FILE = "campaign.yaml"

FOLDER = "campaign"
"""In the studies' folder: events, drafts, truths of gold cases."""

DATABASE = "campaign.db"


@dataclass(frozen=True, slots=True)
class CampaignSettings:
    """What `configs/campaign.yaml` says.

    Args:
        database: any SQLAlchemy URL; empty for a SQLite file in the campaign's folder.
        lease_s: how long a lease lasts without a sign of life.
        second_share: share of the cases, 0 to 1, that a second person reads too.
        gold_share: chance, 0 to 1, that the next case is a hidden gold one, while there are any.
        seed: of the choice of the cases to be read twice.

    Raises:
        ConfigError: a value is out of range.
    """

    database: str = ""
    lease_s: float = 1800.0
    second_share: float = 0.0
    gold_share: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("second_share", "gold_share"):
            _require_number(name, getattr(self, name), low=0.0, high=1.0)
        _require_number("lease_s", self.lease_s, low=10.0, high=7 * 24 * 3600.0)

    @property
    def rules(self) -> Rules:
        """What the choice of cases needs to know."""
        return Rules(lease_s=self.lease_s, second_share=self.second_share, gold_share=self.gold_share, seed=self.seed)

    def url(self, folder: Path) -> str:
        """Return the database's address for a campaign in `folder`."""
        return self.database or sqlite_url(folder / DATABASE)


def campaign_settings() -> CampaignSettings:
    """Read `configs/campaign.yaml`.

    Raises:
        ConfigError: the file is missing, or a setting is unknown or out of range.
    """
    return build(CampaignSettings, read_config(FILE), where=FILE)


def _require_number(name: str, value: object, *, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and low <= value <= high):  # type: ignore[operator]
        raise ConfigError(f"The setting {name} in {FILE} is {value!r}; give a number from {low:g} to {high:g}.")
