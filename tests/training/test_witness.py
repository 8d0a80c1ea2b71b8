import numpy as np
import torch

from slicecast.models.sam2_forward import Step
from slicecast.training.witness import Greys


def answered(images, object_mask):
    """Return a step whose answer is the mask, for as many lanes as images."""
    logits = torch.where(torch.from_numpy(object_mask[::4, ::4]), 8.0, -8.0).expand(len(images), 1, 16, 16)
    none = torch.zeros(len(images), 1)
    return Step(logits, none, logits, torch.ones(len(images)), none, none)


def test_evidence_follows_the_object_to_another_slice_and_spares_the_lanes_not_told():
    mask, moved = (np.zeros((64, 64), dtype=bool) for _ in range(2))
    mask[16:32, 16:32], moved[24:40, 28:44] = True, True
    images = np.stack([np.where(m, 200, 60).astype(np.uint8) for m in (mask, moved)])
    greys, step = Greys(images), answered(images, mask)
    learnt = greys.learn(torch.tensor([0, 0]), step, heard=np.array([True, False]))
    logits = greys.evidence(learnt, torch.tensor([1, 1]), like=step.logits)
    assert logits.shape == step.logits.shape
    assert torch.equal(logits[0, 0] > 0, torch.from_numpy(moved[::4, ::4]))
    assert not logits[1].any()
