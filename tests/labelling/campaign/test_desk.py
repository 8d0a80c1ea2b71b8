"""MONAI Label's contract on top of a campaign: leases, drafts, submissions, hidden readings."""

import random

import numpy as np
import pytest
from builders import ball, grid

from slicecast.campaign.campaign import Campaign
from slicecast.campaign.choose import Rules
from slicecast.campaign.events import Kind
from slicecast.campaign.state import Status
from slicecast.campaign.store import EventStore
from slicecast.errors import Conflict, NotFound
from slicecast.inference.caller import Caller, calling
from slicecast.labelling.campaign.desk import CampaignDesk, Leased, open_desk
from slicecast.labelling.selection.strategies import strategies
from slicecast.volume import Volume, write_volume

SIGNS = [0.4, 1.0, 0.5, 0.9, 1.0, 2.0, 0.8]
"""A row of `active/calibration`."""

CONFIDENCE = [{"slice": n, "value": 0.8} for n in range(16)]


@pytest.fixture
def open_campaign_desk(store, tmp_path):
    def open_(**rules):
        given = Rules(**{"second_share": 0.0, "gold_share": 0.0, **rules})
        events = EventStore(f"sqlite:///{tmp_path}/campaign.db")
        campaign = Campaign(events, rules=given, rng=random.Random(0))
        return CampaignDesk(campaign, datastore=lambda: store, folder=tmp_path / "campaign")

    return open_


@pytest.fixture
def desk(open_campaign_desk):
    return open_campaign_desk()


@pytest.fixture
def mask(tmp_path):
    """Write a ball as a label file."""
    return lambda radius=5.0, name="mask.nii.gz": write_volume(
        tmp_path / name, Volume(ball(radius=radius).astype(np.uint8), grid())
    )


def ask(desk, who, *, address="", strategy="first"):
    leased = Leased(strategies()[strategy], strategy, desk)
    with calling(Caller(name=who, address=address)):
        return leased({"strategy": strategy}, None)


def as_(who, address=""):
    return calling(Caller(name=who, address=address))


def test_two_people_get_two_images(desk):
    answers = [ask(desk, who) for who in ("ann", "bob", "cid")]
    assert [answer and answer["id"] for answer in answers] == ["first", "second", None]
    assert answers[0]["lease"] == {"holder": "ann", "seconds": Rules().lease_s} and answers[0]["reason"]


def test_a_label_of_anothers_case_is_refused_and_nothing_saved(desk, store, mask):
    ask(desk, "ann")
    with as_("bob"), pytest.raises(Conflict, match="with ann for another 30 min"):
        desk.save("first", mask(), tag="final", info={})
    assert store.get_labeled_images() == []


def test_a_saved_label_is_an_event(desk, store, mask):
    ask(desk, "ann")
    with as_("ann"):
        desk.save("first", mask(), tag="final", info={"label_info": [{"name": "ball", "idx": 1}]})
        desk.save("first", mask(4.0), tag="final", info={"active_s": 12.5})
    readings = desk.campaign.state().case("first").readings
    assert [r.data["version"] for r in readings] == [1, 2] and readings[1].active_s == 12.5
    assert readings[0].data["sha256"] != readings[1].data["sha256"]
    assert store.get_label_info("first", "final")["user"] == "ann"


def test_a_pre_annotation_is_no_event(desk, mask):
    with as_("ann"):
        desk.save("first", mask(), tag="original", info={})
    assert Kind.SUBMITTED not in {event.kind for event in desk.campaign.store.read()}


def test_the_last_result_can_be_submitted(desk, store, mask):
    ask(desk, "ann")
    params = {"confidence": CONFIDENCE, "axis": "axial", "mean_confidence": 0.8, "signs": {"8": SIGNS}}
    with as_("ann"):
        desk.remember("first", mask(), request={"model": "sam2", "ball": [[1, 2, 3]]}, params=params, model="w:1")
        desk.submit_draft("first", "ann")
    desk.wait()
    case = desk.campaign.state().case("first")
    assert case.status is Status.SUBMITTED and case.readings[0].data["model_hash"] == "w:1"
    assert case.prediction["prompts"] == {"ball": [[1, 2, 3]]}
    assert case.comparisons[0]["against"] == "draft" and case.comparisons[0]["dice"] == 1.0
    assert case.comparisons[0]["signs"] == [[*SIGNS, 1.0]] and case.comparisons[0]["model_hash"] == "w:1"


def test_submitted_labels_teach_whoever_wants_to_learn(desk, mask):
    learnt = []
    desk.teach(learnt.append)
    ask(desk, "ann")
    params = {"axis": "axial", "signs": {str(n): SIGNS for n in range(16)}}
    with as_("ann"):
        desk.remember("first", mask(), request={"model": "sam2"}, params=params, model="w:1")
        desk.submit_draft("first", "ann")
    desk.wait()
    assert [found.slices for found in learnt] == [0, 16] and learnt[1].model == "w:1" and learnt[1].method == "raw"


def test_what_is_compared_is_the_first_answer(desk, mask):
    ask(desk, "ann")
    with as_("ann"):
        for radius in (4.0, 5.0):
            params = {"confidence": CONFIDENCE, "axis": "axial"}
            desk.remember("first", mask(radius), request={"model": "sam2"}, params=params, model="w:1")
        desk.submit_draft("first", "ann")
    desk.wait()
    assert 0.5 < desk.campaign.state().case("first").comparisons[0]["dice"] < 0.9


def test_nothing_to_submit(desk):
    desk.sync()
    with as_("ann"), pytest.raises(NotFound, match="no draft"):
        desk.submit_draft("first", "ann")


def test_a_second_reading_leaves_the_first_alone(open_campaign_desk, store, mask):
    desk = open_campaign_desk(second_share=1.0)
    ask(desk, "ann")
    with as_("ann"):
        desk.save("first", mask(5.0), tag="final", info={})
    ask(desk, "cid")  # holds the other one
    answer = ask(desk, "bob")
    assert answer["id"] == "first"
    with as_("bob"):
        desk.save("first", mask(4.0, "other.nii.gz"), tag="final", info={})
    desk.wait()
    case = desk.campaign.state().case("first")
    found = next(c for c in case.comparisons if c["against"] == "second")
    assert 0.5 < found["dice"] < 0.9 and found["hd95_mm"] > 0 and case.readings[0].who == "ann"
    assert store.get_label_info("first", "final")["user"] == "ann"


def test_gold_is_compared_with_its_truth_and_stays_unlabelled(open_campaign_desk, store, mask):
    desk = open_campaign_desk(gold_share=1.0)
    desk.add_gold("second", mask(5.0, "truth.nii.gz"), "root")
    assert ask(desk, "ann")["id"] == "second"
    with as_("ann"):
        desk.save("second", mask(5.0), tag="final", info={})
    desk.wait()
    assert [c["dice"] for c in desk.campaign.state().case("second").comparisons] == [1.0]
    assert store.get_labeled_images() == []


def test_a_nameless_client_is_the_holder_at_its_address(desk, mask):
    ask(desk, "user-xyz", address="10.0.0.7")
    with calling(Caller(address="10.0.0.7")):
        assert desk.who("first") == "user-xyz"
        desk.save("first", mask(), tag="final", info={})
    with calling(Caller(address="10.0.0.8")):
        assert desk.who("first") == "10.0.0.8"
    assert desk.campaign.state().case("first").readings[0].who == "user-xyz"


def test_what_a_nameless_client_holds_yields_to_a_name_at_its_address(desk, mask):
    leased = Leased(strategies()["first"], "first", desk)
    with calling(Caller(address="10.0.0.7")):
        assert leased({}, None)["id"] == "first"
    with as_("bob", "10.0.0.9"), pytest.raises(Conflict):
        desk.save("first", mask(), tag="final", info={})
    with as_("ann", "10.0.0.7"):
        desk.save("first", mask(), tag="final", info={})


def test_labels_saved_while_the_server_was_down_are_found(desk, store, mask):
    desk.sync()
    store.save_label("first", str(mask()), "final", {})
    assert desk.recover() == ["first"] and desk.recover() == []
    assert desk.campaign.state().case("first").status is Status.SUBMITTED


def test_a_removed_label_opens_its_case(desk, store, mask):
    with as_("ann"):
        desk.save("first", mask(), tag="final", info={})
    store.remove_label("first", "final")
    assert ask(desk, "bob")["id"] == "first"


def test_the_queue_is_in_the_strategys_order(desk, store):
    desk.sync()
    store.update_image_info("second", {"last_result": {"confidence": 0.25}})
    assert [(c.case, c.reason) for c in desk.queue(strategies()["confidence"])] == [
        ("second", "mean slice confidence 0.25"),
        ("first", "no mask yet"),
    ]
    assert [c.case for c in desk.queue(strategies()["random"])] == ["first", "second"]


def test_a_desk_lies_beside_the_studies(store, studies):
    desk = open_desk(studies, datastore=lambda: store)
    desk.sync()
    assert (studies / "campaign" / "campaign.db").is_file() and set(desk.campaign.state().cases) == {"first", "second"}
