from dataclasses import replace

import numpy as np
from tracking import PLAIN, WHOLE, absent, boxed, clicked, clip_of, disk, painted, tracker_of, walking_disk

from slicecast.engine.anchors import anchors_alone, find_anchors
from slicecast.engine.crop_window import CropWindow, paste, to_model_prompt
from slicecast.prompts import SlicePrompt
from slicecast_lab.simulation.fake import FakePredictor

TRUTH = walking_disk(10)
CLIP = clip_of(TRUTH)


class Watched(FakePredictor):
    """Notes what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def prompt(self, jobs, *, num_slices):
        self.asked += [(len(job.prompt.labels), job.bank is not None, job.previous is not None) for job in jobs]
        return super().prompt(jobs, num_slices=num_slices)


def settle(*prompts, clip=CLIP):
    tracker = tracker_of(clip, predictor=Watched())
    return find_anchors(tracker, prompts, WHOLE), tracker


def test_a_painted_slice_is_its_own_answer():
    anchors, _ = settle(painted(3, TRUTH[3]))
    assert anchors[0].slice == 3 and anchors[0].answer.prompted and anchors[0].answer.predicted_iou == 1.0


def test_every_mask_and_box_is_asked_alone():
    anchors, tracker = settle(painted(1, TRUTH[1]), boxed(6, 22, 22, 42, 42))
    assert [a.slice for a in anchors] == [1, 6]
    assert tracker.predictor.asked == [(0, False, False), (0, False, False)] and tracker.done == 2


def test_the_slice_clicked_first_is_asked_alone_and_later_ones_correct():
    later = clicked(2, (28, 32), order=2), clicked(5, (30, 32), (32, 32), order=3)
    anchors, tracker = settle(*later, clicked(8, (34, 32), order=1))
    assert [a.slice for a in anchors] == [2, 5, 8]
    asked = [given for given in tracker.predictor.asked if given[0]]
    assert asked == [(1, False, False), (1, True, True), (2, True, True), (1, True, True)]


def test_further_clicks_on_the_first_slice_correct_its_answer():
    _, tracker = settle(clicked(3, (29, 32), (33, 32), negative=[(45, 32)]))
    assert [given for given in tracker.predictor.asked if given[0]] == [
        (1, False, False),
        (2, False, True),
        (3, False, True),
    ]


def test_clicks_are_asked_at_once_where_that_is_wanted():
    """As SAM 2 does."""
    options = replace(PLAIN, bounded_clicks=False)
    tracker = tracker_of(CLIP, predictor=Watched(), options=options)
    prompts = clicked(3, (29, 32), (33, 32), order=1), clicked(6, (32, 32), negative=[(45, 32)], order=2)
    find_anchors(tracker, prompts, WHOLE)
    assert tracker.predictor.asked == [(2, False, False), (2, True, True)]


def test_a_negative_click_before_the_first_positive_one_is_asked_with_it():
    points, labels = np.array([(45, 32), (29, 32)], np.float32), np.array([0, 1])
    _, tracker = settle(SlicePrompt(3, points, labels))
    assert tracker.predictor.asked == [(2, False, False)]


def test_a_negative_click_outside_the_window_makes_no_anchor():
    tracker = tracker_of(CLIP, predictor=Watched())
    anchors = find_anchors(tracker, [painted(3, TRUTH[3]), clicked(6, negative=[(2, 2)])], CropWindow(16, 16, 32, 32))
    assert [a.slice for a in anchors] == [3]


def test_clicks_beside_a_painted_slice_correct_it_elsewhere():
    anchors, tracker = settle(painted(0, TRUTH[0]), clicked(9, negative=[(42, 32)]))
    assert [a.slice for a in anchors] == [0, 9]
    assert tracker.predictor.asked[1] == (1, True, True)
    assert not anchors[1].answer.logits[16, 21] > 0


def test_a_negative_click_where_the_object_is_not_says_nothing():
    gone = clip_of(walking_disk(10, stop=5))
    anchors, _ = settle(painted(0, TRUTH[0]), clicked(8, negative=[(50, 50)]), clip=gone)
    assert [a.slice for a in anchors] == [0]


def test_a_positive_click_beyond_the_objects_end_starts_anew():
    gap = TRUTH.copy()
    gap[3:7] = False
    anchors, tracker = settle(painted(0, TRUTH[0]), clicked(9, (35, 32)), clip=clip_of(gap))
    assert [a.slice for a in anchors] == [0, 9] and anchors[1].answer.present
    assert tracker.predictor.asked[1] in ((1, True, True), (1, False, False))


def test_absent_slices_are_no_anchors():
    assert [a.slice for a in settle(painted(3, TRUTH[3]), absent(5))[0]] == [3]


def test_the_order_of_the_prompts_does_not_matter():
    prompts = [painted(2, TRUTH[2]), clicked(5, (31, 32)), clicked(8, negative=[(44, 32)])]
    first, second = settle(*prompts)[0], settle(*prompts[::-1])[0]
    assert [a.slice for a in first] == [a.slice for a in second]
    assert all(np.array_equal(a.answer.logits, b.answer.logits) for a, b in zip(first, second, strict=True))


def test_alone_only_slices_that_can_start_are_answered():
    tracker = tracker_of(CLIP, predictor=Watched())
    given = [clicked(1, (27, 32)), clicked(2, negative=[(40, 32)]), absent(3), painted(4, TRUTH[4])]
    assert [a.slice for a in anchors_alone(tracker, given, WHOLE)] == [1, 4]
    assert not any(bank for _, bank, _ in tracker.predictor.asked)


def test_a_mask_goes_to_the_model_in_its_pixels():
    prompt = painted(0, disk(centre_xy=(32, 32), radius=10))
    assert (to_model_prompt(prompt, WHOLE, size=64).mask == prompt.mask).all()
    zoomed = to_model_prompt(prompt, CropWindow(16, 16, 32, 32), size=64).mask
    assert abs(zoomed.mean() - 4 * prompt.mask.mean()) < 0.01


def test_a_mask_smaller_than_a_model_pixel_does_not_vanish():
    dot = np.zeros((300, 300), bool)
    dot[120, 200] = True
    sent = to_model_prompt(painted(0, dot), CropWindow(0, 0, 300, 300), size=64).mask
    y, x = np.argwhere(sent).mean(axis=0)
    assert sent.any() and abs(x - 200 * 64 / 300) < 1 and abs(y - 120 * 64 / 300) < 1


class Swelling(FakePredictor):
    """Answers corrections with the whole window."""

    def prompt(self, jobs, *, num_slices):
        answers = super().prompt(jobs, num_slices=num_slices)
        for job, answer in zip(jobs, answers, strict=True):
            if job.previous is not None:
                answer.logits[...] = 5.0
        return answers


def test_a_correction_that_runs_away_is_no_anchor():
    tracker = tracker_of(CLIP, predictor=Swelling())
    anchors = find_anchors(tracker, [painted(2, TRUTH[2]), clicked(6, (32, 32))], WHOLE)
    assert [a.slice for a in anchors] == [2]


def test_where_a_line_passes_only_what_misses_it_is_corrected():
    def passing(number, xy):
        return replace(clicked(number, xy, order=number), passed=True)

    covered = passing(2, (28, 32)), passing(5, (30, 32))
    anchors, tracker = settle(clicked(8, (34, 32), order=1), *covered)
    assert [a.slice for a in anchors] == [8]
    assert [given for given in tracker.predictor.asked if given[0]] == [(1, False, False)]
    anchors, _ = settle(clicked(8, (34, 32), order=1), passing(5, (58, 58)), covered[0])
    assert [a.slice for a in anchors] == [5, 8]


LEFT, RIGHT, BELOW = (disk(centre_xy=at, radius=6) for at in ((16, 20), (46, 20), (32, 46)))
SHADES = clip_of(np.stack([LEFT] * 8)) + 0.3 * RIGHT.astype(np.float32) + 0.9 * BELOW.astype(np.float32)
"""A part on the left as bright as 0.7, one on the right as 0.4, one below as 1.0: their mean is like none of them."""


def on_slice(anchors, number):
    (found,) = (anchor for anchor in anchors if anchor.slice == number)
    return paste(found.answer.logits, WHOLE, (64, 64)) > 0


def overlap(mask, part):
    return np.count_nonzero(mask & part) / np.count_nonzero(part)


def test_a_click_on_a_part_that_lies_apart_adds_what_it_shows_by_itself():
    prompt = clicked(3, (16, 20), (46, 20))
    for parts, low, high in ((True, 0.75, 1.0), (False, 0.0, 0.6)):
        tracker = tracker_of(SHADES, options=replace(PLAIN, parts=parts))
        mask = on_slice(find_anchors(tracker, [prompt], WHOLE), 3)
        assert overlap(mask, LEFT) > 0.75 and low <= overlap(mask, RIGHT) <= high


def test_a_part_is_as_sure_as_its_least_sure_click():
    both, alone = (
        find_anchors(tracker_of(SHADES), [clicked(3, *points)], WHOLE)[0].answer.predicted_iou
        for points in (((16, 20), (46, 20)), ((46, 20),))
    )
    assert both <= alone < 1


def test_a_part_that_holds_a_negative_click_is_not_added():
    anchors, _ = settle(clicked(3, (16, 20), negative=[(48, 22)]), clip=SHADES)
    before = on_slice(anchors, 3)
    points, labels = np.array([(16, 20), (48, 22), (44, 18)], np.float32), np.array([1, 0, 1])
    anchors, _ = settle(SlicePrompt(3, points, labels), clip=SHADES)
    assert overlap(on_slice(anchors, 3), RIGHT) < 0.6 and overlap(before, RIGHT) == 0


def test_parts_that_are_added_are_no_leak():
    """An anchor that is by far larger than the others starts no track, unless what it gained lies apart."""
    later = clicked(6, (16, 20), (46, 20), (32, 46), order=1)
    anchors, _ = settle(clicked(2, (16, 20)), later, clip=SHADES)
    assert [anchor.slice for anchor in anchors] == [2, 6]
    assert all(overlap(on_slice(anchors, 6), part) > 0.75 for part in (LEFT, RIGHT, BELOW))


def test_what_the_first_click_showed_stays_in_a_wider_window():
    options = replace(PLAIN, zoom="on")
    near, wide = CropWindow(2, 6, 28, 28), WHOLE
    (alone,) = find_anchors(tracker_of(SHADES, options=options), [clicked(3, (16, 20))], near)
    (again,) = find_anchors(tracker_of(SHADES, options=options), [clicked(3, (16, 20))], wide)
    masks = [paste(a.answer.logits, crop, (64, 64)) > 0 for a, crop in ((alone, near), (again, wide))]
    assert overlap(*masks) > 0.9 and overlap(*masks[::-1]) > 0.9
    assert again.answer.predicted_iou < 1  # as sure as the click was, not as a mask
