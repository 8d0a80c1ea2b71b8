"""Files that somebody puts into `labels/final` become labels as any other, or are listed with a reason."""

import shutil
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from builders import ball, grid

from slicecast.campaign.state import ReadingTask, Status
from slicecast.errors import Conflict, ResourceError
from slicecast.inference.caller import Caller, calling
from slicecast.labelling.campaign.drafts import MaskDraft
from slicecast.labelling.campaign.dropped import AGAIN_S, ANOTHER, STRANGE
from slicecast.labelling.campaign.service import open_campaign_service
from slicecast.labelling.store.datastore import SafeDatastore
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


def drop(studies, name, array=None, geometry=None, tag="final"):
    file = studies.parent / name
    array = ball(radius=5.0).astype(np.uint8) if array is None else array
    write_volume(file, Volume(array, geometry or grid()))
    (studies / "labels" / tag).mkdir(parents=True, exist_ok=True)
    shutil.copy(file, studies / "labels" / tag / name)


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


def test_a_file_that_goes_while_it_looks_stops_it_from_no_other(service, studies):
    drop(studies, "first.nii.gz")
    drop(studies, "second.nii.gz")
    submit, listed = service.dropped._submit, threading.Event()
    service.dropped._submit = lambda image, file: listed.set() or submit(image, file)
    with service._intents.alone():
        service.sync()
        assert listed.wait(timeout=60)
        (studies / "labels" / "final" / "first.nii.gz").unlink()
    service.wait()
    status = {case.name: case.status for case in service.campaign.state().cases.values()}
    assert (status["first"], status["second"]) == (Status.OPEN, Status.SUBMITTED)


def names(service, store, tag="final"):
    found = MaskDraft(Path(store.get_label_uri("first", tag)), store.get_label_info("first", tag))
    return dict(service.work.structures(found).values)


def served(studies, *labels):
    """Serve the studies with other labels."""
    store = StudiesDatastore(str(studies), extensions=["*.nii.gz", "*.nrrd"], labels=labels)
    service = open_campaign_service(studies, datastore=lambda: store, labels=labels)
    service.recover()
    return service, store


@pytest.mark.parametrize("tag", ["final", "original"])
def test_a_label_keeps_the_names_with_which_it_was_first_seen(service, store, studies, tag):
    drop(studies, "first.nii.gz", tag=tag)
    store.refresh()
    looked(service)
    assert names(service, store, tag) == {"ball": 1}
    again, other = served(studies, "rim", "ball")
    assert names(again, other, tag) == {"ball": 1}
    assert again.campaign.state().case("first").status is (Status.SUBMITTED if tag == "final" else Status.OPEN)


def test_a_label_of_before_the_campaign_keeps_its_names_too(studies):
    drop(studies, "first.nii.gz")
    SafeDatastore(str(studies), extensions=["*.nii.gz"])  # lists it, and knows no names
    names_of = {labels: names(*served(studies, *labels)) for labels in (("ball", "rim"), ("rim", "ball"))}
    assert names_of == {("ball", "rim"): {"ball": 1}, ("rim", "ball"): {"ball": 1}}


def test_a_list_of_labels_that_was_lost_takes_no_names_with_it(service, store, studies):
    drop(studies, "first.nii.gz")
    file = studies / "labels" / "final" / "first.nii.gz"
    info = {"label_info": [{"name": "rim", "idx": 1}]}
    service.save("first", shutil.move(file, studies.parent / "mine.nii.gz"), tag="final", info=info, client_id="ann")
    (studies / "datastore_v2.json").write_text('{"objects": {"fir')
    again, other = served(studies, "ball")
    assert names(again, other) == {"rim": 1}
    assert other.get_label_info("first", "final")["user"] == "ann"


def test_a_label_that_a_kill_left_begun_is_its_annotators(service, store, studies):
    begun = Submission("first", "first", "ann", ReadingTask.ANNOTATE, "final", after=service.campaign.state().number)
    drop(studies, "first.nii.gz")
    service._intents._jobs().put(studies / "labels" / "final" / "first.nii.gz", asdict(begun))
    looked(service)
    assert service.campaign.state().case("first").readings == ()
    assert service.recover() == ["first"]
    assert [reading.who for reading in service.campaign.state().case("first").readings] == ["ann"]


@pytest.mark.parametrize("failure", [ResourceError("The PACS is away."), OSError(28, "No space left on device")])
def test_what_a_kill_left_begun_waits_while_it_cannot_be_finished(service, studies, monkeypatch, failure):
    begun = Submission("first", "first", "ann", ReadingTask.ANNOTATE, "final", after=service.campaign.state().number)
    drop(studies, "first.nii.gz")
    service._intents._jobs().put(studies / "labels" / "final" / "first.nii.gz", asdict(begun))

    def fails(*args, **kwargs):
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(service.campaign, "submitted", fails)
        assert service.recover() == [] and service._intents.wait_for("first")
    assert service.recover() == ["first"] and not service._intents.wait_for("first")
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
