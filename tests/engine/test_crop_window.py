from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking import boxed, clicked, clip_of, disk, frames_of, painted, tracker_of

from slicecast.engine.anchors import choose_crop
from slicecast.engine.crop_window import (
    GROWTH,
    MIN_SIDE_PX,
    OUTSIDE_LOGIT,
    CropWindow,
    centred_crop,
    crop_around,
    cut,
    grown,
    paste,
    resample,
    to_model_prompt,
    touches_border,
    whole_crop,
)
from slicecast.engine.options import EngineOptions

BIG = (200, 240)
SMALL_DISK = disk(BIG, centre_xy=(150, 60), radius=12)
TRACKER = tracker_of(clip_of(SMALL_DISK[None]), options=EngineOptions(zoom="on"))

boxes = st.tuples(st.integers(0, 180), st.integers(0, 150), st.integers(0, 59), st.integers(0, 49)).map(
    lambda b: np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]], float)
)


def corners(box):
    return np.asarray(box, float).reshape(2, 2)


@given(st.lists(boxes, min_size=1, max_size=3), st.floats(1.0, 4.0), st.sampled_from([(1, 1), (0.7, 1.4), (3, 0.5)]))
def test_the_window_holds_every_box_and_is_square_in_mm(given_boxes, margin, spacing):
    frames = frames_of(np.zeros((1, *BIG), np.float32), spacing_xy_mm=spacing)
    crop = crop_around(frames, np.array(given_boxes), margin=margin)
    assert all(crop.contains(corners(box)) for box in given_boxes)
    assert abs(crop.width * spacing[0] - crop.height * spacing[1]) <= sum(spacing) / 2 + 1e-6
    assert crop.width >= MIN_SIDE_PX * max(spacing) / spacing[0] - 1 and crop.width <= whole_crop(frames).width


def test_the_margin_scales_the_window():
    crops = [crop_around(TRACKER.frames, np.array([[100, 80, 139, 99]]), margin=m) for m in (1.0, 2.0, 3.0)]
    assert [v.width for v in crops] == [40, 80, 120]
    assert all(v.contains(corners([100, 80, 139, 99])) for v in crops)


def test_without_zoom_the_whole_slice_is_seen():
    tracker = replace(TRACKER, options=EngineOptions(zoom="off"))
    assert choose_crop(tracker, [painted(0, SMALL_DISK)]) == whole_crop(TRACKER.frames)


@pytest.mark.parametrize(
    "prompt",
    [painted(0, SMALL_DISK), boxed(0, 138, 48, 162, 72), clicked(0, (150, 60))],
    ids=["mask", "box", "click"],
)
def test_each_kind_of_prompt_leads_to_a_window_around_the_object(prompt):
    crop = choose_crop(TRACKER, [prompt])
    assert crop.contains(corners([138, 48, 162, 72])) and crop.width <= 80
    assert abs(crop.x0 + crop.width / 2 - 150) < 5 and abs(crop.y0 + crop.height / 2 - 60) < 5


def test_a_far_click_widens_the_window():
    near, far = ([painted(0, SMALL_DISK), clicked(0, xy)] for xy in [(150, 60), (60, 150)])
    assert choose_crop(TRACKER, near).width < choose_crop(TRACKER, far).width
    assert choose_crop(TRACKER, far).contains(np.array([[60.0, 150.0]]))


def test_a_further_click_leaves_the_window_where_it_is():
    first = painted(0, SMALL_DISK)
    crop = choose_crop(TRACKER, [first])
    centre = np.array([crop.x0 + crop.width / 2, crop.y0 + crop.height / 2])
    for share in (0.0, 0.2, 0.35):
        near = clicked(1, tuple(centre + share * crop.width))
        assert choose_crop(TRACKER, [first, near]) == crop
    far = clicked(1, tuple(centre + 0.45 * crop.width))
    assert choose_crop(TRACKER, [first, far]).width > crop.width


def test_a_further_click_on_the_first_slice_leaves_the_window_where_it_is():
    # The fake model finds the disk from a click on it, and nothing from one beside it.
    first = clicked(0, (150, 60))
    beside = clicked(0, (150, 60), (150, 76), negative=[(130, 60)])
    assert choose_crop(TRACKER, [beside]) == choose_crop(TRACKER, [first])


def test_what_is_painted_later_leaves_the_window_where_it_is():
    first, later = painted(3, SMALL_DISK), replace(painted(0, np.roll(SMALL_DISK, 4, axis=1)), drawn=1)
    assert choose_crop(TRACKER, [later, first]) == choose_crop(TRACKER, [first])


def test_negative_clicks_do_not():
    alone = choose_crop(TRACKER, [painted(0, SMALL_DISK)])
    assert choose_crop(TRACKER, [painted(0, SMALL_DISK), clicked(0, negative=[(5, 190)])]) == alone


def test_where_nothing_is_found_the_whole_slice_is_seen():
    blank = tracker_of(np.zeros((1, *BIG), np.float32), options=EngineOptions(zoom="on"))
    assert choose_crop(blank, [clicked(0, (150, 60))]) == whole_crop(blank.frames)


@pytest.mark.parametrize("centre", [(3, 60), (236, 60), (150, 2), (0, 199)])
def test_an_object_at_the_slices_edge_is_found_and_needs_no_wider_window(centre):
    mask = disk(BIG, centre_xy=centre, radius=12)
    tracker = tracker_of(clip_of(mask[None]), options=EngineOptions(zoom="on"))
    crop = choose_crop(tracker, [clicked(0, centre)])
    rows, columns = np.nonzero(mask)
    assert crop.width <= 80
    assert crop.contains(corners([columns.min(), rows.min(), columns.max(), rows.max()]))


def at_border(side):
    mask = np.zeros((16, 16), bool)
    mask[{"top": np.s_[0, 6:9], "bottom": np.s_[-1, 6:9], "left": np.s_[6:9, 0], "right": np.s_[6:9, -1]}[side]] = True
    return mask


@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
def test_an_object_at_the_windows_border_counts_only_where_the_slice_goes_on(side):
    shape = (100, 100)
    inside = CropWindow(30, 30, 40, 40)
    flush = {"left": CropWindow(0, 30, 40, 40), "top": CropWindow(30, 0, 40, 40)} | {
        "right": CropWindow(60, 30, 40, 40),
        "bottom": CropWindow(30, 70, 40, 40),
    }
    assert touches_border(inside, at_border(side), shape)
    assert not touches_border(flush[side], at_border(side), shape)
    assert all(touches_border(crop, at_border(side), shape) for other, crop in flush.items() if other != side)


def test_an_object_inside_touches_nothing():
    middle = np.zeros((16, 16), bool)
    middle[4:12, 4:12] = True
    assert not touches_border(CropWindow(30, 30, 40, 40), middle, (100, 100))


@given(st.integers(24, 100), st.integers(0, 100), st.integers(0, 100))
def test_a_grown_window_holds_the_old_one_until_it_is_the_whole_slice(side, x0, y0):
    old = CropWindow(x0, y0, side, side)
    new = grown(old, TRACKER.frames)
    if new == whole_crop(TRACKER.frames):
        assert old.width * GROWTH >= new.width - 1
    else:
        assert new.width == pytest.approx(old.width * GROWTH, abs=1)
        assert new.x0 <= old.x0 and new.x0 + new.width >= old.x0 + old.width


def test_prompts_are_carried_into_model_pixels():
    crop = CropWindow(100, 50, 40, 40)
    sent = to_model_prompt(clicked(0, (110, 60), negative=[(120, 70), (10, 10)]), crop, size=80)
    assert sent.points_xy == pytest.approx(np.array([[20.5, 20.5], [40.5, 40.5]]))
    assert sent.labels.tolist() == [1, 0] and sent.labels.dtype == np.int32 and sent.box_xyxy is None
    box = to_model_prompt(boxed(0, 100, 50, 139, 89), crop, size=80).box_xyxy
    assert box == pytest.approx([0.5, 0.5, 78.5, 78.5])


crops = st.builds(CropWindow, st.integers(-30, 60), st.integers(-30, 60), st.integers(1, 90), st.integers(1, 90))
shapes = st.tuples(st.integers(1, 70), st.integers(1, 70))
spacings = st.tuples(st.floats(0.3, 5.0), st.floats(0.3, 5.0))


@given(crops, st.integers(4, 1024), st.tuples(st.floats(-50, 100), st.floats(-50, 100)))
def test_slice_pixels_survive_the_way_to_the_model_and_back(crop, size, xy):
    u, v = crop.to_model_xy(np.array([xy]), size=size)[0].astype(float)
    back = ((u + 0.5) * crop.width / size + crop.x0 - 0.5, (v + 0.5) * crop.height / size + crop.y0 - 0.5)
    assert back == pytest.approx(xy, abs=1e-3)


@given(crops, st.integers(4, 1024))
def test_a_windows_edges_become_the_inputs_edges(crop, size):
    edges = np.array([[crop.x0, crop.y0], [crop.x0 + crop.width, crop.y0 + crop.height]]) - 0.5
    assert crop.to_model_xy(edges, size=size) == pytest.approx(np.array([[-0.5] * 2, [size - 0.5] * 2]), abs=1e-2)
    assert crop.contains(edges) and not crop.contains(edges + 0.1) and not crop.contains(edges - 0.1)


@given(shapes, spacings)
def test_the_whole_view_covers_the_slice_and_is_square_in_mm(shape, spacing):
    crop = whole_crop(frames_of(np.zeros((1, *shape), np.float32), spacing_xy_mm=spacing))
    assert crop.open_sides(shape) == (False, False, False, False)
    assert abs(crop.width * spacing[0] - crop.height * spacing[1]) <= sum(spacing) / 2 + 1e-6


@given(shapes, spacings, st.tuples(st.floats(0, 60), st.floats(0, 60)), st.floats(1, 60))
def test_a_centred_view_lies_around_its_centre(shape, spacing, centre, side_mm):
    crop = centred_crop(frames_of(np.zeros((1, *shape), np.float32), spacing_xy_mm=spacing), centre, side_mm)
    middle = crop.x0 + (crop.width - 1) / 2, crop.y0 + (crop.height - 1) / 2
    assert middle == pytest.approx(centre, abs=0.51)


@pytest.mark.parametrize(
    ("crop", "sides"),
    [
        (CropWindow(0, 0, 20, 10), (False, False, False, False)),
        (CropWindow(5, 2, 10, 5), (True, True, True, True)),
        (CropWindow(-3, 2, 10, 8), (False, True, True, False)),
        (CropWindow(5, -9, 15, 30), (True, False, False, False)),
    ],
)
def test_open_sides_are_those_where_the_slice_goes_on(crop, sides):
    assert crop.open_sides((10, 20)) == sides


def test_a_window_of_the_models_size_shows_the_pixels_themselves(rng):
    image = rng.random((1, 30, 40), dtype=np.float32)
    seen = frames_of(image).render(0, CropWindow(4, 6, 16, 16), size=16)
    assert (seen == image[0, 6:22, 4:20]).all()


def test_a_window_beyond_the_slice_is_dark(rng):
    image = rng.random((1, 10, 10), dtype=np.float32)
    seen = frames_of(image).render(0, CropWindow(-5, -3, 20, 20), size=20)
    assert (seen[3:13, 5:15] == image[0]).all()
    seen[3:13, 5:15] = 0
    assert not seen.any()


def test_a_dot_is_seen_where_its_pixel_is_mapped_to():
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 12, 25] = 1
    crop = CropWindow(15, 5, 20, 20)
    seen = frames_of(image).render(0, crop, size=80)
    y, x = np.indices(seen.shape)
    centre = (x * seen).sum() / seen.sum(), (y * seen).sum() / seen.sum()
    assert centre == pytest.approx(crop.to_model_xy(np.array([[25.0, 12.0]]), size=80)[0], abs=0.01)


def test_anisotropic_pixels_are_not_squashed():
    """A disk of 20 mm on pixels of 1 x 2 mm is an ellipse in pixels and a disk for the model."""
    y, x = np.indices((30, 60), dtype=float)
    ellipse = ((x - 30) ** 2 + (2 * (y - 15)) ** 2 <= 20**2).astype(np.float32)
    frames = frames_of(ellipse[None], spacing_xy_mm=(1.0, 2.0))
    seen = frames.render(0, whole_crop(frames), size=120) > 0.5
    wide, high = np.ptp(np.flatnonzero(seen.any(axis=0))), np.ptp(np.flatnonzero(seen.any(axis=1)))
    assert abs(int(wide) - int(high)) <= 3


@given(crops, shapes)
def test_what_is_cut_out_is_pasted_back_in_place(crop, shape):
    image = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape) + 1
    piece = cut(image, crop)
    assert piece.shape == (crop.height, crop.width)
    back = cut(piece, CropWindow(-crop.x0, -crop.y0, shape[1], shape[0]))
    assert ((back == image) | (back == 0)).all()
    assert (back > 0).sum() == (piece > 0).sum()


def test_logits_are_pasted_into_their_window_only():
    pasted = paste(np.full((4, 4), 3.0, np.float32), CropWindow(10, 20, 8, 8), (40, 30))
    assert (pasted[20:28, 10:18] == 3.0).all()
    pasted[20:28, 10:18] = OUTSIDE_LOGIT
    assert (pasted == OUTSIDE_LOGIT).all()


@pytest.mark.parametrize("shape", [(16, 16), (64, 64), (100, 37)])
def test_resampling_keeps_place_and_level(shape):
    blob = disk((32, 32), centre_xy=(20, 12), radius=6).astype(np.float32)
    out = resample(blob, shape)
    assert out.shape == shape and out.dtype == np.float32
    y, x = np.indices(shape)
    scale = np.array(shape[::-1]) / 32
    centre = np.array([(x * out).sum(), (y * out).sum()]) / out.sum()
    assert centre == pytest.approx((np.array([20, 12]) + 0.5) * scale - 0.5, abs=0.1 * scale.max())
    assert out.mean() == pytest.approx(blob.mean(), rel=0.02)
