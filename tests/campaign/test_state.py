"""Events add up to the same state, whole or in parts."""

from hypothesis import given
from hypothesis import strategies as st

from slicecast.campaign.events import GENESIS, Draft, Kind, chain
from slicecast.campaign.state import IDLE_GAP_S, ReadingTask, Status, fold


def at(*steps):
    """Chain (seconds, kind, who, data) for case `a`."""
    events = []
    for when_s, kind, who, data in steps:
        previous = events[-1].digest if events else GENESIS
        events += chain([Draft(kind, "a", who, data)], number=len(events), previous=previous, when_s=when_s)
    return events


LEASE = {"until": 1000.0, "task": "annotate", "reason": "why"}


def test_active_time_counts_gaps_up_to_the_idle_gap():
    steps = [(0, Kind.LEASED, "ann", LEASE), (20, Kind.PREDICTED, "ann", {}), (500, Kind.PREDICTED, "ann", {})]
    case = fold(at(*steps, (510, Kind.SUBMITTED, "ann", {}))).case("a")
    assert case.readings[0].active_s == 20 + IDLE_GAP_S + 10


def test_a_client_that_measured_active_time_itself_is_believed():
    case = fold(at((0, Kind.LEASED, "ann", LEASE), (50, Kind.SUBMITTED, "ann", {"active_s": 7.5}))).case("a")
    assert case.readings[0].active_s == 7.5


def test_coming_back_later_is_not_work():
    steps = [(0, Kind.LEASED, "ann", LEASE), (10, Kind.RELEASED, "ann", {}), (9000, Kind.LEASED, "ann", LEASE)]
    case = fold(at(*steps, (9005, Kind.SUBMITTED, "ann", {}))).case("a")
    assert case.readings[0].active_s == 15


def test_the_life_of_a_case():
    steps = [
        (0, Kind.ADDED, "server", {"labelled": False}),
        (1, Kind.LEASED, "ann", LEASE),
        (2, Kind.SUBMITTED, "ann", {"tag": "final"}),
        (3, Kind.REJECTED, "rita", {"why": "too large"}),
        (4, Kind.SUBMITTED, "ann", {"tag": "final"}),
        (5, Kind.APPROVED, "rita", {}),
    ]
    events = at(*steps)
    seen = [fold(events[:n]).case("a").status for n in range(1, 7)]
    assert seen == ["open", "open", "submitted", "rejected", "submitted", "approved"]
    assert fold(events[:4]).case("a").note == "too large" and fold(events).case("a").lease is None


def test_a_second_reading_leaves_the_status():
    steps = [(0, Kind.ADDED, "server", {}), (1, Kind.SUBMITTED, "ann", {}), (2, Kind.APPROVED, "rita", {})]
    case = fold(at(*steps, (3, Kind.SUBMITTED, "bob", {"task": "second"}))).case("a")
    assert case.status is Status.APPROVED and case.reading(ReadingTask.SECOND).who == "bob"


def test_a_case_that_was_labelled_before_is_not_asked_for():
    assert fold(at((0, Kind.ADDED, "server", {"labelled": True}))).case("a").status is Status.SUBMITTED


kinds = st.sampled_from([Kind.LEASED, Kind.RENEWED, Kind.PREDICTED, Kind.SUBMITTED, Kind.SKIPPED, Kind.RELEASED])


@given(st.lists(st.tuples(st.floats(0, 1e6), kinds, st.sampled_from(["ann", "bob"])), max_size=12), st.integers(0, 12))
def test_folding_in_two_parts_is_folding_at_once(steps, cut):
    events = at(*[(when, kind, who, LEASE) for when, kind, who in sorted(steps, key=lambda step: step[0])])
    first = fold(events[:cut])
    before = dict(first.cases)
    assert fold(events[cut:], first) == fold(events)
    assert dict(first.cases) == before  # the given state stays as it is
