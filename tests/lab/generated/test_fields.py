import numpy as np
import pytest

from slicecast_lab.generated.fields import Raster, random_field


def raster(pixels: int = 24, slices: int = 5, half: float = 1.0) -> Raster:
    axis = np.linspace(-half, half, pixels, dtype=np.float32)
    return Raster(axis, axis, np.arange(slices, dtype=np.float32))


def field(**changes):
    settings = {"cells_xy": 6, "slices_per_cell": 8.0, "z_range": (-1.0, 10.0), **changes}
    return random_field(np.random.default_rng(0), 3, **settings)


def test_values_have_one_channel_a_field_and_the_rasters_shape():
    values = field().values(raster())
    assert values.shape == (3, 5, 24, 24)
    assert values.dtype == np.float32


def test_variance_is_about_one():
    assert field(cells_xy=12).values(raster(96)).std() == pytest.approx(1, abs=0.25)


def test_a_window_shows_the_same_function_as_the_whole_scene():
    whole, window = raster(101), raster(51, half=0.5)
    np.testing.assert_allclose(field().values(whole)[..., 25:76, 25:76], field().values(window), atol=1e-4)


def test_beyond_the_scene_a_field_goes_on_as_in_a_mirror():
    values = field().values(raster(61, half=1.5))
    np.testing.assert_allclose(values[..., 51:], values[..., 49:39:-1], atol=1e-4)
    assert values[..., 50:].std(axis=-1).mean() > 0.05


def test_slow_fields_change_less_from_slice_to_slice():
    def change(slices_per_cell):
        values = field(slices_per_cell=slices_per_cell).values(raster())
        return np.abs(np.diff(values, axis=1)).mean()

    assert change(20.0) < 0.5 * change(2.0)
