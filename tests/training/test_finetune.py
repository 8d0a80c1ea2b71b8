from dataclasses import replace

import numpy as np
import pytest
import torch
from learning import ball_object, few

from slicecast.errors import InputError
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2_build import load_sam2
from slicecast.training.finetune import (
    RANK,
    Augmentation,
    ClipSettings,
    LabelledBatches,
    choose_parts,
    finetune,
    finetune_settings,
    store_object,
    stored_object,
)
from slicecast.training.objective import ClipObjective, LossWeights, PromptMix

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
        choose_parts(model, parts)
        sizes[parts] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sizes["auto"] == sizes["all"] > sizes["decoder"] > 0 < sizes["memory"] < sizes["all"]


def test_low_rank_changes_of_the_encoder_end_in_its_weights(tmp_path):
    before = load_sam2(bundled_spec()).state_dict()
    settings = finetune_settings({**few(), "parts": "lora"})
    after = finetune(bundled_spec(), [ball_object()], settings, folder=tmp_path).state_dict()
    assert after.keys() == before.keys()  # an ordinary checkpoint
    changed = {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}
    matrices = {name: c for name, c in changed.items() if name.startswith("image_encoder") and c.ndim > 1}
    assert matrices and all(name.endswith((".attn.qkv.weight", ".attn.proj.weight")) for name in matrices)
    assert all(torch.linalg.matrix_rank(change.double(), rtol=1e-3) <= RANK for change in matrices.values())
    assert any(name.startswith("sam_mask_decoder") for name in changed)


PLAIN = Augmentation(flip=0, turn_deg=0, scale=0, gamma=0, contrast=0, brightness=0, noise=0)


def batches(*objects, seed=1, **settings):
    chosen = {"clips": 2, "tracks": 3, "slices": (4, 6), **settings}
    return LabelledBatches(objects, ClipSettings(**chosen), size_px=64, seed=seed)


def test_a_number_always_gives_the_same_batch():
    first, again, other = batches(ball_object())[5], batches(ball_object())[5], batches(ball_object())[6]
    assert torch.equal(first.images, again.images) and torch.equal(first.masks, again.masks)
    assert first.images.shape != other.images.shape or not torch.equal(first.images, other.images)


@pytest.mark.parametrize("number", range(8))
def test_every_track_begins_where_the_object_is_and_goes_one_way(number):
    batch = batches(ball_object())[number]
    assert batch.frames.shape == batch.known.shape and len(batch.frames) == 6
    assert batch.masks[:, 0].flatten(1).any(dim=1).all()
    steps = batch.frames.diff(dim=1)
    assert (steps.abs() == 1).all() and (steps == steps[:, :1]).all()


def test_tracks_run_past_both_ends_of_the_object():
    shown = torch.cat([batches(ball_object(), slices=(8,))[n].masks.flatten(2).any(dim=2) for n in range(6)])
    assert shown[:, 0].all() and not shown[:, -1].all()


def test_the_mask_lies_on_what_is_seen():
    batch = batches(ball_object(), augment=PLAIN)[0]
    images = batch.images[batch.frames]
    inside, outside = images[batch.masks].float().mean(), images[~batch.masks].float().mean()
    assert inside > 180 > 90 > outside


def test_each_volume_is_drawn_alike_however_many_structures_it_has():
    many = [ball_object("many", seed=n) for n in range(4)]
    one = ball_object("one", seed=9)
    drawn = batches(*many, one)
    rng = np.random.default_rng(0)
    picks = [int(rng.integers(len(drawn._cases))) for _ in range(200)]
    assert 70 < sum(picks) < 130


def test_only_known_slices_are_prompted_and_unknown_ones_are_said():
    known = np.zeros(16, dtype=bool)
    known[8] = True
    batch = batches(replace(ball_object(), known=known))[0]
    assert batch.known[:, 0].all() and not batch.known[:, 1:].any()


def test_nothing_to_learn_is_said():
    thing = ball_object()
    with pytest.raises(InputError, match="no labelled slice"):
        batches(replace(thing, known=np.zeros(16, dtype=bool)))


def test_an_object_on_the_disk_is_the_same(tmp_path):
    thing = ball_object()
    store_object(tmp_path / "0", thing)
    back = stored_object(tmp_path / "0")
    assert np.array_equal(back.masks, thing.masks) and back.case == thing.case
    assert np.abs(back.frames.read(8) - thing.frames.read(8)).max() <= 0.5 / 255 + 1e-6
