"""What is shown, and what is hidden."""

from types import SimpleNamespace

import pytest
from builders import ORIENTATIONS, phantom, stored_as

from slicecast.campaign.state import Case, Lease, Reading, ReadingTask, Status
from slicecast.server.campaign.view import _row as row
from slicecast.server.campaign.view import ohif_link, viewer_number
from slicecast.volume import Reorientation, SliceAxis

SECOND = Lease("bob", 1e12, ReadingTask.SECOND)
READING = Reading("ann", 5.0, ReadingTask.ANNOTATE, "final", 60.0)


def service():
    return SimpleNamespace(study_uid=lambda name: "1.2 3" if name == "a" else None, title=str)


def test_a_second_reader_does_not_see_the_first_label():
    case = Case("a", Status.SUBMITTED, readings=(READING,), lease=SECOND, prediction={"mean_confidence": 0.4})
    shown = row(service(), case, 0.0, {}, "bob")
    assert (shown["annotator"], shown["minutes"], shown["confidence"]) == ("", None, None)
    assert row(service(), case, 0.0, {}, "rita")["annotator"] == "ann"


def test_a_gold_case_looks_like_any_other():
    assert row(service(), Case("a", gold=True), 0.0, {}, "ann")["status"] == "open"
    read = Case("a", gold=True, readings=(Reading("ann", 5.0, ReadingTask.GOLD, "gold-ann", 60.0),))
    assert row(service(), read, 0.0, {}, "ann")["status"] == "submitted"


def test_the_way_into_ohif():
    assert ohif_link(service(), "a") == "/ohif/monai-label?StudyInstanceUIDs=1.2+3"
    assert ohif_link(service(), "b") is None


@pytest.mark.parametrize(("permutation", "flips"), ORIENTATIONS[::5])
def test_the_number_that_ohif_shows(permutation, flips):
    """From the head, from the patient's right and from the back, however the scan is stored."""
    stored = stored_as(phantom().volume, permutation, flips).geometry
    turn = Reorientation.of(stored)
    for axis, wanted in ((SliceAxis.SAGITTAL, 4), (SliceAxis.CORONAL, 17), (SliceAxis.AXIAL, 13)):
        assert viewer_number(turn, axis, turn.to_source_slice(axis, 3)) == wanted
    oblique = Reorientation.of(phantom("oblique").volume.geometry)
    assert viewer_number(oblique, SliceAxis.AXIAL, 3) is None
