"""What people may do, also fifty at a time."""

import multiprocessing
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from slicecast.campaign.campaign import Campaign, Choice, hidden, steady_clock, words_for
from slicecast.campaign.events import EventStore, Kind
from slicecast.campaign.settings import CampaignSettings
from slicecast.campaign.state import ReadingTask, Status
from slicecast.errors import Conflict, InputError, UnknownImage

LEASE_S = CampaignSettings().lease_s


def test_two_people_get_two_cases(open_campaign, ask):
    campaign = open_campaign()
    assert [ask(campaign, who).case for who in ("ann", "bob", "cid")] == ["a", "b", "c"]


def test_asking_again_hands_back(open_campaign, ask):
    campaign = open_campaign()
    assert [ask(campaign, "ann").case, ask(campaign, "ann").case, ask(campaign, "bob").case] == ["a", "b", "a"]


def test_another_persons_case_is_a_conflict_with_name_and_time(open_campaign, ask, clock):
    campaign = open_campaign()
    ask(campaign, "ann")
    clock.wait(LEASE_S - 60)
    with pytest.raises(Conflict, match="'a' is with ann for another 60 s"):
        campaign.take("a", "bob")
    with pytest.raises(Conflict):
        campaign.submitted("a", "bob", {})
    clock.wait(60)
    assert campaign.take("a", "bob").who == "bob"


def test_a_heartbeat_prolongs(open_campaign, ask, clock):
    campaign = open_campaign()
    ask(campaign, "ann")
    clock.wait(LEASE_S - 1)
    campaign.heartbeat("a", "ann")
    clock.wait(LEASE_S - 1)
    with pytest.raises(Conflict):
        campaign.take("a", "bob")


def test_a_heartbeat_that_comes_too_late(open_campaign, ask, clock):
    campaign = open_campaign()
    ask(campaign, "ann")
    clock.wait(LEASE_S)
    with pytest.raises(Conflict, match="is over"):
        campaign.heartbeat("a", "ann")
    campaign.take("a", "bob")
    with pytest.raises(Conflict, match="with bob"):
        campaign.heartbeat("a", "ann")


def test_a_second_reading_that_took_too_long_stays_one(open_campaign, ask, clock):
    campaign = open_campaign("a", second_share=1.0)
    campaign.submitted("a", "ann", {})
    assert ask(campaign, "bob").task is ReadingTask.SECOND
    clock.wait(LEASE_S)
    assert campaign.take("a", "bob").task is ReadingTask.SECOND
    clock.wait(LEASE_S)
    campaign.reject("a", "rita", why="hole")
    assert campaign.take("a", "bob").task is ReadingTask.ANNOTATE


@pytest.mark.parametrize("flagged", [False, True])
def test_a_second_reader_who_opens_the_case_again_corrects_their_own_reading(open_campaign, ask, flagged):
    campaign = open_campaign("a", second_share=1.0)
    campaign.submitted("a", "ann", {})
    campaign.submitted("a", "bob", {}, task=ask(campaign, "bob").task)
    if flagged:
        campaign.flag("a", "ann", why="odd")
    assert campaign.task_of("a", "bob") is ReadingTask.SECOND
    assert campaign.take("a", "bob").task is ReadingTask.SECOND
    campaign.release("a", "bob")
    campaign.reject("a", "rita", why="hole")  # from now on anybody does it anew
    assert campaign.take("a", "bob").task is ReadingTask.ANNOTATE


def test_a_click_is_a_sign_of_life(open_campaign, ask, clock):
    campaign = open_campaign()
    ask(campaign, "ann")
    clock.wait(LEASE_S * 0.6)
    campaign.predicted("a", "ann", {"model": "sam2"})
    clock.wait(LEASE_S * 0.6)
    with pytest.raises(Conflict):
        campaign.take("a", "bob")
    assert campaign.state().case("a").prediction["model"] == "sam2"


def test_submit_review_reject_again_approve(open_campaign, ask):
    campaign = open_campaign("a")
    ask(campaign, "ann")
    campaign.submitted("a", "ann", {"tag": "final", "version": 1})
    assert ask(campaign, "bob") is None
    campaign.reject("a", "rita", why="the tail is missing", asked={"slice": 3, "axis": "axial"})
    assert campaign.state().case("a").asked == {"slice": 3, "axis": "axial"}
    assert ask(campaign, "ann").reason == "rejected in review: the tail is missing"
    campaign.submitted("a", "ann", {"tag": "final", "version": 2})
    campaign.approve("a", "rita")
    assert campaign.state().case("a").status is Status.APPROVED


def test_nobody_approves_their_own(open_campaign):
    campaign = open_campaign()
    campaign.submitted("a", "ann", {})
    with pytest.raises(Conflict, match="Another person"):
        campaign.approve("a", "ann")


def test_there_must_be_something_to_judge(open_campaign):
    campaign = open_campaign()
    with pytest.raises(Conflict, match="no label"):
        campaign.approve("a", "rita")
    campaign.flag("a", "ann", why="two kidneys?")
    with pytest.raises(Conflict, match="no label yet"):
        campaign.approve("a", "rita")
    campaign.reject("a", "rita", why="label both")
    assert campaign.state().case("a").status is Status.REJECTED


def test_unknown_cases_and_long_reasons(open_campaign):
    campaign = open_campaign()
    with pytest.raises(UnknownImage):
        campaign.skip("zz", "ann")
    with pytest.raises(InputError, match="501 characters"):
        campaign.skip("a", "ann", why="x" * 501)


def test_gold_is_hidden_from_annotators(open_campaign, ask):
    campaign = open_campaign("ab", gold_share=1.0)
    campaign.add_gold("b", "root", truth_sha256="00")
    assert ask(campaign, "ann").case == "b"
    assert campaign.task_of("b", "ann") is ReadingTask.GOLD
    shown = hidden(campaign.state().case("b"))
    assert not shown.gold and shown.lease.task is ReadingTask.ANNOTATE


def test_cases_are_added_once(open_campaign):
    campaign = open_campaign("ab")
    assert campaign.add({"a": False, "b": True, "c": True}) == 1
    assert campaign.state().case("c").status is Status.SUBMITTED
    assert campaign.add({"a": False, "b": True, "c": True}) == 0


def test_a_case_whose_label_is_gone_is_open_again(open_campaign, ask):
    campaign = open_campaign("ab")
    campaign.submitted("a", "ann", {})
    assert campaign.reopen({"a", "b"}) == 1 and campaign.reopen({"a", "b"}) == 0
    assert ask(campaign, "bob").case == "a" and campaign.verify() is None


def test_a_clock_that_runs_back_does_not_reach_the_list(open_campaign, ask, clock):
    campaign = open_campaign()
    clock.wait(-3600)
    ask(campaign, "ann")
    times = [event.when_s for event in campaign.store.read()]
    assert times == sorted(times)


def test_the_slice_asked_for_is_forgotten_once_answered(open_campaign):
    campaign = open_campaign()
    campaign.ask_slice("a", "ann", number=12, axis="axial")
    assert campaign.state().case("a").asked == {"slice": 12, "axis": "axial"}
    campaign.predicted("a", "ann", {})
    assert campaign.state().case("a").asked is None


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (1800, "30 min")])
def test_times_in_words(seconds, said):
    assert words_for(seconds) == said


CASES = [f"case-{n:03d}" for n in range(300)]


def work(url, people, submits):
    """Play annotators: ask, label most, skip some, until nothing is left for them."""
    campaign = Campaign(
        EventStore(url), rules=CampaignSettings(second_share=0.2, gold_share=0.1), rng=random.Random(people[0])
    )

    def shuffled(names):
        return [Choice(name, "by chance") for name in random.Random(people[0]).sample(list(names), len(names))]

    def play(who):
        for _ in range(submits):
            choice = campaign.next_case(who, available=CASES, ranking=shuffled)
            if choice is None:
                return
            campaign.predicted(choice.case, who, {"model": "sam2"})
            campaign.submitted(choice.case, who, {"tag": "final"}, task=choice.task)

    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(play, [f"person-{n}" for n in people]))


def double_leases(events):
    """Return leases that were given while another person's still held."""
    held, double = {}, []
    for event in events:
        holder = held.get(event.case)
        if event.kind is Kind.LEASED:
            if holder and holder[0] != event.who and event.when_s < holder[1]:
                double.append(event)
            held[event.case] = (event.who, event.data["until"])
        elif event.kind in (Kind.RELEASED, Kind.SUBMITTED, Kind.SKIPPED) and holder and holder[0] == event.who:
            del held[event.case]
    return double


@pytest.mark.slow
def test_fifty_people_at_once(store, url):
    campaign = Campaign(store)
    campaign.add(dict.fromkeys(CASES, False))
    context = multiprocessing.get_context("spawn")
    groups = [list(range(start, start + 10)) for start in range(0, 50, 10)]
    with context.Pool(5) as pool:
        pool.starmap(work, [(url, group, 4) for group in groups])
    check(store, people=50)


def test_eight_people_at_once(store, url):
    campaign = Campaign(store)
    campaign.add(dict.fromkeys(CASES, False))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda group: work(url, group, 3), [[0, 1, 2, 3], [4, 5, 6, 7]]))
    check(store, people=8)


def check(store, *, people):
    events = store.read()
    counts = Counter(event.kind for event in events)
    assert store.verify() is None
    assert len({event.who for event in events} - {"server"}) == people
    assert double_leases(events) == []
    assert counts[Kind.LEASED] == counts[Kind.PREDICTED] == counts[Kind.SUBMITTED] > 0
    firsts = Counter(e.case for e in events if e.kind is Kind.SUBMITTED and e.data["task"] == "annotate")
    assert max(firsts.values()) == 1


def test_leases_end_by_the_time_that_passed():
    """Whoever sets the computer's clock neither ends nor prolongs them."""
    times = {"wall": 1000.0, "passed": 5.0}
    clock = steady_clock(lambda: times["wall"], lambda: times["passed"])
    assert clock() == 1000.0
    times.update(wall=9999.0, passed=35.0)
    assert clock() == 1030.0
