"""Whole evaluations on phantoms."""

from dataclasses import replace

import numpy as np
import pytest

from slicecast_lab.evaluation.prompts import pick_slice
from slicecast_lab.evaluation.run import COLUMNS, MISTAKES, evaluate, mistake_shares, take_snapshot
from slicecast_lab.evaluation.settings import Settings


def test_every_case_is_measured_and_progress_is_told(cases, service):
    told = []
    done = evaluate(cases, service, Settings(), progress=lambda n, total, name: told.append((n, total, name)))
    assert [result.files for result in done.results] == cases and not done.skipped
    assert told == [(0, 3, "anisotropic"), (1, 3, "flipped"), (2, 3, "sphere"), (3, 3, "")]
    for result in done.results:
        assert result.dice_elsewhere < result.final_dice <= 1  # the painted slice is exact
        assert 0 <= result.surface.nsd <= 1 and result.surface.hd95 is not None
        assert len(result.dice) == len(result.seconds) == 1
    assert done.peak_rss_mib > 10


def test_clicks_corrections_and_baselines_are_recorded(cases, service):
    settings = Settings(prompt="clicks", clicks=4, corrections=2, baselines=("copy", "copy-extent"))
    for result in evaluate(cases, service, settings).results:
        assert len(result.dice) == 4 and len(result.seconds) == result.clicks_used <= 4
        assert result.corrections.keys() == {"suggested", "worst", "painted", "mixed"}
        assert all(steps[0] == result.final_dice and len(steps) == 3 for steps in result.corrections.values())
        assert result.baselines["copy-extent"] >= result.baselines["copy"]


def test_painted_slices_stand_beside_their_interpolations(cases, service):
    for result in evaluate(cases, service, Settings(every=(3,))).results:
        found = result.painted[3]
        assert found.keys() == {"model", "linear"} and all(0.5 < value <= 1 for value in found.values())


def test_voxels_are_a_unit(cases, service):
    thick = [files for files in cases if files.id == "anisotropic"]
    mm, voxels = (evaluate(thick, service, Settings(unit=unit)).results[0].surface for unit in ("mm", "voxel"))
    assert mm != voxels


def test_what_cannot_be_used_is_skipped_with_its_reason(cases, service):
    wrong = replace(cases[0], id="wrong", values=(9,))
    done = evaluate([wrong, cases[1]], service, Settings())
    assert [result.files.id for result in done.results] == ["flipped"]
    assert "does not show label 9" in done.skipped["wrong"]


def test_results_repeat(cases, service):
    first, second = (evaluate(cases[:1], service, Settings(prompt="clicks", clicks=2)) for _ in range(2))
    assert first.results[0].dice == second.results[0].dice


def test_a_right_answer_has_none(case):
    shares = mistake_shares(case, case.truth, pick_slice(case, "largest"))
    assert set(shares) == set(MISTAKES) and not any(shares.values())


def test_nothing_found_is_missed(case):
    number = pick_slice(case, "largest")
    shares = mistake_shares(case, np.zeros_like(case.truth), number)
    assert shares["prompted"] == pytest.approx(case.areas[number] / case.areas.sum())
    assert shares["missed"] == pytest.approx(1 - shares["prompted"])
    assert shares["excess"] == shares["beyond"] == 0


def test_everything_found_is_too_much(case):
    shares = mistake_shares(case, np.ones_like(case.truth), pick_slice(case, "largest"))
    first, last = case.extent
    wrong = np.count_nonzero(~case.truth)
    area = case.truth.size // len(case.areas)
    assert shares["beyond"] == pytest.approx(area * (len(case.areas) - (last - first + 1)) / wrong)
    assert sum(shares.values()) == pytest.approx(1)


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
