"""A campaign with a clock that stands still until told."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from slicecast.campaign.campaign import Campaign, Choice
from slicecast.campaign.events import EventStore, sqlite_url
from slicecast.campaign.settings import CampaignSettings

NOON_S = 1_700_000_000.0


class Clock:
    """Says the same time until it is moved on."""

    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "campaign.db")


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    store = EventStore(url)
    yield store
    store.close()


@pytest.fixture
def open_campaign(store: EventStore, clock: Clock):
    """Open a campaign on five cases; rules by keyword."""

    def open_(cases: str = "abcde", **rules) -> Campaign:
        given = {"second_share": 0.0, "gold_share": 0.0, **rules}
        campaign = Campaign(store, rules=CampaignSettings(**given), rng=random.Random(0), clock=clock)
        campaign.add(dict.fromkeys(cases, False))
        return campaign

    return open_


@pytest.fixture
def ask():
    """Ask for a person's next case, in the order of the names."""

    def ask_(campaign: Campaign, who: str):
        names = sorted(campaign.state().cases)
        return campaign.next_case(who, available=names, ranking=by_name)

    return ask_


def by_name(names):
    return [Choice(name, f"first by name of {len(names)}") for name in names]
