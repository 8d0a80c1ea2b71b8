"""All three slice axes: what further axes may change, and what stays as the annotator said."""

import threading

import numpy as np
import pytest
from builders import KINDS, ball, dice, grid, phantom, scan

from slicecast.engine.options import EngineOptions
from slicecast.errors import Cancelled
from slicecast.inference.queue import Priority
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.settings import EngineSettings
from slicecast.prompts import Absent, Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import write_volume
from slicecast_lab.simulation.fake import FakePredictor

CENTRE = (12, 10, 8)  # Of the ball that `builders.ball` draws
ALL_AXES = EngineOptions(multi_axis=True)


@pytest.fixture
def service():
    return SegmentService(predictor=FakePredictor())


@pytest.fixture
def file(tmp_path):
    write_volume(tmp_path / "scan.nii.gz", scan(ball()))
    return tmp_path / "scan.nii.gz"


def asked(file, *, options=ALL_AXES, range=None, **prompts):
    return SegmentRequest(file, PromptSet((ObjectPrompts("ball", **prompts),)), range=range, options=options)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_found_whatever_way_its_scan_is_stored(service, tmp_path, kind):
    shown = phantom(kind)
    write_volume(tmp_path / "scan.nii.gz", shown.volume)
    places = np.argwhere(shown.truth)
    inside = places[np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()][::-1].tolist()
    click = {"points": (Point(tuple(inside)),)}
    one = service.segment(asked(tmp_path / "scan.nii.gz", options=EngineOptions(), **click))
    result = service.segment(asked(tmp_path / "scan.nii.gz", **click))
    assert dice(result.mask == 1, shown.truth) >= dice(one.mask == 1, shown.truth) - 0.02
    assert result.slices_walked > one.slices_walked


def test_what_was_painted_clicked_or_marked_absent_stays(service, file):
    painted = np.zeros_like(ball())
    painted[8, 9:12, 11:14] = True
    clicks = (Point((12, 10, 9)), Point((13, 10, 10), positive=False))
    result = service.segment(asked(file, masks=(MaskPrompt(painted),), points=clicks, absent=(Absent(6),)))
    assert ((result.mask[8] == 1) == painted[8]).all()
    assert result.mask[9, 10, 12] == 1 and result.mask[10, 10, 13] == 0
    assert not result.mask[:7].any()


def test_nothing_leaves_the_range(service, file):
    result = service.segment(asked(file, points=(Point(CENTRE),), range=(7, 10)))
    assert result.mask[7:10].any() and not result.mask[:7].any() and not result.mask[10:].any()


@pytest.mark.parametrize(
    "prompts",
    [
        {"boxes": (Box((7, 5, 8), (17, 15, 8)),)},
        {"boxes": (Box((7, 5, 4), (17, 15, 12)),)},
        {"lines": (Line(((12, 10, 6), (12, 10, 10))),)},
    ],
    ids=["box", "3D box", "line"],
)
def test_other_prompts_become_clicks_along_the_other_axes(service, file, prompts):
    one = service.segment(asked(file, options=EngineOptions(), **prompts))
    result = service.segment(asked(file, **prompts))
    assert result.slices_walked > one.slices_walked
    assert dice(result.mask == 1, one.mask == 1) > 0.8


def test_a_click_beside_a_3d_box_is_taken(service, file):
    beside = (Point((22, 10, 8), positive=False),)
    result = service.segment(asked(file, boxes=(Box((7, 5, 4), (17, 15, 12)),), points=beside))
    assert result.mask[8, 10, 12] == 1 and not result.mask[:4].any()


def test_several_painted_slices_are_left_alone(service, file):
    masks = (MaskPrompt(ball(), slices=(6, 10)),)
    one, result = (service.segment(asked(file, options=o, masks=masks)) for o in (EngineOptions(), ALL_AXES))
    assert (one.mask == result.mask).all() and one.slices_walked == result.slices_walked


def test_a_flat_scan_has_one_axis(service, tmp_path):
    write_volume(tmp_path / "flat.nii.gz", scan(ball()[8:9], grid((24, 20, 1))))
    result = service.segment(asked(tmp_path / "flat.nii.gz", points=(Point((12, 10, 0)),)))
    assert result.mask.any()


def test_the_last_word_on_each_slice_is_the_mask(service, file):
    told = {}
    click = asked(file, points=(Point(CENTRE),))
    result = service.segment(click, on_slice=lambda update: told.__setitem__(update.slice, update.mask))
    for number, plane in enumerate(result.mask):
        assert (told.get(number, np.zeros_like(plane)) == (plane == 1)).all()


def test_stopped_along_a_further_axis_it_keeps_the_first_axis_answer(service, file):
    whole = service.segment(asked(file, options=EngineOptions(), points=(Point(CENTRE),)))
    steps, stop = [], threading.Event()

    def progress(done, what):
        steps.append(done)
        if len(steps) > 1 and done < steps[-2]:  # another axis has begun
            stop.set()

    fresh = SegmentService(predictor=FakePredictor())
    click = asked(file, points=(Point(CENTRE),))
    result = fresh.segment(click, progress=progress, cancelled=stop.is_set, keep_partial=True)
    assert result.partial and dice(result.mask == 1, whole.mask == 1) > 0.9
    stop.set()
    with pytest.raises(Cancelled):
        SegmentService(predictor=FakePredictor()).segment(click, cancelled=stop.is_set)


def test_further_axes_give_way_to_whoever_waits_for_a_first_answer(file):
    service = SegmentService(predictor=FakePredictor(), settings=EngineSettings(idle_encode=False))

    def in_the_background(options):
        with service.queue.job("annotator"):
            service.segment(asked(file, options=options, points=(Point(CENTRE),)))
        return service.step_stats().taken.get(Priority.BACKGROUND, 0)

    assert in_the_background(EngineOptions()) == 0 < in_the_background(ALL_AXES)
