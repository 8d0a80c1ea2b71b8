"""The annotator that is played: where it prompts, what it corrects, and that every request stands alone."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from slicecast.errors import ConfigError
from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentRequest
from slicecast.prompts.mapping import straight
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.prompts import CORRECTION_RULES, correct, paint_every, pick_slice, play
from slicecast_lab.evaluation.settings import Settings, parse_prompt, parse_values


class Recorder:
    """Passes requests on and keeps them."""

    def __init__(self, service):
        self.service, self.requests = service, []

    def segment(self, request: SegmentRequest) -> SegmentResult:
        self.requests.append(request)
        return self.service.segment(request)


@pytest.fixture
def recorder(service) -> Recorder:
    return Recorder(service)


def test_a_mask_prompt_is_the_truth_of_its_slice(case, recorder):
    number = pick_slice(case, "largest")
    (answer,) = play(case, recorder, Settings(), number)
    found, truth = case.slices(answer.mask), case.slices(case.truth)
    assert np.array_equal(found.slice(number), truth.slice(number))
    assert answer.dice == dice(answer.mask, case.truth) > 0.5 and answer.seconds > 0


def test_a_box_prompt_is_tight_around_the_slice(case, recorder):
    number = pick_slice(case, "largest")
    play(case, recorder, Settings(prompt="box"), number)
    (box,) = recorder.requests[0].prompts.objects[0].boxes
    inside = case.truth & False
    (i0, j0, k0), (i1, j1, k1) = box.low_ijk, box.high_ijk
    inside[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = True
    assert case.slices(inside).slice(number).any()
    shown = case.slices(case.truth).slice(number)
    drawn = case.slices(inside).slice(number)
    assert (shown <= drawn).all()
    assert all(np.array_equal(shown.any(axis=a), drawn.any(axis=a)) for a in (0, 1))


def test_each_click_is_a_whole_request_at_the_deepest_error(case, recorder):
    number = pick_slice(case, "largest")
    answers = play(case, recorder, Settings(prompt="clicks", clicks=3), number)
    points = [request.prompts.objects[0].points for request in recorder.requests]
    assert [len(given) for given in points] == list(range(1, len(answers) + 1))
    assert all(later[:-1] == earlier for earlier, later in pairwise(points))
    assert len(set(points[-1])) == len(points[-1])
    first = points[0][0]
    assert first.positive and case.truth[first.ijk[::-1]]
    assert {int(case.axis.to_slice(case.turn.to_canonical_ijk(p.ijk))[0]) for p in points[-1]} == {number}
    for click, before in zip(points[-1][1:], answers, strict=False):
        assert bool(case.truth[click.ijk[::-1]]) == click.positive != bool(before.mask[click.ijk[::-1]])


def test_a_line_runs_inside_from_the_first_to_the_last_slice(case, recorder):
    play(case, recorder, Settings(prompt="line"), pick_slice(case, "largest"))
    (line,) = recorder.requests[0].prompts.objects[0].lines
    places = case.axis.to_slice(case.turn.to_canonical_ijk(line.vertices)).tolist()
    passed = [voxel for start, end in pairwise(places) for voxel in straight(start, end)]
    assert {n for n, _, _ in passed} == set(np.flatnonzero(case.areas).tolist())
    assert all(case.slices(case.truth).slice(n)[y, x] for n, x, y in passed)
    play(case, recorder, Settings(prompt="ends"), pick_slice(case, "largest"))
    assert {p.ijk for p in recorder.requests[1].prompts.objects[0].points} <= set(line.vertices)


def test_corrections_paint_one_more_true_slice_each_time(case, recorder):
    number = pick_slice(case, "quarter")
    (start,) = play(case, recorder, Settings(), number)
    for choice in CORRECTION_RULES:
        before = len(recorder.requests)
        answers = correct(case, recorder, start, choice, times=2)
        assert len(recorder.requests) == before + len(answers)
        for times, answer in enumerate(answers, start=1):
            painted = [stored for mask in answer.prompts.masks for stored in mask.slices]
            assert len(painted) == times + 1
            for stored in painted:
                n = case.stored_slice(stored)
                assert np.array_equal(case.slices(answer.mask).slice(n), case.slices(case.truth).slice(n))


def test_the_worst_slice_has_the_most_wrong_voxels(case, recorder):
    number = pick_slice(case, "quarter")
    (start,) = play(case, recorder, Settings(), number)
    (answer, *_) = correct(case, recorder, start, "worst", times=1)
    wrong = case.slices(start.mask != case.truth)
    (chosen,) = {case.stored_slice(n) for mask in answer.prompts.masks for n in mask.slices} - {number}
    assert wrong.slice(chosen).sum() == max(wrong.slice(n).sum() for n in range(wrong.count))


@pytest.mark.parametrize("choice", CORRECTION_RULES)
def test_clicks_are_corrected_by_clicks_in_the_error(case, recorder, choice):
    start = play(case, recorder, Settings(prompt="clicks"), pick_slice(case, "quarter"))[-1]
    before = start
    for answer in correct(case, recorder, start, choice, times=4):
        *earlier, click = answer.prompts.points
        assert tuple(earlier) == before.prompts.points and click not in earlier
        assert bool(case.truth[click.ijk[::-1]]) == click.positive != bool(before.mask[click.ijk[::-1]])
        before = answer


@pytest.mark.parametrize(("choice", "painted"), [("painted", [1, 2, 3]), ("mixed", [0, 1, 1])])
def test_after_clicks_the_worst_slice_may_be_painted(case, recorder, choice, painted):
    """Every one, or every second of three; a painted slice is right, and comes after the clicks before it."""
    start = play(case, recorder, Settings(prompt="clicks"), pick_slice(case, "quarter"))[-1]
    answers = correct(case, recorder, start, choice, times=3)
    assert [len(answer.prompts.masks) for answer in answers] == painted
    assert [len(answer.prompts.points) for answer in answers] == [1 + n - p for n, p in enumerate(painted, start=1)]
    for mask in answers[-1].prompts.masks:
        (stored,) = mask.slices
        n = case.stored_slice(stored)
        assert np.array_equal(case.slices(answers[-1].mask).slice(n), case.slices(case.truth).slice(n))
    assert {mask.after for mask in answers[-1].prompts.masks} == ({1} if choice == "painted" else {2})


def test_a_suggested_slice_that_is_right_is_accepted(case, recorder):
    start = play(case, recorder, Settings(prompt="clicks"), pick_slice(case, "largest"))[-1]
    shown, empty = (
        case.stored_slice(int(numbers[0])) for numbers in (np.flatnonzero(case.areas), np.flatnonzero(case.areas == 0))
    )
    right = replace(start, mask=case.truth, next_slice=shown)
    (accepted,) = correct(case, recorder, right, "suggested", times=1)
    (mask,) = accepted.prompts.masks
    assert (mask.slices, mask.after) == ((shown,), 1) and accepted.prompts.points == start.prompts.points
    (accepted,) = correct(case, recorder, replace(right, next_slice=empty), "suggested", times=1)
    (mask,) = accepted.prompts.masks
    assert (mask.slices, mask.after) == ((empty,), 1)


def test_every_third_slice_and_the_largest_is_painted(case, recorder):
    numbers, answer = paint_every(case, recorder, 3)
    assert pick_slice(case, "largest") in numbers and len(numbers) >= np.count_nonzero(case.areas) // 3
    found, truth = case.slices(answer.mask), case.slices(case.truth)
    assert all(np.array_equal(found.slice(n), truth.slice(n)) for n in numbers)


def test_words_are_read():
    assert parse_prompt("mask") == ("mask", 1) and parse_prompt("clicks:5") == ("clicks", 5)
    assert parse_values("1, 2") == (1, 2)


@pytest.mark.parametrize("words", ["clicks", "clicks:", "clicks:-1", "scribble", ""])
def test_other_prompts_are_refused(words):
    with pytest.raises(ConfigError, match="mask, box, line, ends, or clicks:N"):
        parse_prompt(words)


@pytest.mark.parametrize("words", ["", "0", "a", "1,,2", "-1"])
def test_other_labels_are_refused(words):
    with pytest.raises(ConfigError, match="positive whole numbers"):
        parse_values(words)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": "text"},
        {"slice": "first"},
        {"unit": "cm"},
        {"baselines": ("magic",)},
        {"clicks": 0},
        {"corrections": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Settings(**wrong)


def test_the_prompt_is_said_as_it_is_typed():
    assert [Settings(prompt="clicks", clicks=5).prompt_words, Settings(prompt="box").prompt_words] == [
        "clicks:5",
        "box",
    ]
