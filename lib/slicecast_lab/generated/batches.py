"""Endless batches of generated clips; batch n is always the same, so a resumed run sees what it would have seen."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from slicecast.training.objective import Batch
from slicecast_lab.generated.clips import TRACKS, Clip, ClipSpec, random_clip


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """How many clips of which kind make a batch."""

    frames: int  # frames of a batch; clips are as many as fit
    slices: tuple[int, ...]  # clip lengths to choose from, one for each batch
    size_px: int  # S
    native_px: tuple[int, int] = (28, 128)  # range of pixels that a generated scan has across the window


class GeneratedBatches(Dataset):
    """Batches by number, generated when asked for.

    Args:
        spec: what a batch holds.
        seed: of the whole sequence.
    """

    def __init__(self, spec: BatchSpec, *, seed: int) -> None:
        self.spec = spec
        self.seed = seed

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng([self.seed, number])
        slices = int(rng.choice(self.spec.slices))
        clip_spec = ClipSpec(slices=slices, size_px=self.spec.size_px, native_px=self.spec.native_px)
        clips = [random_clip(rng, clip_spec) for _ in range(max(1, self.spec.frames // slices))]
        return collate(rng, clips, number=number)


def collate(rng: np.random.Generator, clips: list[Clip], *, number: int) -> Batch:
    """Join clips of equal length; the first N tracks of the batch are one of each clip, in random choice."""
    length = len(clips[0].frames)
    starts = np.arange(len(clips))[:, None] * length
    picks = rng.permuted(np.tile(np.arange(TRACKS), (len(clips), 1)), axis=1).T
    frames = [starts + np.stack([c.orders[k] for c, k in zip(clips, pick, strict=True)]) for pick in picks]
    masks = [np.stack([c.masks[k] for c, k in zip(clips, pick, strict=True)]) for pick in picks]
    return Batch(
        number=number,
        images=torch.from_numpy(np.concatenate([c.frames for c in clips])),
        frames=torch.from_numpy(np.concatenate(frames)),
        masks=torch.from_numpy(np.concatenate(masks)),
    )


def stream(batches: Dataset, *, first: int, last: int, workers: int, rank: int = 0, ranks: int = 1) -> Iterable[Any]:
    """Yield the batches of steps first .. last - 1 in order; with workers, they are made ahead in other processes.

    With several ranks, every step takes as many batches, one for each.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first * ranks + rank, last * ranks, ranks),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=partial(_quieten) if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )


def _quieten(_worker: int) -> None:
    torch.set_num_threads(1)
