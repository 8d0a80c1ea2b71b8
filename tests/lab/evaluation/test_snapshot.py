"""The slices kept for pictures."""

from slicecast_lab.evaluation.cases import pick_slice
from slicecast_lab.evaluation.snapshot import COLUMNS, take_snapshot


def test_slices_run_from_end_to_end_with_the_prompted_one_among_them(case):
    number = pick_slice(case, "largest")
    shot = take_snapshot(case, case.truth, number)
    canonical = [case.stored_slice(shown.slice) for shown in shot.slices]
    assert canonical == sorted(set(canonical)) and len(canonical) <= COLUMNS
    assert set(canonical[1:-1]) or (canonical[0], canonical[-1]) == case.extent
    assert [shown.prompted for shown in shot.slices].count(True) == 1
    for shown, n in zip(shot.slices, canonical, strict=True):
        assert shown.truth.sum() == case.areas[n]  # nothing is cut off
        assert shown.grey.shape == shown.truth.shape == shown.result.shape
