"""The slices kept for pictures."""

from slicecast_lab.evaluation.cases import pick_slice
from slicecast_lab.evaluation.snapshot import COLUMNS, take_snapshot


def test_slices_run_from_end_to_end_with_the_prompted_one_among_them(case):
    number = pick_slice(case, "largest")
    shot = take_snapshot(case, case.truth, number)
    canonical = [case.stored_slice(view.slice) for view in shot.views]
    assert canonical == sorted(set(canonical)) and len(canonical) <= COLUMNS
    assert set(canonical[1:-1]) or (canonical[0], canonical[-1]) == case.extent
    assert [view.prompted for view in shot.views].count(True) == 1
    for view, n in zip(shot.views, canonical, strict=True):
        assert view.truth.sum() == case.areas[n]  # nothing is cut off
        assert view.grey.shape == view.truth.shape == view.result.shape
