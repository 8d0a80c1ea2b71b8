import numpy as np
import pytest

from slicecast_lab.generated.fields import Raster
from slicecast_lab.generated.scenes import AIR, random_scene

AXIS = np.linspace(-1, 1, 32, dtype=np.float32)
RASTER = Raster(AXIS, AXIS, np.arange(5, dtype=np.float32))


@pytest.mark.parametrize("seed", range(10))
def test_labels_are_within_the_scenes_count(seed):
    scene = random_scene(np.random.default_rng(seed), slices=5)
    labels = scene.labels(RASTER)
    assert labels.shape == RASTER.shape
    assert AIR <= labels.min() <= labels.max() < scene.label_count


def test_the_same_seed_gives_the_same_scene():
    first, second = (random_scene(np.random.default_rng(7), slices=5).labels(RASTER) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_main_organs_are_often_seen_and_often_end():
    seen = ended = 0
    for seed in range(100):
        scene = random_scene(np.random.default_rng(seed), slices=5)
        shown = (scene.labels(RASTER) == scene.main_label).any(axis=(1, 2))
        seen += shown[0]
        ended += shown[0] and not shown[-1]
    assert seen > 60
    assert ended > 15
