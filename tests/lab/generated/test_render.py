import numpy as np
import pytest

from slicecast_lab.generated.fields import Raster
from slicecast_lab.generated.render import degrade, random_look, render
from slicecast_lab.generated.scenes import random_scene

AXIS = np.linspace(-1, 1, 40, dtype=np.float32)
RASTER = Raster(AXIS, AXIS, np.arange(4, dtype=np.float32))


def drawn(seed: int):
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, slices=4)
    labels = scene.labels(RASTER)
    image = render(rng, scene, RASTER, random_look(rng, scene), labels=labels)
    return labels, image, degrade(rng, image)


@pytest.mark.parametrize("seed", range(12))
def test_degraded_images_are_in_the_unit_range(seed):
    _, _, image = drawn(seed)
    assert image.shape == RASTER.shape
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.01


def test_a_lookalike_has_nearly_the_main_organs_grey_value():
    scenes = [(rng, random_scene(rng, slices=4)) for rng in map(np.random.default_rng, range(40))]
    looks = [(random_look(rng, s).means, s) for rng, s in scenes if s.lookalike is not None]
    assert 5 < len(looks) < 30
    assert np.median([abs(means[s.lookalike] - means[s.main_label]) for means, s in looks]) < 0.08


def test_grey_values_follow_the_labels():
    explained = []
    for seed in range(20):
        labels, image, _ = drawn(seed)
        means = {v: image[labels == v].mean() for v in np.unique(labels)}
        rest = image - np.vectorize(means.get)(labels)
        explained.append(1 - rest.var() / image.var())
    assert np.median(explained) > 0.6
