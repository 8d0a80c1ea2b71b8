"""A campaign's settings, from `configs/campaign.yaml`, and the files in its folder."""

from dataclasses import dataclass
from pathlib import Path

from slicecast.campaign.events import sqlite_url
from slicecast.config import build, read_config, require_numbers
from slicecast.errors import InputError, NotFound
from slicecast.files import file_sha256, place_file
from slicecast.volume.reading import WRITTEN_ENDINGS

FILE = "campaign.yaml"

FOLDER = "campaign"  # In the studies' folder: events, drafts, truths of gold cases

DATABASE = "campaign.db"

GOLD = "gold"  # Folder in the campaign's: true labels of gold cases, named after their cases


@dataclass(frozen=True, slots=True)
class CampaignSettings:
    """What `configs/campaign.yaml` says; raises ConfigError if a value is out of range."""

    database: str = ""  # any SQLAlchemy URL; empty for a SQLite file in the campaign's folder
    lease_s: float = 1800.0  # how long a lease lasts without a sign of life
    second_share: float = 0.0  # share of the cases, 0 to 1, that a second person reads too
    gold_share: float = 0.05  # chance, 0 to 1, that the next case is a hidden gold one, while there are any
    seed: int = 0  # of the choice of the cases to be read twice

    def __post_init__(self) -> None:
        require_numbers(self, "second_share", "gold_share", low=0, high=1, whole=False, where=FILE)
        require_numbers(self, "lease_s", low=10, high=7 * 24 * 3600, whole=False, where=FILE)

    def url(self, folder: Path) -> str:
        """Return the database's address for a campaign in `folder`."""
        return self.database or sqlite_url(folder / DATABASE)


def campaign_settings() -> CampaignSettings:
    """Read `configs/campaign.yaml`.

    Raises:
        ConfigError: the file is missing, or a setting is unknown or out of range.
    """
    return build(CampaignSettings, read_config(FILE), where=FILE)


def keep_truth(folder: Path, case: str, truth: Path) -> str:
    """Copy a label file into the campaign's folder, in place of the case's truth before; return its SHA-256.

    Raises:
        NotFound: there is no such file.
        InputError: its format is no label's.
    """
    if not truth.is_file():
        raise NotFound(f"There is no file {truth}. Give the case's true label.")
    ending = next((ending for ending in WRITTEN_ENDINGS if truth.name.endswith(ending)), None)
    if ending is None:
        raise InputError(f"{truth} ends in none of {', '.join(WRITTEN_ENDINGS)}. Convert it.")
    target = folder / GOLD / f"{case}{ending}"
    target.parent.mkdir(parents=True, exist_ok=True)
    place_file(truth, target)
    for other in {folder / GOLD / f"{case}{ending}" for ending in WRITTEN_ENDINGS} - {target}:
        other.unlink(missing_ok=True)  # the truth before, in another format
    return file_sha256(target)


def find_truth(folder: Path, case: str) -> Path | None:
    """Return a case's true label, or None."""
    found = (folder / GOLD / f"{case}{ending}" for ending in WRITTEN_ENDINGS)
    return next((path for path in found if path.is_file()), None)
