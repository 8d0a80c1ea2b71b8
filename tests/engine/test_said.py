import numpy as np
import pytest

from slicecast.engine.session import Accept, Edit, PackedMask, Painted, Session
from slicecast.engine.session_prompts import Grid, items_of, painted, prompt_set
from slicecast.errors import PromptError
from slicecast.prompts import Absent, Box, MaskPrompt, ObjectPrompts, Point, PromptSet

GRID = Grid((6, 5, 4), along=0)
PLANE = np.zeros((5, 4), bool)
PLANE[2:4, 1:3] = True
DRAWN, EMPTY = PackedMask.of(PLANE), PackedMask.of(PLANE & False)
CLICK = ("liver", Point((1, 2, 3)))


def volume(**slices):
    array = np.zeros((6, 5, 4), bool)
    for n in slices.values():
        array[n] = PLANE
    return array


def drawn(entry):
    """Return what is painted on each slice of an object."""
    return {n: mask.array[n].tolist() for mask in entry.masks for n in mask.slices}


def said(*items, accepted=()):
    session = Session()
    session = session.then(session.adding(items))
    locked = tuple(Accept(*entry) for entry in accepted)
    return prompt_set(session.then(Edit(locked)).content, GRID)


def test_a_set_taken_apart_and_put_together_is_the_same():
    entry = ObjectPrompts(
        "liver",
        points=(Point((1, 2, 3)), Point((0, 0, 3), positive=False)),
        boxes=(Box((0, 0, 1), (3, 3, 1)),),
        masks=(MaskPrompt(volume(a=2, b=5)),),
        absent=(Absent(0),),
    )
    (back,) = said(*items_of(PromptSet((entry,)), GRID)).objects
    assert (back.points, back.boxes, back.absent) == (entry.points, entry.boxes, entry.absent)
    assert drawn(back) == {2: PLANE.tolist(), 5: PLANE.tolist()}


@pytest.mark.parametrize("along", [0, 1, 2])
def test_slices_are_cut_along_the_sessions_axis(along):
    grid, array = Grid((6, 5, 4), along), np.zeros((6, 5, 4), bool)
    array[2, 3, 1] = True
    found = painted(MaskPrompt(array), grid)
    assert [n for n, _ in found.slices] == [(2, 3, 1)[along]]
    mask = found.slices[0][1].unpack()
    assert mask.shape == grid.shape_hw and mask.sum() == 1
    assert grid.place == 2 - along


def test_objects_that_cannot_start_wait():
    assert said(("liver", Point((1, 2, 3), positive=False)), ("liver", Absent(2))) is None
    assert said(CLICK, ("spleen", Absent(2))).names == ("liver",)


def test_a_later_painting_of_a_slice_replaces_it():
    other = PLANE[::-1]
    found = said(("liver", Painted(((2, DRAWN), (3, DRAWN)))), ("liver", Painted(((2, PackedMask.of(other)),))))
    assert drawn(found.objects[0]) == {2: other.tolist(), 3: PLANE.tolist()}


def test_an_accepted_slice_wins_over_what_is_said_of_it():
    found = said(CLICK, ("liver", Painted(((3, PackedMask.of(~PLANE)),))), accepted=[("liver", 3, DRAWN)])
    assert drawn(found.objects[0]) == {3: PLANE.tolist()}
    assert said(CLICK, ("liver", Absent(2)), accepted=[("liver", 2, DRAWN)]).objects[0].absent == ()


def test_an_accepted_empty_slice_stays_empty():
    clicks = CLICK, ("liver", Point((1, 1, 1))), ("liver", Box((0, 0, 1), (2, 2, 1)))
    (entry,) = said(*clicks, accepted=[("liver", 1, EMPTY)]).objects
    (painted,) = entry.masks
    assert painted.slices == (1,) and not painted.array.any() and painted.after == len(entry.points)
    assert entry.points == (CLICK[1], Point((1, 1, 1))) and entry.boxes == ()
    (entry,) = said(("liver", Painted(((3, DRAWN),))), accepted=[("liver", 1, EMPTY)]).objects
    assert entry.absent == (Absent(1),)  # from the beginning
    assert said(("liver", Point((1, 1, 1))), accepted=[("liver", 1, EMPTY)]) is None  # nothing is left to start from


def test_a_mask_on_another_grid_or_slice_is_refused():
    with pytest.raises(PromptError, match="does not fit the volume"):
        painted(MaskPrompt(np.ones((6, 5, 5))), GRID)
    with pytest.raises(PromptError, match="given for slice 6; slices run from 0 to 5"):
        painted(MaskPrompt(volume(a=2), slices=(2, 6)), GRID)


def draft(*numbers):
    """A draft that was opened again: painted slices, empty where they end."""
    ends = [(n, EMPTY) for n in (min(numbers) - 1, max(numbers) + 1)]
    return "liver", Painted(tuple(sorted([*((n, DRAWN) for n in numbers), *ends])))


def test_a_later_click_frees_the_slices_of_a_draft_near_it():
    grid = Grid((12, 5, 4), along=0)

    def freed(*items):
        session = Session()
        return prompt_set(session.then(session.adding(items)).content, grid).objects[0]

    def numbers(entry):
        return sorted(n for mask in entry.masks for n in mask.slices)

    click = ("liver", Point((1, 2, 4), positive=False))
    assert numbers(freed(draft(*range(2, 10)), click)) == [7, 8, 9]
    assert numbers(freed(click, draft(*range(2, 10)))) == list(range(1, 11))  # painted after the click, ends and all
    beyond = freed(draft(*range(2, 7)), ("liver", Point((1, 2, 7))))  # where the draft ends: it goes on
    assert numbers(beyond) == [2, 3, 4] and [mark.slice for mark in beyond.absent] == [1]
    assert numbers(freed(draft(3, 4), click)) == [3]  # something is left to track from
    assert numbers(freed(draft(4), click)) == [4]  # a negative click alone finds nothing
    assert numbers(freed(draft(4), ("liver", Point((1, 2, 4))))) == []
