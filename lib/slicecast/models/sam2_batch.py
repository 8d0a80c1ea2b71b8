"""Jobs of single slices stacked into batches for SAM 2, and its answers taken apart again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slicecast.engine.ports import Bank, ModelPrompt, Observation, PromptJob
from slicecast.models import sam2_forward as steps
from slicecast.models.sam2_forward import Features, Memory, Step


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One encoded slice, on the model's device."""

    features: Features

    @property
    def nbytes(self) -> int:
        return sum(m.numel() * m.element_size() for m in self.features.maps)


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """What one slice leaves: SAM 2's memory, and its logits for the previous-mask prompt."""

    memory: Memory
    logits: torch.Tensor

    @property
    def nbytes(self) -> int:
        # On the CPU the logits are the observation's own.
        held = (self.memory.features, self.memory.pointer, *((self.logits,) if self.logits.is_cuda else ()))
        return sum(m.numel() * m.element_size() for m in held)


def stack_features(embeddings: Sequence[Encoded]) -> Features:
    """Join encoded slices to one batch."""
    levels = zip(*(e.features.maps for e in embeddings), strict=True)
    return Features(tuple(torch.cat(level) for level in levels))


def stack_banks(banks: Sequence[Bank]) -> steps.BankBatch:
    """Stack banks of equal signature, entry by entry."""
    anchors, recent = [bank.anchors for bank in banks], [bank.recent for bank in banks]
    return steps.BankBatch(_stack_entries(anchors), _stack_entries(recent))


def _stack_entries(rows: Sequence[tuple[tuple[int, Remembered], ...]]) -> dict[int, Memory]:
    stacked = {}
    for column in zip(*rows, strict=True):
        memories = [remembered.memory for _, remembered in column]
        stacked[column[0][0]] = Memory(
            torch.cat([m.features for m in memories]), torch.cat([m.pointer for m in memories])
        )
    return stacked


def bank_signature(bank: Bank) -> tuple:
    """Return what banks of one batch have in common."""
    return tuple(t for t, _ in bank.anchors), tuple(t for t, _ in bank.recent), bank.time


def prompt_signature(job: PromptJob) -> tuple:
    """Return what prompts of one batch have in common."""
    prompt = job.prompt
    if prompt.mask is not None:
        return ("mask",)
    bank = bank_signature(job.bank) if job.bank is not None else ()
    return "points", len(prompt.labels), prompt.box_xyxy is not None, job.previous is not None, bank


def previous_answers(batch: Sequence[PromptJob], device: torch.device) -> torch.Tensor | None:
    """Return (B, 1, m, m) answers to correct; None for a batch without."""
    given = [job.previous for job in batch if job.previous is not None]  # all of a batch, or none
    return torch.from_numpy(np.stack(given))[:, None].to(device) if given else None


def last_logits(banks: Sequence[Bank]) -> torch.Tensor:
    """Return (B, 1, m, m) logits of the slices tracked last."""
    return torch.cat([bank.last.logits for bank in banks])


def stack_points(prompts: Sequence[ModelPrompt], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, P, 2) points and (B, P) labels; a box comes first, as two points."""
    coordinates, labels = [], []
    for prompt in prompts:
        xy, kind = prompt.points_xy, prompt.labels
        if prompt.box_xyxy is not None:
            xy = np.concatenate([prompt.box_xyxy.reshape(2, 2), xy])
            kind = np.concatenate([[steps.BOX_TOP_LEFT, steps.BOX_BOTTOM_RIGHT], kind])
        coordinates.append(np.asarray(xy, dtype=np.float32))
        labels.append(np.asarray(kind, dtype=np.int32))
    return torch.from_numpy(np.stack(coordinates)).to(device), torch.from_numpy(np.stack(labels)).to(device)


def observations(step: Step, memory: Memory) -> list[Observation]:
    """Take a batch's answer apart; a view of it would keep all of it alive for as long as one row is remembered."""
    logits = _rows(step.logits.float())
    pointers = _rows(memory.pointer)
    ious = step.predicted_iou.float().cpu().numpy()
    scores = step.object_score[:, 0].float().cpu().numpy()
    # SAM 2's own predictor keeps memory in bf16: equal results, half the space.
    spatial = _rows(memory.features.to(torch.bfloat16))
    return [
        Observation(
            logits=row[0, 0].cpu().numpy(),
            predicted_iou=float(ious[n]),
            object_score=float(scores[n]),
            memory=Remembered(Memory(spatial[n], pointers[n]), row),
        )
        for n, row in enumerate(logits)
    ]


def _rows(batch: torch.Tensor) -> list[torch.Tensor]:
    """Return each row (1, ...) of a batch as a tensor of its own."""
    return [row.clone() for row in batch.split(1)] if len(batch) > 1 else [batch]
