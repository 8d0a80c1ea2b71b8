"""The chain holds, and shows every change."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.campaign.events import GENESIS, Draft, Kind, chain, find_damage

EVENTS = chain(
    [Draft(Kind.ADDED, name, "server", {"labelled": False}) for name in "abcdef"],
    number=0,
    previous=GENESIS,
    when_s=1.5,
)


def test_an_untouched_chain_holds():
    assert find_damage(EVENTS) is None and find_damage([]) is None


def test_a_chain_continues():
    later = chain([Draft(Kind.APPROVED, "a", "rita")], number=6, previous=EVENTS[-1].digest, when_s=2.0)
    assert find_damage([*EVENTS, *later]) is None and later[0].number == 7


@pytest.mark.parametrize(
    "change",
    [{"who": "eve"}, {"when_s": 1.6}, {"case": "z"}, {"data": {"labelled": True}}, {"kind": Kind.APPROVED}],
)
def test_a_changed_event_is_found(change):
    events = [*EVENTS]
    events[2] = replace(events[2], **change)
    assert find_damage(events).number == 3


@given(st.integers(0, 4))
def test_a_removed_event_is_found(place):
    assert find_damage([*EVENTS[:place], *EVENTS[place + 1 :]]).number == place + 1


@given(st.permutations(EVENTS))
def test_another_order_is_found(events):
    assert (find_damage(events) is None) is (events == EVENTS)


def test_renumbering_does_not_hide_a_removed_event():
    events = [replace(event, number=place) for place, event in enumerate(EVENTS[1:], start=1)]
    assert find_damage(events).number == 1


def test_no_number_is_not_json():
    with pytest.raises(ValueError, match="JSON"):
        chain([Draft(Kind.COMPARED, "a", "server", {"hd95_mm": float("nan")})], number=0, previous=GENESIS, when_s=0)
