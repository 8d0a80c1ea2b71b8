import pytest
import torch
from learning import ball_object, few

from slicecast.models.registry import bundled_spec
from slicecast.models.sam2_build import load_sam2
from slicecast.training.finetune import finetune, finetune_settings, freeze_others
from slicecast.training.objective import ClipObjective, LossWeights, PromptMix
from slicecast.training.volumes import ClipSettings, LabelledBatches

SETTINGS = finetune_settings(few())


class Killed(Exception):
    pass


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_shipped_settings_are_valid():
    assert finetune_settings().loop.steps > 0


def test_a_stopped_training_ends_as_if_it_had_not_been(tmp_path):
    def kill(step, steps, terms):
        if step == 3:
            raise Killed

    whole = finetune(bundled_spec(), [ball_object()], SETTINGS, folder=tmp_path / "whole")
    with pytest.raises(Killed):
        finetune(bundled_spec(), [ball_object()], SETTINGS, folder=tmp_path / "cut", watch=kill)
    told = []
    resumed = finetune(
        bundled_spec(), [ball_object()], SETTINGS, folder=tmp_path / "cut", watch=lambda *now: told.append(now[:2])
    )
    assert told == [(3, 4), (4, 4)]
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(weights(whole), weights(load_sam2(bundled_spec())))


def test_what_nobody_vouches_for_is_not_learnt():
    """The loss does not change with the masks of unknown slices, if the network does not meet them either."""
    objective = ClipObjective(load_sam2(bundled_spec()), PromptMix(withheld=1.0), LossWeights(), seed=2)
    batch = LabelledBatches([ball_object()], ClipSettings(clips=1, slices=(4,)), size_px=128, seed=3)[0]
    batch.known[:, 1:] = False
    with torch.no_grad():
        before = objective(batch).total
        batch.masks[:, 2:] = ~batch.masks[:, 2:]
        assert objective(batch).total == before
        batch.known[:] = True
        assert objective(batch).total != before


def test_parts_of_a_network():
    model = load_sam2(bundled_spec())
    sizes = {}
    for parts in ("all", "memory", "decoder", "auto"):
        freeze_others(model, parts)
        sizes[parts] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sizes["auto"] == sizes["all"] > sizes["decoder"] > 0 < sizes["memory"] < sizes["all"]
