"""One window for the whole volume, whatever the numbers mean."""

import logging

import numpy as np
import pytest
from builders import ORIENTATIONS, grid, stored_as

from slicecast.errors import ConfigError
from slicecast.volume import Geometry, Volume, Window, canonicalise, choose_window, normalise, window_names


def volume(array, modality=None):
    array = np.asarray(array)
    return Volume(array, Geometry(array.shape[::-1]), {"modality": modality})


def ct_like(rng, dtype=np.int16):
    """Air, fat and soft tissue in equal parts."""
    return rng.choice([-1000, -90, 50], size=(20, 20, 20)).astype(dtype)


def head_like(rng, scale=1.0):
    """A bright ball in exact zeros, as skull-stripped MR."""
    numbers = np.zeros((20, 20, 20), np.float32)
    numbers[5:15, 5:15, 5:15] = rng.uniform(100, 200, (10, 10, 10)) * scale
    return numbers


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_hounsfield_units_are_recognised(rng, dtype):
    assert choose_window(volume(ct_like(rng, dtype))) == Window("soft tissue", -160.0, 240.0)


def test_modality_outweighs_the_numbers(rng):
    assert choose_window(volume(ct_like(rng), "MR")).name == "percentile"
    assert choose_window(volume(head_like(rng), "CT")).name == "soft tissue"


def test_wide_mr_with_some_negative_numbers_is_no_ct(rng):
    numbers = rng.normal(9000, 2000, (20, 20, 20))
    numbers[0, 0, 0] = -610
    assert choose_window(volume(numbers.astype(np.int16))).name == "percentile"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_mr_of_any_scale_spans_black_to_white(rng, scale):
    numbers = head_like(rng, scale)
    grey = normalise(numbers, choose_window(volume(numbers)))
    assert (grey[numbers == 0] == 0).all()
    assert np.percentile(grey[numbers > 0], [1, 50, 99]) == pytest.approx([0.01, 0.5, 0.99], abs=0.03)


def test_outliers_do_not_darken_the_rest(rng):
    numbers = head_like(rng)
    numbers[10, 10, 10] = 1.7e6
    assert choose_window(volume(numbers)).high == pytest.approx(200, rel=0.02)


def test_zero_around_standardised_data_is_drawn_black(rng):
    numbers = np.zeros((20, 20, 20), np.float32)
    numbers[5:15, 5:15, 5:15] = rng.normal(0, 1, (10, 10, 10))
    window = choose_window(volume(numbers))
    assert window.background == 0.0
    grey = normalise(numbers, window)
    assert (grey[:5] == 0).all()
    assert grey[5:15, 5:15, 5:15].mean() == pytest.approx(0.5, abs=0.05)


def test_standardised_data_without_background(rng):
    window = choose_window(volume(rng.normal(0, 1, (20, 20, 20)).astype(np.float32)))
    assert window.background is None
    assert (window.low, window.high) == pytest.approx((-2.6, 2.6), abs=0.3)


def test_eight_bit_data_keep_their_range(rng):
    numbers = rng.integers(0, 256, (20, 20, 20)).astype(np.uint8)
    window = choose_window(volume(numbers))
    assert (window.low, window.high) == pytest.approx((1, 254), abs=3)


def test_two_values_are_told_apart():
    numbers = np.zeros((8, 8, 8), np.uint8)
    numbers[4:, 4:, 4:] = 1
    assert choose_window(volume(numbers)) == Window("full", 0.0, 1.0)


@pytest.mark.parametrize("value", [0, 7, -1000, 40_000])
def test_constant_volume_becomes_zeros_with_a_warning(value, caplog):
    numbers = np.full((4, 4, 4), value, np.int32)
    with caplog.at_level(logging.WARNING):
        grey = normalise(numbers, choose_window(volume(numbers)))
    assert (grey == 0).all()
    assert "same value" in caplog.text


def test_storage_order_does_not_change_the_window(rng):
    scan = Volume(rng.gamma(2, 100, (40, 50, 60)).astype(np.float32), grid((60, 50, 40)))
    expected = choose_window(scan)
    for orientation in ORIENTATIONS[::5]:
        assert choose_window(canonicalise(stored_as(scan, *orientation))[0]) == expected


def test_large_volumes_are_sampled(rng):
    numbers = rng.normal(500, 100, (128, 128, 128)).astype(np.float32)
    window = choose_window(volume(numbers))
    assert (window.low, window.high) == pytest.approx(tuple(np.percentile(numbers, [0.5, 99.5])), abs=5)


def test_a_slice_is_normalised_as_in_the_volume(rng):
    numbers = ct_like(rng)
    window = choose_window(volume(numbers))
    whole = normalise(numbers, window)
    assert whole.dtype == np.float32
    assert np.array_equal(normalise(numbers[:, 3], window), whole[:, 3])


def test_normalise_gives_plain_memory_for_flipped_views(rng):
    grey = normalise(ct_like(rng)[::-1, :, ::-1], Window("w", 0, 1))
    assert grey.flags.c_contiguous


def test_hand_worked_values():
    grey = normalise(np.array([-200, -160, 40, 240, 3000], np.int16), Window("soft tissue", -160, 240))
    assert grey.tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("lung", -1350, 150),
        ("Soft_Tissue", -160, 240),
        ("-100:300", -100, 300),
        ("full", -1000, 50),
        (None, -160, 240),
    ],
)
def test_named_windows(rng, name, low, high):
    window = choose_window(volume(ct_like(rng)), name)
    assert (window.low, window.high) == (low, high)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lungs", "Unknown window 'lungs'. Use auto, percentile, full, soft tissue, lung"),
        ("a:b", "not two numbers"),
        ("3:2", "low must be below high"),
        ("1:2:3", "not two numbers"),
        ("nan:3", "low must be below high"),
    ],
)
def test_refuses_windows(rng, name, message):
    with pytest.raises(ConfigError, match=message):
        choose_window(volume(ct_like(rng)), name)


def test_every_preset_is_listed():
    assert {"auto", "lung", "bone", "brain", "liver", "mediastinum", "wide"} <= set(window_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ct: {soft tissue: {level: 1, width: 2}}\nct_defualt: soft tissue", "Did you mean 'ct_default'"),
        ("ct: {a: {level: 1, widht: 2}}\nct_default: a\npercentiles: [1, 99]", "Did you mean 'width'"),
        ("ct: {a: {level: 1}}\nct_default: a\npercentiles: [1, 99]", "needs ct, ct_default and percentiles"),
        ("ct: {a: {level: 1, width: 2}}\nct_default: b\npercentiles: [1, 99]", "'b' .* is none of its windows"),
        ("ct: {a: {level: 1, width: 2}}\nct_default: a\npercentiles: 3", "needs ct"),
        ("ct: {a: {level: 1, width: -2}}\nct_default: a\npercentiles: [1, 99]", "low must be below high"),
    ],
)
def test_refuses_a_faulty_file(tmp_path, monkeypatch, rng, text, message):
    (tmp_path / "windows.yaml").write_text(text)
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        choose_window(volume(ct_like(rng)))
