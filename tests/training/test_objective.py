import torch

from slicecast.training.losses import LossWeights
from slicecast.training.objective import ClipObjective, PromptMix, predict


def test_the_same_batch_always_costs_the_same(tiny_model, tiny_batch):
    objective = ClipObjective(tiny_model, PromptMix(), LossWeights(), seed=3)
    with torch.no_grad():
        assert objective(tiny_batch).total == objective(tiny_batch).total


def test_predicting_leaves_no_gradients(tiny_model, tiny_batch):
    out = predict(tiny_model, tiny_batch, "click", corrections=1)
    assert not any(p.raw.requires_grad for p in out)
    assert len(out) == 4
