"""The network that segments without prompts: how it is configured, and that it learns."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from builders import ball, grid, scan

from slicecast.config import build
from slicecast.errors import InputError
from slicecast.inference.studies import open_study
from slicecast.training.automatic import (
    AutomaticPlan,
    AutomaticSettings,
    LabelledVolume,
    plan_for,
    predict_automatic,
    train_automatic,
)
from slicecast.training.loop import LoopSettings
from slicecast.volume.metrics import dice

SETTINGS = AutomaticSettings(
    channels=4, loop=LoopSettings(steps=60, warmup_steps=1, learning_rate=0.01, ema_momentum=0.5)
)


def labelled(seed: int) -> LabelledVolume:
    truth = np.roll(ball(radius=4.5), seed - 1, axis=0)
    return LabelledVolume(open_study(scan(truth, seed=seed)).volume, truth.astype(np.uint8))


@pytest.mark.parametrize("size_ijk", [(24, 20, 16), (512, 512, 300), (320, 320, 12), (1, 40, 40)])
@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.7, 0.7, 5.0)])
def test_a_plan_fits_its_scans(size_ijk, spacing_mm):
    plan = plan_for([grid(size_ijk, spacing_mm=spacing_mm)], ["a", "b"], SETTINGS)
    patch, halvings = np.array(plan.patch_kji), np.prod(plan.strides_kji, axis=0) if plan.strides_kji else np.ones(3)
    assert (patch % halvings == 0).all()
    assert patch.prod() <= SETTINGS.patch_voxels * 1.5
    assert np.prod(plan.grid(grid(size_ijk, spacing_mm=spacing_mm)).size_ijk) <= SETTINGS.volume_voxels * 1.1
    with torch.inference_mode():
        assert plan.network()(torch.zeros(1, 1, *plan.patch_kji)).shape == (1, 3, *plan.patch_kji)
    assert build(AutomaticPlan, json.loads(json.dumps(asdict(plan))), where="plan") == plan


def test_thick_slices_are_halved_later():
    plan = plan_for([grid((128, 128, 64), spacing_mm=(1, 1, 5))], ["a"], SETTINGS)
    assert plan.strides_kji[0] == (1, 2, 2)


def test_nothing_to_learn_is_said():
    with pytest.raises(InputError, match="Submit some first"):
        plan_for([], ["a"], SETTINGS)


def test_it_learns_and_a_killed_run_ends_the_same(tmp_path):
    volumes = [labelled(seed) for seed in range(3)]
    plan = plan_for([given.volume.geometry for given in volumes], ["ball"], SETTINGS)

    def run(folder, watch=None):
        return train_automatic(
            plan, volumes, settings=SETTINGS, seed=1, threads=1, folder=tmp_path / folder, watch=watch
        )

    unseen = labelled(5)
    network = run("whole")
    assert dice(predict_automatic(plan, network, unseen.volume) == 1, unseen.label == 1) > 0.7
    again = run("whole")  # from its last checkpoint: nothing is left to do
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
