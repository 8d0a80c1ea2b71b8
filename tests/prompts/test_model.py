"""Prompts are valid from construction on, and checked against the volume; the errors say what to do."""

import numpy as np
import pytest
from builders import ball, grid

from slicecast.errors import PromptError
from slicecast.prompts import Absent, Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.prompts.model import parse_prompts
from slicecast.volume import Geometry, write_mask

GRID = grid()  # 24 x 20 x 16


def spleen(**prompts):
    return ObjectPrompts("spleen", **prompts)


@pytest.mark.parametrize("given", [(1, 2, 3), [1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3])])
def test_points_take_whole_numbers_of_any_kind(given):
    point = Point(given)
    assert point == Point((1, 2, 3))
    assert all(type(n) is int for n in point.ijk)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1, 2, 12.5), r"\(1, 2, 12.5\) is not a voxel index. Give whole numbers"),
        ((1, 2, float("nan")), r"\(1, 2, nan\) is not a voxel index"),
        ((1, float("inf"), 3), "is not a voxel index"),
        ((1, 2), "is not three numbers"),
        ((1, 2, 3, 4), "is not three numbers"),
        ((1, 2, "x"), "is not three numbers"),
        ((1, 2, None), "is not"),
        (None, "is not three numbers"),
        ([[1, 2, 3]], "is not three numbers"),
    ],
)
def test_refuses_points(given, message):
    with pytest.raises(PromptError, match=message):
        Point(given)


def test_a_line_keeps_its_vertices_and_knows_what_it_passes():
    line = Line([np.array([1, 2, 9]), [1, 2, 9], (4, 2.0, 3), (4, 3, 3)])
    assert line == Line(((1, 2, 9), (4, 2, 3), (4, 3, 3))) and line.voxels == 6 + 1
    assert [list(line.span(axis)) for axis in (0, 1)] == [[1, 2, 3, 4], [2, 3]]


@pytest.mark.parametrize(
    ("vertices", "message"),
    [
        (5, "A line is given as 5. Give its vertices"),
        ("ab", "A line is given as 'ab'"),
        ([], "fewer than two different vertices"),
        ([(1, 2, 3), (1, 2, 3)], "fewer than two different vertices"),
        ([(1, 2, 3), (1, 2, 3.5)], r"Line vertex \(1, 2, 3.5\) is not a voxel index"),
        ([(1, 2, 3), (1, 2)], "is not three numbers"),
        ([(0, 0, 0), (0, 0, 10_001)], "10001 voxels long; at most 10000"),
    ],
)
def test_refuses_lines(vertices, message):
    with pytest.raises(PromptError, match=message):
        Line(vertices)


def test_reversed_corners_are_sorted():
    assert Box((5, 2, 7), (1, 9, 3)) == Box((1, 2, 3), (5, 9, 7))


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ((1, 2, 3), (1, 2, 3), "is a single voxel"),
        ((1, 2, 3.5), (4, 5, 6), "is not a voxel index"),
        ((1, 2), (4, 5), "is not three numbers"),
    ],
)
def test_refuses_boxes(low, high, message):
    with pytest.raises(PromptError, match=message):
        Box(low, high)


def test_masks_become_bool_and_slices_are_sorted():
    mask = MaskPrompt(ball().astype(np.uint8) * 3, slices=(9, 7.0, 7))
    assert mask.array.dtype == bool
    assert mask.slices == (7, 9)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((4, 4, 4)), {}, "The mask is empty"),
        (np.ones((4, 4)), {}, "is not a volume"),
        (np.ones((4, 4, 4)), {"slices": (-1,)}, "slice number -1"),
        (np.ones((4, 4, 4)), {"slices": (1.5,)}, "slice number 1.5"),
    ],
)
def test_refuses_masks(array, options, message):
    with pytest.raises(PromptError, match=message):
        MaskPrompt(array, **options)


@pytest.mark.parametrize("number", [-1, 1.5, float("nan"), float("inf"), "3", True, None])
def test_refuses_absent_slices(number):
    with pytest.raises(PromptError, match="Give a whole number"):
        Absent(number)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "'spleen' has no point, line, box or mask: nothing to start from"),
        ({"absent": [Absent(3)]}, "nothing to start from"),
        ({"points": [Point((1, 1, 1), positive=False)]}, "only 1 negative points"),
        ({"points": [(1, 1, 1)]}, "may only hold Point values"),
        ({"points": [Point((1, 1, 1)), Point((1, 1, 1), positive=False)]}, "both a positive and a negative point"),
    ],
)
def test_refuses_objects(prompts, message):
    with pytest.raises(PromptError, match=message):
        spleen(**prompts)


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_refuses_nameless_objects(name):
    with pytest.raises(PromptError, match="Give it a name"):
        ObjectPrompts(name, points=[Point((1, 1, 1))])


def test_refuses_sets():
    with pytest.raises(PromptError, match="There is no prompt"):
        PromptSet(())
    with pytest.raises(PromptError, match="'spleen' is given 2 times"):
        PromptSet([spleen(points=[Point((1, 1, 1))]), spleen(points=[Point((2, 2, 2))])])


@pytest.mark.parametrize("ijk", [(24, 0, 0), (0, 20, 0), (0, 0, 16), (-1, 0, 0), (0, 0, 10**30)])
def test_points_outside_are_named(ijk):
    prompts = PromptSet([spleen(points=[Point((1, 1, 1)), Point(ijk)])])
    with pytest.raises(PromptError, match=r"of 'spleen' lies outside the volume of 24 x 20 x 16 .* to 23, 19, 15"):
        prompts.check(GRID)


def test_boxes_outside_are_named():
    with pytest.raises(PromptError, match=r"box corner \(30, 5, 5\) of 'spleen' lies outside"):
        PromptSet([spleen(boxes=[Box((1, 1, 1), (30, 5, 5))])]).check(GRID)


def test_vertices_outside_are_named():
    with pytest.raises(PromptError, match=r"line's vertex \(1, 1, 16\) of 'spleen' lies outside"):
        PromptSet([spleen(lines=[Line(((1, 1, 1), (1, 1, 16)))])]).check(GRID)


def test_corner_voxels_are_inside():
    PromptSet([spleen(points=[Point((0, 0, 0)), Point((23, 19, 15))])]).check(GRID)


def test_a_mask_on_another_grid_is_described():
    other = Geometry((24, 20, 16), (1, 1, 2), GRID.origin_mm)
    with pytest.raises(PromptError, match=r"another grid .* spacing \(1, 1, 1\) against|spacing .* Resample the mask"):
        PromptSet([spleen(masks=[MaskPrompt(ball(), geometry=other)])]).check(GRID)
    with pytest.raises(PromptError, match=r"size \(10, 20, 16\) against \(24, 20, 16\) voxels"):
        PromptSet([spleen(masks=[MaskPrompt(ball((10, 20, 16)))])]).check(GRID)
    with pytest.raises(PromptError, match="its own grid's"):
        PromptSet([spleen(masks=[MaskPrompt(ball((10, 20, 16)), geometry=GRID)])]).check(GRID)
    PromptSet([spleen(masks=[MaskPrompt(ball(), geometry=GRID)])]).check(GRID)


def test_names_keep_their_order():
    prompts = PromptSet([ObjectPrompts(name, points=[Point((1, 1, 1))]) for name in ("b", "a")])
    assert prompts.names == ("b", "a")


def test_a_name_joins_the_prompts_of_one_object():
    found = parse_prompts(points=["a=1,2,3", "b=4,5,6"], negatives=["a=7,8,9"], absent=["b=3"])
    assert found.names == ("a", "b")
    first, second = found.objects
    assert [(p.ijk, p.positive) for p in first.points] == [((1, 2, 3), True), ((7, 8, 9), False)]
    assert [mark.slice for mark in second.absent] == [3]


def test_a_box_is_flat_with_five_numbers_and_deep_with_six():
    flat = parse_prompts(boxes=["a=9,8,1,2,4"]).objects[0].boxes[0]
    deep = parse_prompts(boxes=["a=9,8,7,1,2,3"]).objects[0].boxes[0]
    assert (flat.low_ijk, flat.high_ijk) == ((1, 2, 4), (9, 8, 4))
    assert (deep.low_ijk, deep.high_ijk) == ((1, 2, 3), (9, 8, 7))


def test_a_line_is_its_vertices():
    first, second = parse_prompts(lines=["a=1,2,3:4,5,6", "a=9,9,9:8,8,8:7,7,7"]).objects[0].lines
    assert (first, second) == (Line(((1, 2, 3), (4, 5, 6))), Line(((9, 9, 9), (8, 8, 8), (7, 7, 7))))


def test_a_mask_is_read_with_its_grid(tmp_path):
    painted, geometry = ball().astype(np.uint8), grid()
    file = tmp_path / "mask.nii.gz"
    write_mask(file, painted, geometry)
    mask = parse_prompts(masks=[f"a={file}"]).objects[0].masks[0]
    assert (mask.array == (painted > 0)).all()
    assert not mask.geometry.differences(geometry)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"points": ["1,2,3"]}, "--point 1,2,3 is not of the form NAME=i,j,k"),
        ({"points": ["a=1,2"]}, "--point a=1,2 is not of the form"),
        ({"points": ["a=1,2,x"]}, "--point a=1,2,x is not of the form"),
        ({"points": ["a=1,2,0.5"]}, "whole numbers"),
        ({"points": ["a=1,2,nan"]}, "whole numbers"),
        ({"boxes": ["a=1,2,3,4"]}, "--box a=1,2,3,4 is not of the form"),
        ({"lines": ["a=1,2,3:4,5"]}, "--line a=4,5 is not of the form NAME=i,j,k:i,j,k"),
        ({"lines": ["a=1,2,3"]}, "fewer than two different vertices"),
        ({"masks": ["a="]}, "--mask a= is not of the form NAME=FILE"),
        ({"negatives": ["a=1,2,3"]}, "nothing to start from"),
        ({}, "There is no prompt"),
    ],
)
def test_a_wrong_word_is_named(words, says):
    with pytest.raises(PromptError, match=says):
        parse_prompts(**words)
