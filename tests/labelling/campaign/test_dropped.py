"""Files that somebody puts into `labels/final` become labels as any other, or are listed with a reason."""

import shutil
from dataclasses import asdict

import numpy as np
import pytest
from builders import ball, grid

from slicecast.campaign.state import ReadingTask, Status
from slicecast.errors import Conflict
from slicecast.inference.caller import Caller, calling
from slicecast.labelling.campaign.dropped import AGAIN_S, ANOTHER, STRANGE
from slicecast.labelling.campaign.service import open_campaign_service
from slicecast.labelling.store.delivery import Submission
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.volume import Volume, write_volume


@pytest.fixture
def store(studies):
    """The opened studies."""
    store = StudiesDatastore(str(studies), extensions=["*.nii.gz", "*.nrrd"], labels=["ball", "rim"])
    yield store
    store.deliveries.close()


@pytest.fixture
def service(store, studies):
    """A campaign that has begun."""
    service = open_campaign_service(studies, datastore=lambda: store, labels=["ball", "rim"])
    service.recover()
    return service


def drop(studies, name, array=None, geometry=None):
    file = studies.parent / name
    array = ball(radius=5.0).astype(np.uint8) if array is None else array
    write_volume(file, Volume(array, geometry or grid()))
    (studies / "labels" / "final").mkdir(parents=True, exist_ok=True)
    shutil.copy(file, studies / "labels" / "final" / name)


def looked(service):
    service.sync()
    service.wait()


def test_a_label_is_taken_up_while_the_server_runs(service, store, studies):
    drop(studies, "first.nii.gz", ball(radius=5.0) * 2.0)
    looked(service)
    assert service.campaign.state().case("first").status is Status.SUBMITTED and service.dropped.refused == {}
    events = [event for event in service.campaign.store.read() if event.kind == "submitted"]
    assert [(event.who, event.data["found"]) for event in events] == [("server", True)]
    assert store.get_labeled_images() == ["first"] and store.get_label_info("first", "final")["user"] == "server"
    looked(service)
    assert len([event for event in service.campaign.store.read() if event.kind == "submitted"]) == 1


def test_a_label_that_a_kill_left_begun_is_its_annotators(service, store, studies):
    begun = Submission("first", "first", "ann", ReadingTask.ANNOTATE, "final", after=service.campaign.state().number)
    drop(studies, "first.nii.gz")
    service._intents._jobs().put(studies / "labels" / "final" / "first.nii.gz", asdict(begun))
    looked(service)
    assert service.campaign.state().case("first").readings == ()
    assert service.recover() == ["first"]
    assert [reading.who for reading in service.campaign.state().case("first").readings] == ["ann"]


def test_what_a_killed_command_left_begun_does_not_replace_a_later_label(service, store, studies, tmp_path):
    service.sync()
    begun = Submission("first", "first", "eve", ReadingTask.ANNOTATE, "final", after=service.campaign.state().number)
    file = write_volume(tmp_path / "label.nii.gz", Volume(ball(radius=3.0).astype(np.uint8), grid()))
    service._intents._jobs().put(file, asdict(begun))
    with calling(Caller(name="ann")):
        service.save("first", write_volume(file, Volume(ball().astype(np.uint8), grid())), tag="final", info={})
    assert service.recover() == [] and service._intents._jobs().waiting() == []
    assert [reading.who for reading in service.campaign.state().case("first").readings] == ["ann"]
    assert store.get_label_info("first", "final")["user"] == "ann"


@pytest.mark.parametrize(
    ("array", "geometry", "why"),
    [
        (ball(radius=5.0) * 0.5, None, "fractions"),
        (ball(radius=5.0).astype(np.uint8) * 7, None, "no name"),
        (np.zeros((9, 9, 9), np.uint8), "small", "grid"),
    ],
)
def test_what_is_no_label_is_listed_and_is_none(service, store, studies, array, geometry, why):
    drop(studies, "first.nii.gz", array, grid((9, 9, 9)) if geometry else None)
    looked(service)
    assert why in service.dropped.refused["first.nii.gz"]
    assert store.get_labeled_images() == [] and "first" in store.get_unlabeled_images()
    assert service.campaign.state().case("first").status is Status.OPEN
    drop(studies, "first.nrrd")
    looked(service)
    assert store.get_labeled_images() == ["first"] and list(service.dropped.refused) == ["first.nii.gz"]


def test_names_that_fit_nothing_and_second_files_are_listed(service, store, studies, tmp_path):
    with calling(Caller(name="ann")):
        mask = write_volume(tmp_path / "mask.nii.gz", Volume(ball(radius=5.0).astype(np.uint8), grid()))
        service.save("first", mask, tag="final", info={})
    drop(studies, "first.nrrd")
    drop(studies, "nobody.nii.gz")
    (studies / "labels" / "final" / "notes.txt").write_text("mine")
    looked(service)
    assert service.dropped.refused == {"first.nrrd": ANOTHER, "nobody.nii.gz": STRANGE, "notes.txt": STRANGE}
    assert service.campaign.state().case("first").reading(ReadingTask.ANNOTATE).who == "ann"


def test_a_label_that_was_changed_in_the_folder_is_no_longer_anybodys(service, store, studies, tmp_path):
    with calling(Caller(name="ann")):
        mask = write_volume(tmp_path / "mask.nii.gz", Volume(ball(radius=5.0).astype(np.uint8), grid()))
        service.save("first", mask, tag="final", info={})
    looked(service)
    assert service.dropped.changed == {}
    file = studies / "labels" / "final" / "first.nii.gz"
    submitted = file.read_bytes()
    other = write_volume(tmp_path / "other.nii.gz", Volume(ball(radius=3.0).astype(np.uint8), grid()))
    with file.open("wb") as stream:  # in place: the folder has not changed
        stream.write(other.read_bytes())
    service.dropped._looked_s -= AGAIN_S + 1
    looked(service)
    assert "not what ann submitted" in service.dropped.changed["first.nii.gz"]
    with pytest.raises(Conflict, match="not what ann submitted"):
        service.approve("first", "rita")
    file.write_bytes(submitted)
    service.dropped._looked_s -= AGAIN_S + 1
    looked(service)
    assert service.dropped.changed == {}
    service.approve("first", "rita")


def test_what_somebody_holds_waits_for_them(service, store, studies):
    service.campaign.take("first", "ann")
    drop(studies, "first.nii.gz")
    looked(service)
    assert "with ann" in service.dropped.refused["first.nii.gz"] and store.get_labeled_images() == []
    service.campaign.release("first", "ann")
    assert service.dropped.look() == ["first"] and service.dropped.refused == {}
