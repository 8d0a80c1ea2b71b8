"""Each click changes only what hangs together with it, whatever the network makes of all clicks together."""

from dataclasses import replace

import numpy as np
import pytest
from builders import scan
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from slicecast.engine.options import EngineOptions
from slicecast.engine.progressive import LEAST_SHARE, changed_by, changed_near
from slicecast.errors import PromptError
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import Absent, Box, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import write_volume
from slicecast_lab.simulation.fake import FakePredictor

SHAPE = (4, 5, 6)  # N, H, W
masks = arrays.arrays(bool, SHAPE)
clicks = st.tuples(*(st.integers(0, size - 1) for size in (SHAPE[0], SHAPE[2], SHAPE[1])), st.booleans())


@given(click=clicks, before=masks, after=masks)
def test_a_click_changes_one_way_and_only_where_the_answers_differ(click, before, after):
    n, x, y, positive = click
    kept = changed_by(click, before, after)
    assert not kept[before == after].any() and (after[kept] == positive).all()
    parts, _ = ndimage.label(after & ~before if positive else before & ~after, structure=np.ones((3, 3, 3)))
    assert len(np.unique(parts[kept])) <= (1 if before[n, y, x] != positive else parts.max())
    if before[n, y, x] != positive and after[n, y, x] == positive:
        assert kept[n, y, x]


def bar(length, *, width=4):
    """Ten slices; a bar on the middle four, to which `length` columns are added."""
    before, after = np.zeros((2, 10, 20, 40), dtype=bool)
    before[3:7, 8:12, 4 : 4 + width] = True
    after[:, 8:12, 4 : 4 + width + length] = True
    return before, before | after


@pytest.mark.parametrize(
    ("length", "x", "slices"),
    [
        (1, 9, range(3, 7)),  # a column on ten: the ends stay
        (6, 12, range(10)),  # as much again: the object may go on
        (20, 11, [4]),  # far more than a click beside the outline says
        (20, 20, range(10)),  # what a click in its middle says
    ],
)
def test_what_a_positive_click_adds_on_its_slice_says_where_else_it_adds(length, x, slices):
    before, after = bar(length, width=x - 4 if length == 1 else 6)
    kept = changed_by((4, x, 9, True), before, after)
    assert list(np.flatnonzero(kept.any(axis=(1, 2)))) == list(slices)


@given(click=clicks, before=masks, after=masks)
def test_a_positive_click_beside_the_object_moves_its_ends_only_where_it_adds_much(click, before, after):
    n, x, y, positive = click
    kept = changed_by(click, before, after)
    if positive and before[n].any() and not before[n, y, x]:
        new, shown = kept[n].sum(), np.flatnonzero(before.any(axis=(1, 2)))
        past = kept[: shown[0]].any() or kept[shown[-1] + 1 :].any()
        assert not past or new >= LEAST_SHARE * (before[n].sum() + new)


def stack(*widths):
    """A mask (N, 20, 40) of centred squares, one a slice, of these widths; 0: the slice shows nothing."""
    mask = np.zeros((len(widths), 20, 40), dtype=bool)
    for n, width in enumerate(widths):
        mask[n, 10 - width // 2 : 10 + width // 2, 20 - width // 2 : 20 + width // 2] = True
    return mask


def slices(mask):
    return list(np.flatnonzero(mask.any(axis=(1, 2))))


CUT = stack(0, 0, 0, 8, 10, 12, 10, 0, 0, 0, 0, 0, 0, 0)  # An object of which the slices past 6 were not found


@pytest.mark.parametrize(
    ("found", "taper", "shown"),
    [
        (8, 1.0, [7, 8]),  # two slices past the widest it has 64 of 144 pixels: an ellipsoid goes on for 0.7
        (8, 3.0, [7, 8, 9, 10]),
        (8, 0.0, [*range(7, 14)]),
        (12, 1.0, [*range(7, 14)]),  # as wide as ever: its shape does not say where it ends
        (16, 0.0, [7]),  # 256 pixels beside 100: it has run into something else
    ],
)
def test_past_its_end_an_object_goes_on_as_far_as_it_tapers(found, taper, shown):
    after = CUT | stack(*[0] * 7, *[found] * 7)
    assert slices(changed_by((7, 20, 10, True), CUT, after, taper=taper)) == shown


@pytest.mark.parametrize(
    ("width", "ends_move"),
    [(10, False), (6, True)],  # painted where 12 was found: Dice 0.82, 0.40
)
def test_painting_a_slice_that_was_nearly_right_moves_no_ends(width, ends_move):
    after = stack(2, 4, 6, 6, 8, width, 0, 0, 0, 0, 0, 0, 0, 0)
    near = changed_near([5], CUT, after, prompted=[5], taper=1.0)
    assert near[[3, 4, 5]].all() and near[6] == ends_move
    assert near[[0, 1, 2]].tolist() == [False, False, ends_move]  # one slice goes as far as an ellipsoid


@pytest.mark.parametrize(
    ("x", "slices_left"),
    [
        (20, []),  # in the middle of a slice that is too much: with it goes what hangs together with it
        (16, [3, 4, 6]),  # at its edge, though the whole slice goes
    ],
)
def test_a_negative_click_at_the_edge_of_a_slice_empties_no_others(x, slices_left):
    before = stack(0, 0, 0, 10, 10, 10, 10)
    kept = changed_by((5, x, 10, False), before, np.zeros_like(before))
    assert slices(before & ~kept) == slices_left


@pytest.fixture
def file(tmp_path):
    """A scan that shows a long bar and, one slice further, a ball beside it."""
    k, j, i = np.indices((12, 24, 40))
    bar = (np.abs(j - 8) < 4) & (np.abs(i - 12) < 6)
    ball = (k - 5) ** 2 + (j - 16) ** 2 + (i - 30) ** 2 < 16
    write_volume(tmp_path / "scan.nii.gz", scan(bar | ball))
    return tmp_path / "scan.nii.gz"


def request(file, *, progressive=True, **prompts):
    options = EngineOptions(progressive=progressive)
    return SegmentRequest(file, PromptSet((ObjectPrompts("a", **prompts),)), options=options)


INSIDE, BALL, BESIDE = Point((12, 8, 6)), Point((30, 16, 5)), Point((20, 20, 9), positive=False)


def test_clicks_one_by_one_and_all_at_once_are_answered_alike(file):
    """With the caches of earlier requests, and without."""
    asked, fresh = SegmentService(predictor=FakePredictor()), SegmentService(predictor=FakePredictor())
    points = (INSIDE, BALL, BESIDE)
    for count in (1, 2, 3):
        stepwise = asked.segment(request(file, points=points[:count]))
    at_once = fresh.segment(request(file, points=points))
    assert (stepwise.mask == at_once.mask).all() and stepwise.confidence == at_once.confidence
    assert asked.segment(request(file, points=points)).slices_recomputed == 0


def test_a_first_prompt_is_answered_as_ever(file):
    service = SegmentService(predictor=FakePredictor())
    painted = np.zeros((12, 24, 40), dtype=bool)
    painted[6, 5:12, 7:18] = True
    for prompts in (
        {"points": (INSIDE,)},
        {"boxes": (Box((7, 5, 6), (17, 11, 6)),)},
        {"masks": (MaskPrompt(painted),), "absent": (Absent(2),)},
    ):
        with_it, without = (service.segment(request(file, progressive=on, **prompts)) for on in (True, False))
        assert (with_it.mask == without.mask).all() and with_it.confidence == without.confidence


@pytest.mark.parametrize("seed", range(6))
def test_a_positive_click_only_adds_and_a_negative_one_only_takes_away(file, seed):
    service, rng = SegmentService(predictor=FakePredictor()), np.random.default_rng(seed)
    points, before = (INSIDE,), service.segment(request(file, points=(INSIDE,))).mask == 1
    for _ in range(5):
        ijk = tuple(int(rng.integers(0, size)) for size in (40, 24, 12))
        if any(point.ijk == ijk for point in points):
            continue
        points = (*points, Point(ijk, positive=bool(rng.integers(2))))
        after = service.segment(request(file, points=points)).mask == 1
        assert not (before & ~after).any() if points[-1].positive else not (after & ~before).any()
        assert after[ijk[::-1]] == points[-1].positive
        before = after


def test_several_objects_are_each_answered_as_alone(file):
    service = SegmentService(predictor=FakePredictor())
    one, two = (
        ObjectPrompts("bar", points=(INSIDE, BESIDE)),
        ObjectPrompts("ball", points=(BALL, replace(INSIDE, positive=False))),
    )
    both = service.segment(SegmentRequest(file, PromptSet((one, two)))).mask
    for value, entry in enumerate((one, two), start=1):
        assert ((both == value) == (service.segment(SegmentRequest(file, PromptSet((entry,)))).mask == 1)).all()


def test_a_click_on_a_painted_slice_still_corrects_it(file):
    service = SegmentService(predictor=FakePredictor())
    painted = np.zeros((12, 24, 40), dtype=bool)
    painted[6, 5:12, 7:18] = True
    masks, absent = (MaskPrompt(painted),), (Absent(2),)
    result = service.segment(request(file, masks=masks, absent=absent, points=(Point((12, 8, 6), positive=False),)))
    assert result.mask[6, 8, 12] == 0 and not result.mask[2].any()


@given(painted=st.sets(st.integers(0, 3)), others=st.sets(st.integers(0, 3)), before=masks, after=masks)
def test_a_painted_slice_changes_what_is_nearest_to_it_and_nothing_where_it_was_right(painted, others, before, after):
    near = changed_near(sorted(painted), before, after, prompted=[*painted, *others])
    told = [n for n in painted if (before[n] != after[n]).any()]
    assert near[told].all() and not near[sorted((painted | others) - set(told))].any()
    assert not changed_near(sorted(painted), before, before, prompted=[*painted, *others]).any()
    for n in np.flatnonzero(near):
        assert min(abs(n - k) for k in told) <= min((abs(n - k) for k in others - set(told)), default=len(before))


def volume(mask, number):
    """A mask in which one slice of another stands."""
    array = np.zeros_like(mask)
    array[number] = mask[number]
    return array


@pytest.mark.parametrize("number", [1, 4, 6, 9])
def test_accepting_slices_changes_nothing(file, number):
    """One that a click was given on, one beside it and empty ones; and clicks go on from there."""
    service, points = SegmentService(predictor=FakePredictor()), (INSIDE, BESIDE)
    before = service.segment(request(file, points=points))
    accepted = MaskPrompt(volume(before.mask == 1, number), slices=(number,), after=2)
    after = service.segment(request(file, points=points, masks=(accepted,)))
    assert (after.mask == before.mask).all()
    both = MaskPrompt(volume(before.mask == 1, 5), slices=(5,), after=2)
    assert (service.segment(request(file, points=points, masks=(accepted, both))).mask == before.mask).all()
    further = service.segment(request(file, points=(*points, BALL), masks=(accepted, both))).mask == 1
    assert not ((before.mask == 1) & ~further).any() and further[5, 16, 30]


def test_what_is_painted_after_clicks_stands_and_leaves_slices_nearer_to_them(file):
    service = SegmentService(predictor=FakePredictor())
    points = (INSIDE, Point((12, 8, 1)))
    before = service.segment(request(file, points=points)).mask
    painted = np.zeros((12, 24, 40), dtype=bool)
    painted[9, 2:20, 3:36] = True
    after = service.segment(request(file, points=points, masks=(MaskPrompt(painted, after=2),))).mask
    assert ((after[9] == 1) == painted[9]).all() and (after[:7] == before[:7]).all()
    assert (after[10] != before[10]).any()


def test_a_click_is_painted_over_by_a_later_mask_of_its_slice_and_corrects_an_earlier_one(file):
    service = SegmentService(predictor=FakePredictor())
    painted = np.zeros((12, 24, 40), dtype=bool)
    painted[6, 5:12, 7:18] = True
    outside = Point((12, 8, 6), positive=False)
    for after, there in ((2, True), (1, False)):
        points = (Point((12, 8, 7)), outside)
        result = service.segment(request(file, points=points, masks=(MaskPrompt(painted, after=after),)))
        assert result.mask[6, 8, 12] == there


def test_where_all_that_was_clicked_is_wiped_out_the_object_is_found_from_what_came_later(file):
    service = SegmentService(predictor=FakePredictor())
    nothing = MaskPrompt(np.zeros((12, 24, 40), dtype=bool), slices=(6,), after=1)
    result = service.segment(request(file, points=(INSIDE, BALL), masks=(nothing,)))
    assert not result.mask[6].any() and result.mask[5, 16, 30] == 1
    with pytest.raises(PromptError, match="Every painted slice of 'a' is empty"):
        service.segment(request(file, points=(INSIDE,), masks=(nothing,)))
