import numpy as np
import pytest

from slicecast_lab.generated.clips import AREA_RANGE, TRACKS, ClipSpec, random_clip

SPEC = ClipSpec(slices=4, size_px=64)


@pytest.fixture(scope="module")
def clips():
    return [random_clip(np.random.default_rng([5, n]), SPEC) for n in range(24)]


def test_shapes_and_types(clips):
    for clip in clips:
        assert clip.frames.shape == (4, 64, 64)
        assert clip.frames.dtype == np.uint8
        assert clip.masks.shape == (TRACKS, 4, 64, 64)
        assert clip.masks.dtype == bool


def test_every_lane_starts_on_an_object_of_a_suitable_size(clips):
    low, high = AREA_RANGE
    shares = np.array([clip.masks[:, 0].mean(axis=(1, 2)) for clip in clips])
    assert shares.min() > 0.8 * low
    assert shares.max() < 1.2 * high


def test_lanes_walk_both_directions(clips):
    orders = {tuple(order) for clip in clips for order in clip.orders}
    assert orders == {(0, 1, 2, 3), (3, 2, 1, 0)}


def test_some_objects_end_within_the_clip(clips):
    last = np.array([clip.masks[:, -1].any(axis=(1, 2)) for clip in clips])
    assert 0.05 < 1 - last.mean() < 0.7


def test_neighbouring_slices_are_as_alike_as_in_real_scans(clips):
    before = np.concatenate([c.masks[:, :-1].reshape(-1, 64 * 64) for c in clips])
    after = np.concatenate([c.masks[:, 1:].reshape(-1, 64 * 64) for c in clips])
    shown = before.any(1) & after.any(1)
    iou = (before & after)[shown].sum(1) / (before | after)[shown].sum(1)
    assert 0.6 < iou.mean() < 0.95  # real ones: 0.5 (myocardium, 8 mm slices) to 0.9 (aorta, 3 mm)


def test_the_same_seed_gives_the_same_clip():
    first, second = (random_clip(np.random.default_rng(3), SPEC) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.masks, second.masks)
