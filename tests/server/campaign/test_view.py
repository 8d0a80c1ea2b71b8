"""What is shown, and what is hidden."""

from types import SimpleNamespace

from slicecast.campaign.state import Case, Lease, Reading, ReadingTask, Status
from slicecast.server.campaign.view import _row as row
from slicecast.server.campaign.view import current_mask, ohif_link

SECOND = Lease("bob", 1e12, ReadingTask.SECOND)
READING = Reading("ann", 5.0, ReadingTask.ANNOTATE, "final", 60.0)


def service(case, drafts):
    return SimpleNamespace(
        campaign=SimpleNamespace(state=lambda: SimpleNamespace(case=lambda name: case)),
        drafts=SimpleNamespace(
            find=lambda name, who: drafts.get(who),
            latest=lambda name: max(drafts.values(), key=lambda d: d.record["when_s"], default=None),
        ),
        final_label=lambda name: "final.nii.gz",
        study_uid=lambda name: "1.2 3" if name == "a" else None,
    )


def draft(name, when_s):
    return SimpleNamespace(file=name, record={"when_s": when_s})


def test_the_newest_mask_is_shown():
    case = Case("a", Status.SUBMITTED, readings=(READING,))
    assert current_mask(service(case, {"ann": draft("old", 4.0)}), "a", "ann")[0] == "final.nii.gz"
    assert current_mask(service(case, {"ann": draft("new", 6.0)}), "a", "ann")[0] == "new"


def test_a_second_reader_does_not_see_the_first_label():
    case = Case("a", Status.SUBMITTED, readings=(READING,), lease=SECOND, prediction={"mean_confidence": 0.4})
    assert current_mask(service(case, {"ann": draft("hers", 9.0)}), "a", "bob") == (None, {})
    shown = row(case, 0.0, {}, "bob")
    assert (shown["annotator"], shown["minutes"], shown["confidence"]) == ("", None, None)
    assert row(case, 0.0, {}, "rita")["annotator"] == "ann"


def test_a_gold_case_looks_like_any_other():
    assert row(Case("a", gold=True), 0.0, {}, "ann")["status"] == "open"
    read = Case("a", gold=True, readings=(Reading("ann", 5.0, ReadingTask.GOLD, "gold-ann", 60.0),))
    assert row(read, 0.0, {}, "ann")["status"] == "submitted"


def test_the_way_into_ohif():
    assert ohif_link(service(Case("a"), {}), "a") == "/ohif/monai-label?StudyInstanceUIDs=1.2+3"
    assert ohif_link(service(Case("b"), {}), "b") is None
