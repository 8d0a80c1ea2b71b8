"""Who gets which case."""

import random

from slicecast.campaign.campaign import Choice, choose_next, read_twice
from slicecast.campaign.events import GENESIS, Draft, Kind, chain
from slicecast.campaign.settings import CampaignSettings
from slicecast.campaign.state import ReadingTask, fold

LEASE = {"until": 100.0}


def after(*drafts):
    added = [Draft(Kind.ADDED, name, "server") for name in "abc"]
    return fold(chain([*added, *drafts], number=0, previous=GENESIS, when_s=0.0))


def pick(state, who="ann", *, now_s=1.0, avoid=None, **rules):
    return choose_next(
        state,
        who,
        available=sorted(state.cases),
        ranking=lambda names: [Choice(name, "by name") for name in names],
        rules=CampaignSettings(**{"second_share": 0.0, "gold_share": 0.0, **rules}),
        rng=random.Random(0),
        now_s=now_s,
        avoid=avoid,
    )


def test_the_rankings_first():
    assert pick(after()).case == "a"


def test_what_another_holds_is_not_offered_until_the_lease_is_over():
    state = after(Draft(Kind.LEASED, "a", "bob", LEASE))
    assert pick(state, now_s=99.9).case == "b" and pick(state, now_s=100.0).case == "a"


def test_what_was_handed_back_is_not_given_again_at_once():
    assert pick(after(), avoid="a").case == "b"


def test_the_only_one_left_is_given_again():
    done = [Draft(Kind.SUBMITTED, name, "bob") for name in "bc"]
    assert pick(after(*done), avoid="a").case == "a"


def test_a_skipped_case_goes_to_others_first():
    state = after(Draft(Kind.SKIPPED, "a", "ann"))
    assert pick(state).case == "b" and pick(state, "bob").case == "a"


def test_a_skipped_case_comes_back_when_nothing_else_is_left():
    state = after(Draft(Kind.SKIPPED, "a", "ann"), *[Draft(Kind.SUBMITTED, name, "bob") for name in "bc"])
    assert pick(state).case == "a" and "skipped" in pick(state).reason


def test_a_rejected_case_that_was_skipped_comes_back_too():
    done = [Draft(Kind.SUBMITTED, name, "ann") for name in "abc"]
    state = after(*done, Draft(Kind.REJECTED, "a", "rita", {"why": "hole"}), Draft(Kind.SKIPPED, "a", "ann"))
    assert pick(state).case == "a"


def test_a_rejected_case_goes_first_to_who_did_it():
    submitted = [Draft(Kind.SUBMITTED, "b", "bob"), Draft(Kind.SUBMITTED, "c", "ann")]
    judged = [Draft(Kind.REJECTED, name, "rita", {"why": "hole"}) for name in "bc"]
    assert pick(after(*submitted, *judged)).case == "c"
    assert pick(after(*submitted, *judged)).reason == "rejected in review: hole"


def test_a_case_that_needs_review_is_not_offered():
    assert pick(after(Draft(Kind.FLAGGED, "a", "bob"))).case == "b"


def test_a_second_reader_is_another_person():
    state = after(*[Draft(Kind.SUBMITTED, name, "bob") for name in "abc"])
    assert pick(state, "bob", second_share=1.0) is None
    assert pick(state, "ann", second_share=1.0).task is ReadingTask.SECOND
    assert pick(state, "ann") is None


def test_two_second_readers_are_not_asked_for():
    drafts = [Draft(Kind.SUBMITTED, name, "bob") for name in "abc"]
    drafts += [Draft(Kind.SUBMITTED, name, "cid", {"task": "second"}) for name in "abc"]
    assert pick(after(*drafts), second_share=1.0) is None


def test_the_share_read_twice_is_what_was_asked_for():
    chosen = [read_twice(f"case-{n}", CampaignSettings(second_share=0.2)) for n in range(2000)]
    assert 0.17 < sum(chosen) / 2000 < 0.23
    assert chosen == [read_twice(f"case-{n}", CampaignSettings(second_share=0.2)) for n in range(2000)]


def test_gold_is_given_once_to_each_and_looks_like_any_other():
    gold = Draft(Kind.GOLD, "b", "root")
    choice = pick(after(gold), gold_share=1.0)
    assert (choice.case, choice.task) == ("b", ReadingTask.GOLD) and "gold" not in choice.reason
    read = Draft(Kind.SUBMITTED, "b", "ann", {"task": "gold"})
    assert pick(after(gold, read), gold_share=1.0).case == "a"
    assert pick(after(gold, read), "bob", gold_share=1.0).case == "b"


def test_gold_is_never_an_ordinary_case():
    done = [Draft(Kind.SUBMITTED, name, "bob") for name in "bc"]
    assert pick(after(Draft(Kind.GOLD, "a", "root"), *done)) is None


def test_a_ranking_that_knows_nothing():
    state = after()
    nothing = choose_next(
        state,
        "ann",
        available=["a"],
        ranking=lambda names: [],
        rules=CampaignSettings(gold_share=0.0),
        rng=random.Random(0),
        now_s=1.0,
    )
    assert nothing is None
