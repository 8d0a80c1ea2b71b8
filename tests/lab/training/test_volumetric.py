"""Training of small volumetric networks: a run, its export, and a run that goes on from that."""

from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from slicecast.config import config_dir
from slicecast.errors import WeightsMissing
from slicecast.models.volumetric import build_volumetric, load_by_name
from slicecast.models.weights import BUNDLED_DIR
from slicecast_lab.training.nano import export_weights
from slicecast_lab.training.volumetric import averaged_volumetric, read_settings, train_volumetric

SIZES = {"image_size": 64, "depths": [1, 1, 1, 1], "widths": [8, 8, 8, 8], "heads": [1, 1, 1, 1], "prompt": 4}
SIZES |= {"features": [8, 8, 8, 8], "up": [8, 8, 8, 8, 4], "cpp": [], "iou": 8}


@pytest.fixture
def settings(tmp_path):
    """The shipped recipe, for two steps of a tiny network."""
    shipped = read_settings(config_dir() / "training" / "ct_sam3d_nano.yaml")
    architecture = tmp_path / "tiny.yaml"
    architecture.write_text(yaml.safe_dump({"network": "ct_sam3d", "size": SIZES}))
    loop = replace(shipped.loop, steps=2, warmup_steps=1, decay_steps=0, checkpoint_every=1, validate_every=2)
    patches = replace(shipped.patches, size=1)
    small = {"loop": loop, "patches": patches, "workers": 0, "threads": 1, "validation": 1, "initial": None}
    return replace(shipped, architecture=str(architecture), **small)


def test_a_run_is_exported_and_another_goes_on_from_it(settings, tmp_path):
    train_volumetric(settings, tmp_path / "first")
    trained = averaged_volumetric(settings, tmp_path / "first").state_dict()
    export_weights(averaged_volumetric(settings, tmp_path / "first"), tmp_path / "w.safetensors", half=False)
    assert load_file(tmp_path / "w.safetensors").keys() == trained.keys()

    still = replace(settings.loop, steps=1, learning_rate=1e-12, weight_decay=0.0)
    train_volumetric(replace(settings, loop=still, initial=str(tmp_path / "w.safetensors")), tmp_path / "second")
    again = averaged_volumetric(settings, tmp_path / "second").state_dict()
    for name, tensor in trained.items():
        torch.testing.assert_close(again[name], tensor, atol=1e-6, rtol=0)


def test_weights_that_are_not_there_are_named(settings, tmp_path):
    with pytest.raises(WeightsMissing, match=r"nowhere\.safetensors"):
        train_volumetric(replace(settings, initial=str(tmp_path / "nowhere.safetensors")), tmp_path / "run")


def test_the_bundled_weights_fit_the_recipes_network():
    shipped = read_settings(config_dir() / "training" / "ct_sam3d_nano.yaml")
    weights = load_file(BUNDLED_DIR / "ct_sam3d_nano.safetensors")
    load_by_name(build_volumetric(config_dir() / shipped.architecture), weights, name="ct_sam3d_nano")
