"""Prompts as words of a command line."""

import numpy as np
import pytest
from builders import ball, grid

from slicecast.errors import PromptError
from slicecast.prompts.parsing import parse_prompts
from slicecast.volume import write_mask


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
        ({"masks": ["a="]}, "--mask a= is not of the form NAME=FILE"),
        ({"negatives": ["a=1,2,3"]}, "nothing to start from"),
        ({}, "There is no prompt"),
    ],
)
def test_a_wrong_word_is_named(words, says):
    with pytest.raises(PromptError, match=says):
        parse_prompts(**words)
