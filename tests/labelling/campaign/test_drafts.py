"""The last result of each person is kept."""

from pathlib import Path

import numpy as np
import pytest
from builders import ball, grid, stored_as

from slicecast.campaign.campaign import Campaign
from slicecast.campaign.events import EventStore
from slicecast.campaign.state import Status
from slicecast.errors import Conflict, InputError, NotFound
from slicecast.inference.caller import Caller, calling
from slicecast.labelling.campaign.drafts import BEFORE, STEPS, Drafts
from slicecast.labelling.campaign.service import CampaignService
from slicecast.labelling.tasks.answer import InferAnswer
from slicecast.volume import Volume, read_volume, write_volume


def test_the_last_one_is_kept(tmp_path):
    drafts, mask = Drafts(tmp_path / "drafts"), tmp_path / "x.nrrd"
    for content, when_s in (b"one", 1.0), (b"two", 2.0):
        mask.write_bytes(content)
        drafts.keep("case", "ann", mask, {"when_s": when_s})
    found = drafts.find("case", "ann")
    assert found.file.read_bytes() == b"two" and found.record["who"] == "ann"
    assert drafts.find("case", "bob") is None and drafts.find("other", "ann") is None


def test_changes_are_taken_back_one_by_one(tmp_path):
    drafts, mask = Drafts(tmp_path / "drafts"), tmp_path / "x.nrrd"
    for number in range(STEPS + 3):
        mask.write_bytes(str(number).encode())
        drafts.keep("case", "ann", mask, {"when_s": float(number)})
    files = [*(tmp_path / "drafts").rglob("*.nrrd")]
    assert len(files) == STEPS + 1
    for number in range(STEPS + 1, 1, -1):
        assert drafts.back("case", "ann")
        found = drafts.find("case", "ann")
        assert (found.file.read_bytes(), found.record["when_s"]) == (str(number).encode(), number)
        assert BEFORE not in found.record
    assert drafts.back("case", "ann") and drafts.find("case", "ann") is None
    assert not drafts.back("case", "ann") and not [*(tmp_path / "drafts").rglob("*.nrrd")]


def test_the_newest_of_all(tmp_path):
    drafts, mask = Drafts(tmp_path), tmp_path / "x.nii.gz"
    mask.write_bytes(b"x")
    drafts.keep("case", "ann", mask, {"when_s": 5.0})
    drafts.keep("case", "../bob", mask, {"when_s": 4.0})
    assert drafts.latest("case").record["who"] == "ann" and drafts.latest("none") is None


def test_a_draft_that_is_forgotten_while_it_is_looked_for_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: True)  # it was there a moment ago
    assert Drafts(tmp_path).first("case", "ann") is None


def test_the_first_one_is_kept_until_it_is_forgotten(tmp_path):
    drafts, mask = Drafts(tmp_path), tmp_path / "x.nii.gz"
    for content in (b"one", b"two"):
        mask.write_bytes(content)
        drafts.keep("case", "ann", mask, {"when_s": 1.0})
        drafts.keep_first("case", "ann", mask, {"when_s": 9.0})
    assert drafts.latest("case").record["when_s"] == 1.0
    assert drafts.first("case", "ann").file.read_bytes() == b"one"
    drafts.forget_first("case", "ann")
    assert drafts.first("case", "ann") is None and drafts.find("case", "ann").file.read_bytes() == b"two"
    drafts.keep_first("case", "ann", mask, {"when_s": 2.0})
    assert drafts.first("case", "ann").file.read_bytes() == b"two"


LABELS = ("liver", "spleen", "kidney")


@pytest.fixture
def service(store, tmp_path):
    campaign = Campaign(EventStore(f"sqlite:///{tmp_path}/campaign.db"))
    return CampaignService(campaign, datastore=lambda: store, folder=tmp_path / "campaign", labels=LABELS)


@pytest.fixture
def run(service, tmp_path):
    """Answer a request of a person: an array or volume, its names, maybe the slice it is about."""

    def run(who, array, values, *, case="first", slice=None):
        volume = array if isinstance(array, Volume) else Volume(array.astype(np.uint8), grid())
        info = [{"name": name, "idx": value} for name, value in values.items()]
        answer = InferAnswer(write_volume(tmp_path / "answer.nrrd", volume), {"label_info": info}, slice=slice)
        with calling(Caller(name=who)):
            service.remember(case, answer, request={"model": "sam2"}, model="w:1")
        return answer

    return run


def submit(service, who, **more):
    with calling(Caller(name=who)):
        return service.submit_draft("first", who, **more)


def voxels(service, who, case="first"):
    now = service.work.structures(service.work.current(case, who))
    return {name: found["voxels"] for name, found in now.objects().items()}


LEFT, RIGHT = ball(centre_ijk=(5, 10, 8), radius=3.0), ball(centre_ijk=(17, 10, 8), radius=4.0)


def test_a_second_structure_never_removes_the_first(service, store, run):
    run("ann", LEFT, {"spleen": 1})  # a task for one structure numbers it 1
    run("ann", RIGHT * 3, {"kidney": 3})  # the task for several as the app does
    run("ann", ball(centre_ijk=(5, 10, 8), radius=2.0), {"spleen": 1})  # the same one replaces itself
    sent = submit(service, "ann")
    label = read_volume(store.get_label_uri("first", "final")).array
    small = ball(centre_ijk=(5, 10, 8), radius=2.0)
    assert np.array_equal(label == 2, small) and np.array_equal(label == 3, RIGHT)
    assert sent["saved"] == {
        "spleen": {"value": 2, "voxels": int(small.sum()), "ml": pytest.approx(small.sum() / 1000, abs=1e-3)},
        "kidney": {"value": 3, "voxels": int(RIGHT.sum()), "ml": pytest.approx(RIGHT.sum() / 1000, abs=1e-3)},
    }
    assert store.get_label_info("first", "final")["label_info"] == [
        {"name": "spleen", "idx": 2},
        {"name": "kidney", "idx": 3},
    ]


def test_a_new_structure_takes_no_voxel_of_another(service, run):
    run("ann", LEFT, {"spleen": 1})
    run("ann", np.ones_like(LEFT), {"tumour": 1})
    assert voxels(service, "ann") == {"spleen": LEFT.sum(), "tumour": LEFT.size - LEFT.sum()}


def test_an_answer_in_another_storage_order_lands_in_its_place(service, store, run):
    run("ann", LEFT, {"liver": 1})
    turned = stored_as(Volume(RIGHT.astype(np.uint8), grid()), (0, 1, 2), (False, False, True))
    run("ann", turned, {"spleen": 1})
    submit(service, "ann")
    label = read_volume(store.get_label_uri("first", "final"))
    assert np.array_equal(label.array == 1, LEFT) and np.array_equal(label.array == 2, RIGHT)


def test_a_slice_replaces_that_slice_only(service, run):
    run("ann", LEFT, {"liver": 1})
    one = np.zeros_like(LEFT)
    one[8, 2, 2] = True
    run("ann", one, {"liver": 1}, slice=8)
    assert voxels(service, "ann") == {"liver": LEFT.sum() - LEFT[8].sum() + 1}


def test_what_has_no_name_is_not_kept(service, run):
    answer = run("ann", LEFT, {"object": 1})
    assert service.work.current("first", "ann") is None and "which structure" in answer.params["warnings"][0]


def test_a_structure_can_be_left_out(service, run):
    run("ann", LEFT, {"liver": 1})
    run("ann", RIGHT, {"spleen": 1})
    service.work.drop("first", "ann", "liver")
    assert voxels(service, "ann") == {"spleen": RIGHT.sum()}
    with pytest.raises(NotFound, match="no structure 'liver'"):
        service.work.drop("first", "ann", "liver")


def test_what_changed_since_it_was_shown_is_not_submitted(service, store, run):
    run("ann", LEFT, {"liver": 1})
    shown = service.work.current("first", "ann").record["when_s"]
    run("ann", RIGHT, {"spleen": 1})
    with pytest.raises(Conflict, match="newer result"):
        submit(service, "ann", shown=shown)
    assert store.get_labeled_images() == []


def test_an_older_draft_never_replaces_a_newer_label(service, store, run, tmp_path):
    run("ann", LEFT, {"liver": 1})
    with calling(Caller(name="ann")):
        file = write_volume(tmp_path / "own.nii.gz", Volume(RIGHT.astype(np.uint8), grid()))
        service.save("first", file, tag="final", info={"label_info": [{"name": "spleen", "idx": 1}]})
    with pytest.raises(NotFound):
        submit(service, "ann")
    assert voxels(service, "ann") == {"spleen": RIGHT.sum()}


@pytest.mark.parametrize("approved", [False, True])
def test_the_next_annotator_starts_from_the_label_that_was_sent_back(service, store, run, approved):
    run("ann", LEFT, {"liver": 1})
    submit(service, "ann")
    if approved:
        service.campaign.approve("first", "rita")
        with pytest.raises(InputError, match="Give the reason"):
            service.send_back("first", "rita", why="", approved=True)
    service.send_back("first", "rita", why="no spleen", approved=approved)
    start = store.get_label_info("first", "original")  # what Slicer loads with Next Sample
    assert start["params"]["label_names"] == {"liver": 1}
    assert np.array_equal(read_volume(store.get_label_uri("first", "original")).array, LEFT)
    assert voxels(service, "bob") == {"liver": LEFT.sum()}  # what OHIF shows
    run("bob", RIGHT, {"spleen": 1})
    submit(service, "bob")
    assert voxels(service, "cid") == {"liver": LEFT.sum(), "spleen": RIGHT.sum()}
    assert not store.get_label_uri("first", "original")  # a second reader must not see it
    assert service.campaign.state().case("first").status is Status.SUBMITTED


def test_a_label_that_is_not_approved_is_not_opened_again(service, run):
    run("ann", LEFT, {"liver": 1})
    submit(service, "ann")
    with pytest.raises(Conflict, match="not approved"):
        service.send_back("first", "rita", why="x", approved=True)


def test_what_is_compared_is_the_structures_of_the_first_answer(service, run):
    run("ann", RIGHT, {"kidney": 1})
    run("ann", LEFT, {"liver": 1})
    submit(service, "ann")
    service.wait()
    assert [c["dice"] for c in service.campaign.state().case("first").comparisons] == [1.0]


def test_an_approved_label_is_neither_removed_nor_renamed(service, store, run):
    run("ann", LEFT, {"liver": 1})
    submit(service, "ann")
    service.campaign.approve("first", "rita")
    with calling(Caller(name="ann")):
        for change in (
            lambda: service.remove_label("first", "final"),
            lambda: service.update_label_info("first", "final", {"label_info": []}),
        ):
            with pytest.raises(Conflict, match="approved"):
                change()
        service.campaign.reject("first", "rita", why="again")
        service.update_label_info("first", "final", {"note": "seen"})
        service.remove_label("first", "final")
    assert service.campaign.state().case("first").status is Status.REJECTED and store.get_labeled_images() == []
