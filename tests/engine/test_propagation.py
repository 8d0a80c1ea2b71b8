from dataclasses import replace

import numpy as np
import pytest
from builders import dice
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking import (
    PLAIN,
    absent,
    boxed,
    clicked,
    clip_of,
    disk,
    mask_of,
    painted,
    same_answers,
    tracker_of,
    walking_disk,
)

from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.options import EngineOptions
from slicecast.engine.postprocess import slice_confidence
from slicecast.engine.propagation import segment
from slicecast.errors import Cancelled
from slicecast_lab.simulation.fake import FakePredictor

TRUTH = walking_disk(10)
CLIP = clip_of(TRUTH)
TIDY = EngineOptions(zoom="off")


def run(*prompts, clip=CLIP, options=PLAIN, **given):
    return segment(tracker_of(clip, options=options), {"a": prompts}, **given)


def volume(found, count=10, shape=(64, 64)):
    return np.stack([found.labels.get(n, np.zeros(shape, np.uint8)) for n in range(count)])


@pytest.mark.parametrize(
    "prompt",
    [painted(4, TRUTH[4]), boxed(4, 20, 22, 40, 42), clicked(4, (30, 32))],
    ids=["mask", "box", "click"],
)
@pytest.mark.parametrize("zoom", ["off", "on"])
def test_one_prompt_finds_the_object_in_the_whole_volume(prompt, zoom):
    found = run(prompt, options=replace(TIDY, zoom=zoom))
    assert dice(volume(found) == 1, TRUTH) > 0.9
    assert sorted(found.objects["a"].answers) == list(range(10)) and found.slices_encoded >= 10


def test_a_painted_slice_comes_back_exactly():
    odd = TRUTH[4].copy()
    odd[30:33, 28:31] = False  # a hole, and an island that no model would draw
    odd[2, 2] = True
    found = run(painted(4, odd), options=TIDY)
    assert ((found.labels[4] == 1) == odd).all()


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(10, 50), st.integers(10, 50), st.integers(0, 6)), max_size=3))
def test_whatever_is_painted_comes_back_exactly(given_masks):
    masks = {n: disk(centre_xy=(x, y), radius=r) for n, x, y, r in given_masks} | {5: TRUTH[5]}
    found = run(*(painted(n, mask) for n, mask in sorted(masks.items())), options=TIDY)
    assert all((volume(found)[n] == mask).all() for n, mask in masks.items())


def test_a_painted_dot_that_the_model_cannot_see_still_comes_back():
    dot = np.zeros((512, 512), bool)
    dot[100, 200] = True
    tracker = tracker_of(np.zeros((3, 512, 512), np.float32), options=TIDY, predictor=FakePredictor(image_size=64))
    found = segment(tracker, {"a": [painted(1, dot)]})
    assert (found.labels[1] == dot).all()


def test_painted_slices_of_two_objects_never_overwrite_each_other():
    left, right = disk(centre_xy=(20, 32), radius=9), disk(centre_xy=(44, 32), radius=9)
    clip = clip_of(np.stack([left | right] * 6))
    prompts = {"left": [painted(2, left), painted(4, left)], "right": [painted(2, right), painted(3, right)]}
    found = segment(tracker_of(clip, options=TIDY), prompts)
    for name, value in (("left", 1), ("right", 2)):
        for prompt in prompts[name]:
            assert ((found.labels[prompt.slice] == value) == prompt.mask).all()


def test_a_painted_slice_stands_against_another_objects_guess():
    """The second object would claim the same bright disk on a slice that is painted as the first one's."""
    found = segment(tracker_of(CLIP, options=TIDY), {"a": [painted(4, TRUTH[4])], "b": [clicked(3, (29, 32))]})
    assert ((found.labels[4] == 1) == TRUTH[4]).all() and (found.labels[4] == 2).sum() < 30


@pytest.mark.parametrize("gone_slices", [0, 2])
def test_a_slice_marked_absent_is_empty_and_stops_the_tracks(gone_slices):
    found = run(painted(3, TRUTH[3]), absent(6), options=replace(PLAIN, gone_slices=gone_slices))
    assert sorted(found.labels) == [0, 1, 2, 3, 4, 5]
    assert 6 not in found.objects["a"].answers


def test_an_absent_slice_between_two_painted_ones_parts_them():
    found = run(painted(1, TRUTH[1]), absent(5), painted(8, TRUTH[8]), options=TIDY)
    assert sorted(found.labels) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_tracks_stay_within_their_limits():
    found = run(painted(4, TRUTH[4]), limits={"a": (3, 7)})
    assert sorted(found.objects["a"].answers) == sorted(found.labels) == [3, 4, 5, 6]


def test_tracks_end_where_the_object_does():
    found = run(painted(4, TRUTH[4]), clip=clip_of(walking_disk(10, first=3, stop=6)))
    assert sorted(found.labels) == [3, 4, 5]
    assert sorted(found.objects["a"].answers) == [1, 2, 3, 4, 5, 6, 7]


def test_only_the_prompted_slices_when_asked():
    found = run(painted(2, TRUTH[2]), clicked(6, (32, 32)), slices_only=True)
    assert sorted(found.labels) == [2, 6] and found.slices_answered == 2


def test_two_objects_do_not_overlap_and_keep_their_order():
    left, right = disk(centre_xy=(20, 32), radius=9), disk(centre_xy=(44, 32), radius=9)
    clip = clip_of(np.stack([left | right] * 6))
    found = segment(tracker_of(clip), {"left": [clicked(1, (20, 32))], "right": [clicked(4, (44, 32))]})
    assert dice(volume(found, 6) == 1, np.stack([left] * 6)) > 0.9
    assert dice(volume(found, 6) == 2, np.stack([right] * 6)) > 0.9


def test_an_object_is_the_same_alone_and_among_others():
    alone = run(clicked(1, (27, 32))).objects["a"]
    prompts = {"b": [painted(5, TRUTH[5]), clicked(8, negative=[(34, 32)])], "a": [clicked(1, (27, 32))]}
    assert same_answers(alone.answers, segment(tracker_of(CLIP), prompts).objects["a"].answers)


def test_corrections_are_kept_and_change_their_neighbours():
    start, correction = painted(0, TRUTH[0]), clicked(5, (10, 10), negative=[(36, 32)])
    before, after = run(start).objects["a"], run(start, correction).objects["a"]
    assert mask_of(after, 5)[10, 10] and not mask_of(after, 5)[32, 36]
    assert after.answers[5].prompted and not same_answers({4: before.answers[4]}, {4: after.answers[4]})


def test_a_removed_click_leaves_no_trace():
    tracker = tracker_of(CLIP)
    fresh = segment(tracker, {"a": [painted(2, TRUTH[2])]})
    segment(tracker_of(CLIP, cache=tracker.cache), {"a": [painted(2, TRUTH[2]), clicked(6, (10, 10))]})
    again = segment(tracker_of(CLIP, cache=tracker.cache), {"a": [painted(2, TRUTH[2])]})
    assert same_answers(fresh.objects["a"].answers, again.objects["a"].answers) and again.slices_encoded == 0
    assert (volume(fresh) == volume(again)).all()


@pytest.mark.parametrize("prompt", ["mask", "clicks"])
def test_the_reversed_volume_gives_the_reversed_result(prompt):
    def prompts(number):
        given = [painted(2, TRUTH[2]), painted(7, TRUTH[7])] if prompt == "mask" else [clicked(3, (29, 32))]
        return [replace(p, slice=number(p.slice)) for p in given]

    up = run(*prompts(lambda n: n), options=TIDY)
    down = run(*prompts(lambda n: 9 - n)[::-1], clip=CLIP[::-1], options=TIDY)
    assert (volume(up) == volume(down)[::-1]).all()
    sure, reversed_sure = ({n: slice_confidence(a) for n, a in r.objects["a"].answers.items()} for r in (up, down))
    assert sure == pytest.approx({9 - n: v for n, v in reversed_sure.items()}, abs=1e-6)


def test_met_slices_lie_between_the_prompted_ones():
    assert run(painted(4, TRUTH[4]), options=TIDY).objects["a"].met == set()
    assert run(painted(2, TRUTH[2]), painted(7, TRUTH[7]), options=TIDY).objects["a"].met == {3, 4, 5, 6}


@pytest.mark.parametrize("axis", [1, 2])
def test_the_mirrored_volume_gives_the_mirrored_result(axis):
    up = run(painted(3, TRUTH[3]), options=TIDY)
    mirrored = run(painted(3, np.flip(TRUTH[3], axis - 1)), clip=np.flip(CLIP, axis), options=TIDY)
    assert (volume(up) == np.flip(volume(mirrored), axis)).all()


def test_an_object_that_outgrows_its_window_gets_a_wider_one():
    cone = np.stack([disk((160, 160), centre_xy=(80, 80), radius=10 * 1.18**n) for n in range(8)])
    narrow, wide = (
        segment(
            tracker_of(clip_of(cone), options=EngineOptions(zoom="on", zoom_rounds=rounds)),
            {"a": [painted(0, cone[0])]},
        ).objects["a"]
        for rounds in (0, 3)
    )
    assert wide.crop.width > narrow.crop.width
    outside = [n for n in range(8) if mask_of(wide, n, (160, 160)).sum() > mask_of(narrow, n, (160, 160)).sum()]
    assert 7 in outside


def test_a_correction_leaves_the_window_that_the_first_prompt_decided():
    cone = np.stack([disk((160, 160), centre_xy=(80, 80), radius=10 * 1.18**n) for n in range(8)])

    def crop_of(*prompts, clip=cone):
        return segment(tracker_of(clip_of(clip), options=EngineOptions(zoom="on")), {"a": prompts}).objects["a"].crop

    wide = crop_of(painted(0, cone[0]))
    assert crop_of(painted(0, cone[0]), clicked(5, (80, 80))) == wide
    # Up to the third slice there is room in the first window; what a click finds beyond does not move it.
    short = cone.copy()
    short[3:5] = False
    narrow = crop_of(painted(0, cone[0]), clip=short)
    assert narrow.width < wide.width
    assert crop_of(painted(0, cone[0]), clicked(7, (80, 80)), clip=short) == narrow


def test_holes_are_filled_up_to_the_area_asked_for():
    truth = np.stack([disk(radius=14)] * 4)
    clip = clip_of(truth, noise=0.0)
    clip[2, 29:35, 29:35] = 0.1

    def has_hole(area):
        found = run(painted(0, truth[0]), clip=clip, options=replace(PLAIN, fill_holes_px=area))
        return found.labels[2][32, 32] == 0

    assert has_hole(0) and has_hole(4) and not has_hole(60)


def test_cancelling_raises_and_keeps_what_is_encoded():
    cache, calls = EmbeddingCache(1 << 26), []

    def cancelled():
        calls.append(1)
        return len(calls) > 6

    with pytest.raises(Cancelled):
        segment(tracker_of(CLIP, cache=cache, cancelled=cancelled), {"a": [painted(0, TRUTH[0])]})
    held = cache.stats().entries
    assert held > 1
    found = segment(tracker_of(CLIP, cache=cache), {"a": [painted(0, TRUTH[0])]})
    assert found.slices_encoded == 10 - held
    fresh = run(painted(0, TRUTH[0]))
    assert same_answers(found.objects["a"].answers, fresh.objects["a"].answers)


def test_a_cache_too_small_for_one_request_changes_nothing_but_time():
    tracker = tracker_of(CLIP, cache=EmbeddingCache(1))
    found = segment(tracker, {"a": [painted(4, TRUTH[4])]})
    assert same_answers(found.objects["a"].answers, run(painted(4, TRUTH[4])).objects["a"].answers)
    assert tracker.cache.stats().entries == 0


class Spilling(FakePredictor):
    """Sees an island in the corner of every prompted slice."""

    def prompt(self, jobs, *, num_slices):
        answers = super().prompt(jobs, num_slices=num_slices)
        for answer in answers:
            answer.logits[:3, :3] = 5.0
        return answers


def test_an_island_on_the_clicked_slice_hangs_on_no_prompt():
    """What is kept is the part that was pointed at, not all that the slice's answer holds."""
    disks = walking_disk(8)
    tracker = tracker_of(clip_of(disks), predictor=Spilling(), options=replace(PLAIN, keep_components=True))
    y, x = (int(np.median(places)) for places in np.nonzero(disks[3]))
    found = segment(tracker, {"a": [clicked(3, (x, y))]})
    assert found.labels[3][y, x] == 1
    assert (found.objects["a"].answers[3].logits[:3, :3] > 0).all()
    assert not found.labels[3][:4, :4].any()


def test_what_both_tracks_lost_between_two_painted_slices_is_bridged_and_never_sure():
    clip = CLIP.copy()
    clip[3:6] = 0.1  # nothing to see: both tracks lose it
    prompts = painted(1, TRUTH[1]), painted(8, TRUTH[8])
    found = run(*prompts, clip=clip, options=replace(PLAIN, like_share=0.0))
    assert dice(volume(found) == 1, TRUTH) > 0.9
    answers = found.objects["a"].answers
    assert [n for n, seen in answers.items() if seen.bridged] == [3, 4, 5]
    assert all(slice_confidence(answers[n]) == 0 for n in (3, 4, 5))
    assert not set(run(*prompts, clip=clip).labels) & {3, 4, 5}  # the shape would cover other tissue


@pytest.mark.parametrize("between", [clicked(6, (32, 32)), absent(4)], ids=["click", "absent"])
def test_nothing_is_bridged_across_another_prompt(between):
    clip = CLIP.copy()
    clip[3:6] = 0.1
    found = run(painted(1, TRUTH[1]), between, painted(8, TRUTH[8]), clip=clip)
    assert not any(seen.bridged for seen in found.objects["a"].answers.values())


clicks = st.dictionaries(
    st.tuples(st.integers(0, 9), st.integers(0, 63), st.integers(0, 63)),
    st.tuples(st.sampled_from("ab"), st.booleans()),
)


@settings(max_examples=40)
@given(
    clicks, st.sampled_from(["mask", "box", "click"]), st.sampled_from([16, 64, 256]), st.sampled_from(["off", "on"])
)
def test_what_was_clicked_is_right_whatever_else_was_said(said, start, image_size, zoom):
    """Each pixel has one click, of one of two objects; slice 4 is drawn by its start and not clicked on."""
    first = {"mask": painted(4, TRUTH[4]), "box": boxed(4, 20, 22, 40, 42), "click": clicked(4, (30, 32))}[start]
    prompts = {name: [first if name == "a" else painted(4, disk(centre_xy=(50, 10), radius=5))] for name in "ab"}
    said = {place: click for place, click in said.items() if place[0] != 4}
    for name, number in {(name, place[0]) for place, (name, _) in said.items()}:
        own = [(place[1:], sign) for place, (who, sign) in said.items() if (who, place[0]) == (name, number)]
        yes, no = ([xy for xy, sign in own if sign == wanted] for wanted in (True, False))
        prompts[name].append(clicked(number, *yes, negative=no, order=1 + number))
    ordered = {name: sorted(given, key=lambda p: p.slice) for name, given in prompts.items()}
    predictor = FakePredictor(image_size=image_size)
    found = segment(tracker_of(CLIP, options=replace(TIDY, zoom=zoom), predictor=predictor), ordered)
    labels = volume(found)
    for (n, x, y), (name, positive) in said.items():
        assert (labels[n, y, x] == 1 + "ab".index(name)) == positive


def test_a_negative_click_is_no_hole_to_be_filled():
    prompts = {"a": [painted(4, TRUTH[4]), clicked(5, negative=[(31, 32)])]}
    tracker = tracker_of(CLIP, options=replace(TIDY, fill_holes_px=50), predictor=FakePredictor(image_size=256))
    found = segment(tracker, prompts)
    assert found.labels[5][32, 31] == 0 and found.labels[5][32, 29] == 1


def test_a_painted_slice_of_another_object_counts_more_than_a_click():
    prompts = {"a": [painted(4, TRUTH[4])], "b": [clicked(4, (30, 32))]}
    assert (segment(tracker_of(CLIP, options=TIDY), prompts).labels[4] == TRUTH[4]).all()


def reached(*prompts, taper):
    pillar = clip_of(np.stack([disk(radius=8)] * 20))
    return sorted(run(*prompts, clip=pillar, options=replace(PLAIN, taper=taper)).objects["a"].answers)


WIDE, NARROW = painted(5, disk(radius=10)), painted(8, disk(radius=6))


def test_an_object_that_tapers_ends_soon_after_its_outermost_painted_slice():
    """Areas of 1 and 0.36 three slices apart: an ellipsoid would end 0.75 slices further."""
    assert reached(WIDE, NARROW, taper=1.0) == list(range(10))
    assert reached(WIDE, NARROW, taper=1.5) == list(range(11))
    assert reached(WIDE, NARROW, taper=0.0) == list(range(20))


@pytest.mark.parametrize(
    "prompts",
    [
        (WIDE,),
        (WIDE, painted(8, disk(radius=9))),
        (WIDE, painted(7, disk(radius=6.5)), NARROW),
        (WIDE, NARROW, clicked(10, (32, 32))),
    ],
    ids=["one painted slice", "about as wide", "no longer narrower", "a click further out"],
)
def test_where_its_shape_does_not_say_so_it_goes_on(prompts):
    assert reached(*prompts, taper=1.5) == list(range(20))


@given(end=st.floats(2, 18), share=st.floats(0.05, 0.95))
@settings(max_examples=25)
def test_no_slice_of_an_ellipsoid_is_cut_off(end, share):
    heights = np.arange(20) / end
    ball = [disk(radius=24 * np.sqrt(max(0, 1 - z**2))) & (z < 1) for z in heights]
    shown = sum(mask.any() for mask in ball)
    outer = int(share * shown)
    found = reached(painted(0, ball[0]), *([painted(outer, ball[outer])] if outer else []), taper=1.5)
    assert found[:shown] == list(range(shown))
