"""MONAI Label's contract on top of a campaign: leases, drafts, submissions, hidden readings."""

import errno
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import ball, grid
from labelserver import ROOT

from slicecast.campaign.campaign import Campaign
from slicecast.campaign.events import EventStore, Kind
from slicecast.campaign.settings import CampaignSettings
from slicecast.campaign.state import Status
from slicecast.errors import Conflict, InputError, NotFound
from slicecast.inference.caller import Caller, calling
from slicecast.labelling.app import Leased
from slicecast.labelling.campaign.service import CampaignService, open_campaign_service
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.labelling.strategies import strategies
from slicecast.labelling.tasks.answer import InferAnswer
from slicecast.labelling.tasks.request import MAX_NUMBERS, bounded, prompts_of
from slicecast.volume import Volume, write_volume

FEATURES = [0.4, 1.0, 0.5, 0.9, 1.0, 2.0, 0.8]
"""A row of `active/calibration`."""

CONFIDENCE = [{"slice": n, "value": 0.8} for n in range(16)]


@pytest.fixture
def make_service(store, tmp_path):
    def open_(**rules):
        given = CampaignSettings(**{"second_share": 0.0, "gold_share": 0.0, **rules})
        events = EventStore(f"sqlite:///{tmp_path}/campaign.db")
        campaign = Campaign(events, rules=given, rng=random.Random(0))
        return CampaignService(campaign, datastore=lambda: store, folder=tmp_path / "campaign")

    return open_


@pytest.fixture
def service(make_service):
    return make_service()


@pytest.fixture
def mask(tmp_path):
    """Write a ball as a label file."""
    return lambda radius=5.0, name="mask.nii.gz": write_volume(
        tmp_path / name, Volume(ball(radius=radius).astype(np.uint8), grid())
    )


def ask(service, who, *, address="", strategy="first"):
    leased = Leased(strategies()[strategy], strategy, service)
    with calling(Caller(name=who, address=address)):
        return leased({"strategy": strategy}, None)


def as_(who, address=""):
    return calling(Caller(name=who, address=address))


def test_two_people_get_two_images(service):
    answers = [ask(service, who) for who in ("ann", "bob", "cid")]
    assert [answer and answer["id"] for answer in answers] == ["first", "second", None]
    assert answers[0]["lease"] == {"holder": "ann", "seconds": CampaignSettings().lease_s} and answers[0]["reason"]


def test_a_label_of_anothers_case_is_refused_and_nothing_saved(service, store, mask):
    ask(service, "ann")
    with as_("bob"), pytest.raises(Conflict, match="with ann for another 30 min"):
        service.save("first", mask(), tag="final", info={})
    assert store.get_labeled_images() == []


@pytest.mark.parametrize(("role", "may"), [("annotator", False), ("reviewer", True), ("admin", True)])
def test_a_reviewer_may_label_what_somebody_holds(service, store, mask, role, may):
    ask(service, "ann")
    with calling(Caller(user="rita", roles=frozenset({role}))):
        if may:
            service.save("first", mask(), tag="final", info={})
        else:
            with pytest.raises(Conflict, match="with ann"):
                service.save("first", mask(), tag="final", info={})
    assert store.get_labeled_images() == ["first"] * may


def test_an_approved_label_changes_only_through_review(service, store, mask):
    with as_("ann"):
        service.save("first", mask(), tag="final", info={})
        service.campaign.approve("first", "rita")
        before = service.campaign.state().number, store.get_label_info("first", "final")
        with pytest.raises(Conflict, match="approved"):
            service.save("first", mask(4.0), tag="final", info={})
        with pytest.raises(Conflict, match="approved"):
            service.campaign.flag("first", "ann")
    assert (service.campaign.state().number, store.get_label_info("first", "final")) == before
    with pytest.raises(InputError, match="Give the reason"):
        service.campaign.reject("first", "rita", why=" ")
    service.campaign.reject("first", "rita", why="the tip is missing")
    with as_("ann"):
        service.save("first", mask(4.0), tag="final", info={})
    assert service.campaign.state().case("first").status is Status.SUBMITTED


@pytest.mark.parametrize("tag", ["second-ann-0a1b2c", "gold-x", "Second-ann", "Final", "VERSIONS"])
def test_tags_that_nobody_may_write(service, store, mask, tag):
    with as_("bob"), pytest.raises(InputError, match="tag"):
        service.save("first", mask(), tag=tag, info={})
    assert not store.get_label_uri("first", tag)


def test_a_label_whose_event_cannot_be_written_is_put_back(service, store, mask, monkeypatch):
    with as_("ann"):
        service.save("first", mask(), tag="final", info={})
        before = Path(store.get_label_uri("first", "final")).read_bytes(), store.get_label_info("first", "final")

        def full(*anything, **more):
            raise OSError(errno.ENOSPC, "No space left on device")

        for image in ("first", "second"):
            monkeypatch.setattr(service.campaign, "submitted", full)
            with pytest.raises(OSError, match="No space"):
                service.save(image, mask(4.0), tag="final", info={})
    monkeypatch.undo()
    file = Path(store.get_label_uri("first", "final"))
    assert (file.read_bytes(), store.get_label_info("first", "final")) == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert store.get_labeled_images() == ["first"] and service.recover() == []


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from slicecast.labelling.campaign.service import open_campaign_service
from slicecast.labelling.store.studies import StudiesDatastore

def opened(folder):
    store = StudiesDatastore(str(folder), extensions=["*.nii.gz"])
    return store, open_campaign_service(folder, datastore=lambda: store)

def killed_at(step, folder, label):
    store, service = opened(folder)
    service.sync()
    done = 0
    def tick(event, args):
        nonlocal done
        if event in ("open", "os.rename", "os.link", "os.remove", "sqlite3.connect") and folder.name in str(args):
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(tick)
    service.save("first", label, tag="final", info={"label_info": [{"name": "new", "idx": 1}]}, client_id="ann")

def in_a_child(work, *given):  # so that this process has no threads, with which it must not fork
    child = os.fork()
    if not child:
        work(*given)
        os._exit(0)
    return os.waitpid(child, 0)[1]

def what_is_left(folder, ended):
    store, service = opened(folder)
    service.recover()
    service.wait()
    named = (store.get_label_info("first", "final") or {}).get("label_info") == [{"name": "new", "idx": 1}]
    events = [event for event in service.campaign.store.read() if event.kind == "submitted"]
    noted = list((folder / "campaign" / "submissions").glob("*"))
    print(int(named), len(events), len(noted), int(ended == 0), flush=True)

for step in range(1, 400, 5):
    folder = Path(sys.argv[1]).with_name(f"killed-{step}")
    shutil.copytree(sys.argv[1], folder)
    ended = in_a_child(killed_at, step, folder, Path(sys.argv[2]))
    in_a_child(what_is_left, folder, ended)
    if ended == 0:
        break
os._exit(0)
"""


def test_killed_at_any_step_label_and_event_agree(studies, mask):
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(studies), str(mask())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines() if line]
    assert len(rows) >= 8 and rows[-1] == (1, 1, 0, 1), done.stderr
    assert [row for row in rows if row[0] != row[1] or row[2]] == [], "label without event, or event without label"
    assert {row[0] for row in rows} == {0, 1}


def test_a_saved_label_is_an_event(service, store, mask):
    ask(service, "ann")
    with as_("ann"):
        service.save("first", mask(), tag="final", info={"label_info": [{"name": "ball", "idx": 1}]})
        service.save("first", mask(4.0), tag="final", info={"active_s": 12.5})
    readings = service.campaign.state().case("first").readings
    assert [r.data["version"] for r in readings] == [1, 2] and readings[1].active_s == 12.5
    assert readings[0].data["sha256"] != readings[1].data["sha256"]
    assert store.get_label_info("first", "final")["user"] == "ann"


def test_a_pre_annotation_is_no_event(service, mask):
    with as_("ann"):
        service.save("first", mask(), tag="original", info={})
    assert Kind.SUBMITTED not in {event.kind for event in service.campaign.store.read()}


def test_the_last_result_can_be_submitted(service, store, mask):
    ask(service, "ann")
    params = {"confidence": CONFIDENCE, "axis": "axial", "mean_confidence": 0.8}
    with as_("ann"):
        answer = InferAnswer(mask(), params, {"8": FEATURES})
        service.remember("first", answer, request={"model": "sam2", "ball": [[1, 2, 3]]}, model="w:1")
        service.submit_draft("first", "ann")
    service.wait()
    case = service.campaign.state().case("first")
    assert case.status is Status.SUBMITTED and case.readings[0].data["model_hash"] == "w:1"
    assert case.prediction["prompts"] == {"ball": [[1, 2, 3]]}
    assert case.comparisons[0]["against"] == "draft" and case.comparisons[0]["dice"] == 1.0
    assert case.comparisons[0]["signs"] == [[*FEATURES, 1.0]] and case.comparisons[0]["model_hash"] == "w:1"


def test_submitted_labels_teach_whoever_wants_to_learn(service, mask):
    learnt = []
    service.teach(learnt.append)
    ask(service, "ann")
    with as_("ann"):
        answer = InferAnswer(mask(), {"axis": "axial"}, {str(n): FEATURES for n in range(16)})
        service.remember("first", answer, request={"model": "sam2"}, model="w:1")
        service.submit_draft("first", "ann")
    service.wait()
    assert [found.slices for found in learnt] == [0, 16] and learnt[1].model == "w:1" and learnt[1].method == "raw"


def test_what_is_compared_is_the_first_answer(service, mask):
    ask(service, "ann")
    with as_("ann"):
        for radius in (4.0, 5.0):
            answer = InferAnswer(mask(radius), {"confidence": CONFIDENCE, "axis": "axial"})
            service.remember("first", answer, request={"model": "sam2"}, model="w:1")
        service.submit_draft("first", "ann")
    service.wait()
    assert 0.5 < service.campaign.state().case("first").comparisons[0]["dice"] < 0.9


def test_nothing_to_submit(service):
    service.sync()
    with as_("ann"), pytest.raises(NotFound, match="no draft"):
        service.submit_draft("first", "ann")


def read_twice(make_service, mask):
    """Return a service of which ann has read the first case, and bob is asked to read it again."""
    service = make_service(second_share=1.0)
    ask(service, "ann")
    with as_("ann"):
        service.save("first", mask(5.0), tag="final", info={})
    ask(service, "cid")  # holds the other one
    assert ask(service, "bob")["id"] == "first"
    return service


def test_a_second_reading_leaves_the_first_alone(make_service, store, mask):
    service = read_twice(make_service, mask)
    with as_("bob"):
        service.save("first", mask(4.0, "other.nii.gz"), tag="final", info={})
    service.wait()
    case = service.campaign.state().case("first")
    found = next(c for c in case.comparisons if c["against"] == "second")
    assert 0.5 < found["dice"] < 0.9 and found["hd95_mm"] > 0 and case.readings[0].who == "ann"
    assert store.get_label_info("first", "final")["user"] == "ann"


def test_readings_are_compared_by_the_names_of_their_structures(make_service, tmp_path):
    """Slicer numbers the segments of each label from 1."""
    service, parts = make_service(second_share=1.0), {"liver": ball() * (np.arange(24) < 12)}
    parts["spleen"] = ball() & ~parts["liver"].astype(bool)

    def save(who, **numbers):
        array = sum(value * parts[name].astype(np.uint8) for name, value in numbers.items())
        file = write_volume(tmp_path / f"{who}.nii.gz", Volume(array, grid()))
        told = {"label_info": [{"name": name, "idx": value} for name, value in numbers.items()]}
        with as_(who):
            service.save("first", file, tag="final", info=told)
        service.wait()

    ask(service, "ann")
    save("ann", liver=1, spleen=2)
    ask(service, "cid")  # holds the other one
    assert ask(service, "bob")["id"] == "first"
    save("bob", spleen=1)
    (found,) = [c for c in service.campaign.state().case("first").comparisons if c["against"] == "second"]
    assert sorted(found["by_value"].values()) == [0.0, 1.0]  # bob drew no liver, and the same spleen


def test_a_second_reading_that_is_sent_again_replaces_itself(make_service, store, mask):
    service = read_twice(make_service, mask)
    with as_("bob"):
        for radius in (4.0, 4.5):
            service.save("first", mask(radius, "other.nii.gz"), tag="final", info={})
    assert [str(reading.task) for reading in service.campaign.state().case("first").readings] == [
        "annotate",
        "second",
        "second",
    ]
    assert store.get_label_info("first", "final")["user"] == "ann"


def test_gold_is_compared_with_its_truth_and_stays_unlabelled(make_service, store, mask):
    service = make_service(gold_share=1.0)
    service.add_gold("second", mask(5.0, "truth.nii.gz"), "root")
    assert ask(service, "ann")["id"] == "second"
    with as_("ann"):
        service.save("second", mask(5.0), tag="final", info={})
    service.wait()
    assert [c["dice"] for c in service.campaign.state().case("second").comparisons] == [1.0]
    assert store.get_labeled_images() == []


def test_a_nameless_client_is_the_holder_at_its_address(service, mask):
    ask(service, "user-xyz", address="10.0.0.7")
    with calling(Caller(address="10.0.0.7")):
        assert service.who("first") == "user-xyz"
        service.save("first", mask(), tag="final", info={})
    with calling(Caller(address="10.0.0.8")):
        assert service.who("first") == "10.0.0.8"
    assert service.campaign.state().case("first").readings[0].who == "user-xyz"


def test_what_a_nameless_client_holds_yields_to_a_name_at_its_address(service, mask):
    leased = Leased(strategies()["first"], "first", service)
    with calling(Caller(address="10.0.0.7")):
        assert leased({}, None)["id"] == "first"
    with as_("bob", "10.0.0.9"), pytest.raises(Conflict):
        service.save("first", mask(), tag="final", info={})
    with as_("ann", "10.0.0.7"):
        service.save("first", mask(), tag="final", info={})


def test_labels_saved_while_the_server_was_down_are_found(service, store, mask):
    service.sync()
    service.dropped.wait()
    store.save_label("first", str(mask()), "final", {})
    assert service.recover() == ["first"] and service.recover() == []
    assert service.campaign.state().case("first").status is Status.SUBMITTED


def test_a_removed_label_opens_its_case(service, store, mask):
    with as_("ann"):
        service.save("first", mask(), tag="final", info={})
    store.remove_label("first", "final")
    assert ask(service, "bob")["id"] == "first"


def test_a_label_that_is_submitted_while_cases_are_looked_at_stays_its_annotators(service, store, mask, monkeypatch):
    ask(service, "ann")
    look = store.unusable

    def meanwhile():
        monkeypatch.setattr(store, "unusable", look)
        with as_("ann"):
            service.save("first", mask(), tag="final", info={})
        return look()

    monkeypatch.setattr(store, "unusable", meanwhile)
    service.sync()
    case = service.campaign.state().case("first")
    assert case.status is Status.SUBMITTED and [reading.who for reading in case.readings] == ["ann"]


def test_the_queue_is_in_the_strategys_order(service):
    service.sync()
    assert [(c.case, c.reason) for c in service.queue(strategies()["first"])] == [
        ("first", "number 1 of 2 by name"),
        ("second", "number 2 of 2 by name"),
    ]
    assert [c.case for c in service.queue(strategies()["random"])] == ["first", "second"]


def test_a_campaign_lies_beside_the_studies(store, studies):
    service = open_campaign_service(studies, datastore=lambda: store)
    service.sync()
    assert (studies / "campaign" / "campaign.db").is_file() and set(service.campaign.state().cases) == {
        "first",
        "second",
    }


def test_a_dicom_case_is_called_by_patient_and_description(tmp_path):
    studies = Path(shutil.copytree(ROOT / "sample-data" / "dicom", tmp_path / "studies"))
    store = StudiesDatastore(str(studies), extensions=["*.nii.gz"])
    service = open_campaign_service(studies, datastore=lambda: store)
    (uid,) = service.sync()
    info = store.get_image_info(uid)
    assert info["PatientID"] and info["SeriesDescription"]
    assert service.title(uid) == f"{info['PatientID']} · {info['SeriesDescription']}"
    assert service.title("first") == "first"
    store.deliveries.close()


def test_points_by_label_and_the_rest_by_key():
    request = {"model": "sam2", "image": "x", "spleen": [[1, 2, 3]], "background": [], "roi": [1, 2, 3, 4, 5, 6]}
    assert prompts_of({**request, "label_names": ["a"]}) == {"spleen": [[1, 2, 3]], "roi": [1, 2, 3, 4, 5, 6]}


def test_of_many_only_the_number():
    assert prompts_of({"foreground": [[0, 0, n] for n in range(MAX_NUMBERS)], "axis": "axial"}) == {
        "foreground": MAX_NUMBERS,
        "axis": "axial",
    }
    lines = {"vein": [[[0, 0, n] for n in range(MAX_NUMBERS)]]}
    assert prompts_of({"lines": lines}) == {"lines": 1} and bounded({"lines": lines}) == {"lines": {"vein": 1}}
    assert prompts_of({"lines": {"vein": [[[0, 0, 1], [2, 2, 2]]]}}) == {"lines": {"vein": [[[0, 0, 1], [2, 2, 2]]]}}


@pytest.fixture
def damaged(tmp_path):
    """A service on studies in which only `good` can be segmented."""
    studies = tmp_path / "studies"
    (studies / "below").mkdir(parents=True)
    whole = write_volume(studies / "good.nii.gz", Volume(ball().astype(np.int16), grid())).read_bytes()
    (studies / "below" / "nested.nii.gz").write_bytes(whole)
    (studies / "cut.nii.gz").write_bytes(whole[:-200])
    (studies / "empty.nii.gz").touch()
    store = StudiesDatastore(str(studies), extensions=["*.nii.gz"])
    return open_campaign_service(studies, datastore=lambda: store)


def test_what_cannot_be_segmented_never_enters_the_queue(damaged):
    for strategy in ("random", "first"):
        assert ask(damaged, f"ann {strategy}", strategy=strategy)["id"] == "good"
        damaged.campaign.release("good", f"ann {strategy}")
    damaged.wait()
    assert damaged.unusable().keys() == {"cut", "empty"} and "cut off" in damaged.unusable()["cut"]
    assert damaged.sync() == ["good"]
    assert [choice.case for choice in damaged.queue(strategies()["first"])] == ["good"]


def test_a_file_that_was_mended_comes_back(damaged, tmp_path):
    damaged.sync()
    damaged.wait()
    studies = tmp_path / "studies"
    (studies / "cut.nii.gz").write_bytes((studies / "good.nii.gz").read_bytes())
    assert damaged.why_unusable("cut") == "" and damaged.sync() == ["cut", "good"]


def test_a_deleted_image_leaves_the_queue(damaged, tmp_path):
    assert ask(damaged, "ann")["id"] == "good"
    damaged.campaign.release("good", "ann")
    (tmp_path / "studies" / "good.nii.gz").unlink()
    assert ask(damaged, "ann") is None
    assert damaged.queue(strategies()["first"]) == []
