"""The evidence of grey values for lanes of a batch, as the engine gives it at inference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from slicecast.engine.evidence import GreyEvidence
from slicecast.models.sam2_forward import Step


@dataclass(frozen=True, slots=True, eq=False)
class Greys:
    """The grey values of a batch.

    Args:
        images: (N, S, S) uint8.
    """

    images: NDArray[np.uint8]

    def learn(self, frames: Tensor, step: Step, *, heard: NDArray[np.bool_]) -> list[GreyEvidence | None]:
        """Learn from each lane's answer on its first slice.

        Args:
            frames: (L,) rows of the images.
            heard: (L,) lanes that are told; the others get None.
        """
        size = self.images.shape[-1]
        logits = F.interpolate(step.logits.detach().float(), size=(size, size), mode="bilinear", align_corners=False)
        masks, ious = (logits[:, 0] > 0).numpy(force=True), step.predicted_iou.detach().float().numpy(force=True)
        return [
            GreyEvidence.of(self._grey(frame), mask, predicted_iou=float(iou)) if told else None
            for frame, mask, iou, told in zip(frames.tolist(), masks, ious, heard, strict=True)
        ]

    def evidence(self, learnt: Sequence[GreyEvidence | None], frames: Tensor, *, like: Tensor) -> Tensor:
        """Return (L, 1, m, m) logits of the lanes' next slices; zero where nothing was learnt.

        Args:
            like: (L, 1, m, m), gives size, device and type.
        """
        maps = np.zeros((len(learnt), 1, *self.images.shape[1:]), dtype=np.float32)
        for row, (known, frame) in enumerate(zip(learnt, frames.tolist(), strict=True)):
            if known is not None:
                maps[row, 0] = known.map(self._grey(frame))
        return F.adaptive_avg_pool2d(torch.from_numpy(maps), (like.shape[-2], like.shape[-1])).to(like)

    def _grey(self, frame: int) -> NDArray[np.float32]:
        return self.images[frame].astype(np.float32) / 255
