"""A prompt lands on the same anatomical pixel however the scan is stored."""

from itertools import pairwise

import numpy as np
import pytest
from builders import ORIENTATIONS, ball, grid, stored_as
from hypothesis import given
from hypothesis import strategies as st

from slicecast.errors import PromptError
from slicecast.prompts import (
    Absent,
    Box,
    Line,
    MaskPrompt,
    ObjectPrompts,
    Point,
    PromptSet,
    first_clicked,
    found_by_click,
    place,
    slice_to_source_ijk,
    to_slice_prompts,
)
from slicecast.prompts.mapping import slice_ranges
from slicecast.volume import Reorientation, SliceAxis, SliceStack, Volume, canonicalise

SIZE = (4, 5, 6)
NUMBERED = Volume(np.arange(120).reshape(6, 5, 4), grid(SIZE))
SAME = Reorientation.of(NUMBERED.geometry)
orientations = st.sampled_from(ORIENTATIONS)
axes = st.sampled_from(SliceAxis)


def one(**prompts):
    return PromptSet([ObjectPrompts("a", **prompts)])


def mapped(reorientation, axis, **prompts):
    return to_slice_prompts(one(**prompts), reorientation, axis)["a"]


@given(orientation=orientations, axis=axes, data=st.data())
def test_a_click_lands_on_its_voxel(orientation, axis, data):
    stored = stored_as(NUMBERED, *orientation)
    canonical, reorientation = canonicalise(stored)
    i, j, k = ijk = data.draw(st.tuples(*[st.integers(0, n - 1) for n in stored.geometry.size_ijk]))
    (prompt,) = mapped(reorientation, axis, points=[Point(ijk)])
    (x, y), *_ = prompt.points_xy.astype(int)
    assert SliceStack(canonical.array, axis).slice(prompt.slice)[y, x] == stored.array[k, j, i]
    assert slice_to_source_ijk(reorientation, axis, n=prompt.slice, xy=prompt.points_xy).tolist() == [list(ijk)]


@given(orientation=orientations, axis=axes, data=st.data())
def test_every_prompt_is_the_same_for_every_storage(orientation, axis, data):
    voxels = st.tuples(*[st.integers(0, n - 1) for n in SIZE])
    point, low, high = (data.draw(voxels) for _ in range(3))
    high = tuple((h if h != a else (h + 1) % n) for a, h, n in zip(low, high, SIZE, strict=True))
    painted = np.zeros(SIZE[::-1], bool)
    painted[point[2], point[1], point[0]] = True
    expected = mapped(SAME, axis, points=[Point(point)], boxes=[Box(low, high)], masks=[MaskPrompt(painted)])

    stored = stored_as(NUMBERED, *orientation)
    back = Reorientation.of(stored.geometry)
    found = mapped(
        back,
        axis,
        points=[Point(back.to_source_ijk(point))],
        boxes=[Box(back.to_source_ijk(low), back.to_source_ijk(high))],
        masks=[MaskPrompt(back.to_source_array(painted))],
    )
    assert [prompt.slice for prompt in found] == [prompt.slice for prompt in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours.points_xy, theirs.points_xy)
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.array_equal(ours.box_xyxy, theirs.box_xyxy)
        assert np.array_equal(ours.mask, theirs.mask)


lines = st.lists(st.tuples(*[st.integers(0, n - 1) for n in SIZE]), min_size=2, max_size=4).filter(
    lambda vertices: len(set(vertices)) > 1
)


def distance(voxel, start, end):
    """From a voxel (slice, x, y) to where a segment passes that slice; anywhere, if it lies in the slice."""
    voxel, start, end = (np.array(place, dtype=float) for place in (voxel, start, end))
    way = end - start
    shares = [(voxel[0] - start[0]) / way[0]] if way[0] else [0.0, 1.0]
    return min(np.abs(voxel - (start + share * way)).max() if 0 <= share <= 1 else np.inf for share in shares)


@given(vertices=lines, axis=axes)
def test_a_line_is_on_every_slice_that_it_passes_and_nowhere_beside_itself(vertices, axis):
    found = mapped(SAME, axis, lines=[Line(vertices)])
    assert [prompt.slice for prompt in found] == list(Line(vertices).span(axis))
    corners = axis.to_slice(np.array(vertices)).tolist()
    for prompt in found:
        assert prompt.labels.all() and len(prompt.points_xy)
        for xy in prompt.points_xy.tolist():
            assert min(distance((prompt.slice, *xy), a, b) for a, b in pairwise(corners)) <= 0.5
    placed = {(prompt.slice, *xy) for prompt in found for xy in prompt.points_xy.tolist()}
    assert placed >= {tuple(corner) for corner in corners}


@given(vertices=lines, axis=axes)
def test_a_line_is_found_from_its_middle_and_passes_the_others(vertices, axis):
    found = mapped(SAME, axis, lines=[Line(vertices)])
    first, *others = sorted(found, key=lambda prompt: prompt.order)
    assert first_clicked(found) is first and not first.passed and all(prompt.passed for prompt in others)
    assert abs(2 * first.slice - found[0].slice - found[-1].slice) <= 1


@given(orientation=orientations, axis=axes, vertices=lines)
def test_a_line_is_the_same_for_every_storage_and_from_either_end(orientation, axis, vertices):
    expected = mapped(SAME, axis, lines=[Line(vertices)])
    back = Reorientation.of(stored_as(NUMBERED, *orientation).geometry)
    stored = [back.to_source_ijk(vertex) for vertex in vertices]
    for found in (mapped(back, axis, lines=[Line(stored)]), mapped(SAME, axis, lines=[Line(vertices[::-1])])):
        assert [(p.slice, p.order, p.passed) for p in found] == [(p.slice, p.order, p.passed) for p in expected]
        assert [p.points_xy.tolist() for p in found] == [p.points_xy.tolist() for p in expected]


def test_an_object_begins_and_ends_with_its_line_unless_more_is_said():
    line, way = (
        Line(((0, 0, 1), (0, 0, 3))),
        Reorientation.of(stored_as(NUMBERED, (0, 1, 2), (False, False, True)).geometry),
    )
    for more, extent in (
        ({}, (1, 4)),
        ({"points": [Point((1, 1, 0))]}, (0, 4)),
        ({"absent": [Absent(5)]}, (1, 4)),
        ({"boxes": [Box((0, 0, 0), (2, 2, 4))]}, (0, 5)),
    ):
        _, limits = place(one(lines=[line], **more), SAME, SliceAxis.AXIAL)
        assert limits == {"a": extent}
    assert place(one(lines=[line]), way, SliceAxis.AXIAL)[1] == {"a": (2, 5)}
    assert place(one(lines=[line]), SAME, SliceAxis.SAGITTAL)[1] == {"a": (0, 1)}
    with pytest.raises(PromptError, match="prompt on axial slice 1, outside the range"):
        place(one(lines=[line]), SAME, SliceAxis.AXIAL, within=(2, 6))


def test_what_is_said_of_a_slice_or_voxel_counts_before_a_line():
    painted = np.zeros(SIZE[::-1], bool)
    painted[3, 1, 1] = True
    found = mapped(
        SAME,
        SliceAxis.AXIAL,
        lines=[Line(((0, 0, 0), (0, 0, 5)))],
        masks=[MaskPrompt(painted)],
        absent=[Absent(4)],
        points=[Point((0, 0, 1), positive=False), Point((2, 2, 0))],
    )
    assert [(p.slice, p.labels.tolist(), p.passed, p.absent) for p in found] == [
        (0, [1, 1], False, False),
        (1, [0], False, False),
        (2, [1], False, False),
        (3, [], False, False),
        (4, [], False, True),
        (5, [1], True, False),
    ]


def test_absent_slices_and_mask_slices_follow_the_flip():
    stored = stored_as(NUMBERED, (0, 1, 2), (False, False, True))
    reorientation = Reorientation.of(stored.geometry)
    painted = np.zeros(SIZE[::-1], bool)
    painted[1] = True
    found = mapped(reorientation, SliceAxis.AXIAL, masks=[MaskPrompt(painted, slices=(1, 2))], absent=[Absent(0)])
    assert [(prompt.slice, prompt.absent) for prompt in found] == [(3, True), (4, False), (5, True)]


def test_prompts_are_collected_by_slice_ascending():
    found = mapped(
        SAME,
        SliceAxis.AXIAL,
        points=[Point((1, 2, 4)), Point((3, 1, 0)), Point((0, 0, 4), positive=False), Point((1, 2, 4))],
        boxes=[Box((0, 1, 2), (2, 3, 2))],
    )
    assert [prompt.slice for prompt in found] == [0, 2, 4]
    assert found[2].points_xy.tolist() == [[1, 2], [0, 0]]
    assert found[2].labels.tolist() == [1, 0]
    assert found[2].points_xy.dtype == np.float32
    assert found[1].points_xy.shape == (0, 2)
    assert found[1].box_xyxy.tolist() == [0, 1, 2, 3]
    assert found[1].box_xyxy.dtype == np.float32
    assert [prompt.starts for prompt in found] == [True, True, True]


def test_a_negative_click_alone_does_not_start():
    found = mapped(SAME, SliceAxis.AXIAL, points=[Point((1, 1, 1)), Point((1, 1, 3), positive=False)])
    assert [prompt.starts for prompt in found] == [True, False]


def test_a_mask_is_used_slice_by_slice():
    truth = ball(radius=3)
    reorientation = Reorientation.of(grid())
    found = mapped(reorientation, SliceAxis.CORONAL, masks=[MaskPrompt(truth)])
    assert [prompt.slice for prompt in found] == np.flatnonzero(truth.any(axis=(0, 2))).tolist()
    for prompt in found:
        assert np.array_equal(prompt.mask, truth[:, prompt.slice])
        assert prompt.mask.flags.c_contiguous


def test_a_3d_box_sits_on_its_middle_slice_and_gives_the_range():
    prompts = one(boxes=[Box((0, 1, 1), (2, 3, 4))])
    (prompt,) = to_slice_prompts(prompts, SAME, SliceAxis.AXIAL)["a"]
    assert prompt.slice == 2
    assert prompt.box_xyxy.tolist() == [0, 1, 2, 3]
    assert slice_ranges(prompts, SAME, SliceAxis.AXIAL) == {"a": (1, 5)}


def test_the_range_follows_the_flip():
    stored = stored_as(NUMBERED, (0, 1, 2), (False, False, True))
    prompts = one(boxes=[Box((0, 1, 1), (2, 3, 3))])
    assert slice_ranges(prompts, Reorientation.of(stored.geometry), SliceAxis.AXIAL) == {"a": (2, 5)}


def test_flat_boxes_and_points_do_not_confine():
    flat = Box((0, 1, 2), (2, 3, 2))
    deep = Box((0, 1, 3), (2, 3, 5))
    assert slice_ranges(one(boxes=[flat]), SAME, SliceAxis.AXIAL) == {"a": None}
    assert slice_ranges(one(points=[Point((1, 1, 1))]), SAME, SliceAxis.AXIAL) == {"a": None}
    assert slice_ranges(one(boxes=[flat, deep]), SAME, SliceAxis.AXIAL) == {"a": None}


def test_several_objects_stay_apart():
    prompts = PromptSet([ObjectPrompts(name, points=[Point((n, n, n))]) for n, name in enumerate("ab")])
    found = to_slice_prompts(prompts, SAME, SliceAxis.SAGITTAL)
    assert {name: [prompt.slice for prompt in slices] for name, slices in found.items()} == {"a": [0], "b": [1]}


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"points": [Point((4, 0, 0))]}, r"\(4, 0, 0\) of 'a' lies outside"),
        ({"points": [Point((1, 1, 1))], "absent": [Absent(6)]}, "slice 6; the axial slices run from 0 to 5"),
        ({"points": [Point((1, 1, 1))], "absent": [Absent(1)]}, "Slice 1 of 'a' is marked as not showing it"),
        ({"boxes": [Box((0, 1, 1), (3, 1, 4))]}, "flat, but not along the axial axis"),
        ({"boxes": [Box((0, 1, 2), (3, 2, 2)), Box((0, 3, 2), (3, 4, 2))]}, "two boxes on one slice"),
        ({"masks": [MaskPrompt(np.ones((6, 5, 4))), MaskPrompt(np.ones((6, 5, 4)))]}, "two masks on one slice"),
        ({"masks": [MaskPrompt(np.ones((6, 5, 4)), slices=(9,))]}, "slice 9; the axial slices run"),
        ({"masks": [MaskPrompt(np.eye(6, 5)[..., None] * np.ones(4), slices=(5,))]}, "Every painted slice"),
    ],
)
def test_refuses(prompts, message):
    with pytest.raises(PromptError, match=message):
        mapped(SAME, SliceAxis.AXIAL, **prompts)


def test_a_click_on_a_phantom_hits_it(any_phantom):
    k, j, i = np.argwhere(any_phantom.truth)[len(np.argwhere(any_phantom.truth)) // 2]
    _, reorientation = canonicalise(any_phantom.volume)
    truth = reorientation.to_canonical_array(any_phantom.truth)
    for axis in SliceAxis:
        (prompt,) = mapped(reorientation, axis, points=[Point((i, j, k))])
        (x, y), *_ = prompt.points_xy.astype(int)
        assert SliceStack(truth, axis).slice(prompt.slice)[y, x]


def test_the_slice_clicked_first_is_known_whatever_its_number():
    geometry = grid((8, 8, 8))
    points = [Point((1, 1, 6), positive=False), Point((2, 2, 5)), Point((3, 3, 2)), Point((1, 2, 6))]
    prompts = to_slice_prompts(
        PromptSet((ObjectPrompts("a", points=tuple(points)),)), Reorientation.of(geometry), SliceAxis.AXIAL
    )["a"]
    assert (
        first_clicked(prompts).slice
        == SliceAxis.AXIAL.to_slice(Reorientation.of(geometry).to_canonical_ijk((2, 2, 5)))[0]
    )


@pytest.mark.parametrize(
    ("after", "box", "found"),
    [(None, False, 3), (0, False, None), (1, False, None), (2, False, 3), (2, True, None)],
)
def test_an_object_is_found_by_the_click_that_came_before_anything_drawn(after, box, found):
    """A negative click finds nothing; a slice painted before the positive one does."""
    truth = np.zeros((8, 8, 8), bool)
    truth[6, 2:5, 2:5] = True
    masks = () if after is None else (MaskPrompt(truth, slices=(6,), after=after),)
    entry = ObjectPrompts(
        "a",
        points=(Point((1, 1, 1), positive=False), Point((3, 3, 3)), Point((3, 3, 2))),
        masks=masks,
        boxes=(Box((1, 1, 4), (5, 5, 4)),) if box else (),
    )
    prompts = to_slice_prompts(PromptSet((entry,)), Reorientation.of(grid((8, 8, 8))), SliceAxis.AXIAL)["a"]
    first = found_by_click(prompts)
    assert (None if first is None else first.slice) == found


def test_a_click_that_was_painted_over_found_nothing_for_what_is_clicked_later():
    truth = np.zeros((8, 8, 8), bool)
    truth[3, 2:5, 2:5] = True
    entry = ObjectPrompts("a", points=(Point((3, 3, 3)), Point((3, 3, 6))), masks=(MaskPrompt(truth, after=1),))
    prompts = to_slice_prompts(PromptSet((entry,)), Reorientation.of(grid((8, 8, 8))), SliceAxis.AXIAL)["a"]
    assert [p.slice for p in prompts] == [3, 6] and found_by_click(prompts) is None


def test_painted_and_boxed_slices_keep_the_order_in_which_they_were_given():
    first, second = np.zeros((16, 20, 24), bool), np.zeros((16, 20, 24), bool)
    first[9, 4:8, 4:8] = second[2, 4:8, 4:8] = True
    entry = ObjectPrompts("a", boxes=(Box((2, 2, 5), (9, 9, 5)),), masks=(MaskPrompt(first), MaskPrompt(second)))
    found = to_slice_prompts(PromptSet((entry,)), Reorientation.of(grid()), SliceAxis.AXIAL)["a"]
    assert [(p.slice, p.drawn) for p in found] == [(2, 1), (5, 2), (9, 0)]
