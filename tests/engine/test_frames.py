import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking import disk, frames_of

from slicecast.engine.frames import OUTSIDE_LOGIT, View, centred_view, cut, paste, resample, whole_view

views = st.builds(View, st.integers(-30, 60), st.integers(-30, 60), st.integers(1, 90), st.integers(1, 90))
shapes = st.tuples(st.integers(1, 70), st.integers(1, 70))
spacings = st.tuples(st.floats(0.3, 5.0), st.floats(0.3, 5.0))


@given(views, st.integers(4, 1024), st.tuples(st.floats(-50, 100), st.floats(-50, 100)))
def test_slice_pixels_survive_the_way_to_the_model_and_back(view, size, xy):
    u, v = view.to_model_xy(np.array([xy]), size=size)[0].astype(float)
    back = ((u + 0.5) * view.width / size + view.x0 - 0.5, (v + 0.5) * view.height / size + view.y0 - 0.5)
    assert back == pytest.approx(xy, abs=1e-3)


@given(views, st.integers(4, 1024))
def test_a_windows_edges_become_the_inputs_edges(view, size):
    edges = np.array([[view.x0, view.y0], [view.x0 + view.width, view.y0 + view.height]]) - 0.5
    assert view.to_model_xy(edges, size=size) == pytest.approx(np.array([[-0.5] * 2, [size - 0.5] * 2]), abs=1e-2)
    assert view.contains(edges) and not view.contains(edges + 0.1) and not view.contains(edges - 0.1)


@given(shapes, spacings)
def test_the_whole_view_covers_the_slice_and_is_square_in_mm(shape, spacing):
    view = whole_view(frames_of(np.zeros((1, *shape), np.float32), spacing_xy_mm=spacing))
    assert view.open_sides(shape) == (False, False, False, False)
    assert abs(view.width * spacing[0] - view.height * spacing[1]) <= sum(spacing) / 2 + 1e-6


@given(shapes, spacings, st.tuples(st.floats(0, 60), st.floats(0, 60)), st.floats(1, 60))
def test_a_centred_view_lies_around_its_centre(shape, spacing, centre, side_mm):
    view = centred_view(frames_of(np.zeros((1, *shape), np.float32), spacing_xy_mm=spacing), centre, side_mm)
    middle = view.x0 + (view.width - 1) / 2, view.y0 + (view.height - 1) / 2
    assert middle == pytest.approx(centre, abs=0.51)


@pytest.mark.parametrize(
    ("view", "sides"),
    [
        (View(0, 0, 20, 10), (False, False, False, False)),
        (View(5, 2, 10, 5), (True, True, True, True)),
        (View(-3, 2, 10, 8), (False, True, True, False)),
        (View(5, -9, 15, 30), (True, False, False, False)),
    ],
)
def test_open_sides_are_those_where_the_slice_goes_on(view, sides):
    assert view.open_sides((10, 20)) == sides


def test_a_window_of_the_models_size_shows_the_pixels_themselves(rng):
    image = rng.random((1, 30, 40), dtype=np.float32)
    seen = frames_of(image).render(0, View(4, 6, 16, 16), size=16)
    assert (seen == image[0, 6:22, 4:20]).all()


def test_a_window_beyond_the_slice_is_dark(rng):
    image = rng.random((1, 10, 10), dtype=np.float32)
    seen = frames_of(image).render(0, View(-5, -3, 20, 20), size=20)
    assert (seen[3:13, 5:15] == image[0]).all()
    seen[3:13, 5:15] = 0
    assert not seen.any()


def test_a_dot_is_seen_where_its_pixel_is_mapped_to():
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 12, 25] = 1
    view = View(15, 5, 20, 20)
    seen = frames_of(image).render(0, view, size=80)
    y, x = np.indices(seen.shape)
    centre = (x * seen).sum() / seen.sum(), (y * seen).sum() / seen.sum()
    assert centre == pytest.approx(view.to_model_xy(np.array([[25.0, 12.0]]), size=80)[0], abs=0.01)


def test_anisotropic_pixels_are_not_squashed():
    """A disk of 20 mm on pixels of 1 x 2 mm is an ellipse in pixels and a disk for the model."""
    y, x = np.indices((30, 60), dtype=float)
    ellipse = ((x - 30) ** 2 + (2 * (y - 15)) ** 2 <= 20**2).astype(np.float32)
    frames = frames_of(ellipse[None], spacing_xy_mm=(1.0, 2.0))
    seen = frames.render(0, whole_view(frames), size=120) > 0.5
    wide, high = np.ptp(np.flatnonzero(seen.any(axis=0))), np.ptp(np.flatnonzero(seen.any(axis=1)))
    assert abs(int(wide) - int(high)) <= 3


@given(views, shapes)
def test_what_is_cut_out_is_pasted_back_in_place(view, shape):
    image = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape) + 1
    piece = cut(image, view)
    assert piece.shape == (view.height, view.width)
    back = cut(piece, View(-view.x0, -view.y0, shape[1], shape[0]))
    assert ((back == image) | (back == 0)).all()
    assert (back > 0).sum() == (piece > 0).sum()


def test_logits_are_pasted_into_their_window_only():
    pasted = paste(np.full((4, 4), 3.0, np.float32), View(10, 20, 8, 8), (40, 30))
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
