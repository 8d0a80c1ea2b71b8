"""SAM 2 behind the engine's port: jobs of single slices in, batched steps inside, observations out."""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load, save
from sam2.modeling.sam2_base import SAM2Base

from slicecast.engine.ports import Embedding, Observation, PromptJob, TrackJob
from slicecast.models import sam2_forward as steps
from slicecast.models.devices import choose_device, memory_errors, threads
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2_batch import (
    Encoded,
    bank_signature,
    last_logits,
    observations,
    previous_answers,
    prompt_signature,
    stack_banks,
    stack_features,
    stack_points,
)
from slicecast.models.sam2_build import load_sam2
from slicecast.models.sam2_forward import Features, Step

logger = logging.getLogger(__name__)

CODE_VERSION = 1
"""Raise it whenever this file or ``sam2_forward`` changes what a model answers."""

SMALL_INPUT_PX = 256
"""Up to this input size a network runs on one CPU thread: its operations are too short to share. Measured with
the bundled model on two cores: 56 slices in 1.3 s with one thread; 2 s with two, and 14 s with two while another
process is busy, because the threads wait for each other."""

ENCODE_BATCH = 8
"""Slices encoded at once; more than this gains nothing on a CPU and costs memory."""

Job = TypeVar("Job", PromptJob, TrackJob)


class Sam2Predictor:
    """A SAM 2 network as a :class:`slicecast.engine.ports.SlicePredictor`.

    Args:
        model: the network, in eval mode, on its device.
        previous_mask: feed the previous slice's logits as a dense prompt.
        dense_prompts: draw clicks and boxes into the dense prompt.
        zoom: whether the engine should crop around the object.
        appearance_prior: whether the engine should say what looks like the object; it is added to tracked masks
            before they go on to the next slice and are remembered.
        fingerprint: names weights and switches.
        bf16: run under bf16 autocast (entered and left inside each call).
    """

    def __init__(
        self,
        model: SAM2Base,
        *,
        previous_mask: bool = False,
        dense_prompts: bool = False,
        zoom: bool = False,
        appearance_prior: bool = False,
        fingerprint: str = "unnamed",
        bf16: bool = False,
    ) -> None:
        self._model = model
        self._previous_mask = previous_mask
        self._dense_prompts = dense_prompts
        self._bf16 = bf16
        self.zoom = zoom
        self.appearance_prior = appearance_prior
        self.image_size: int = model.image_size
        self.memory_length: int = max(model.num_maskmem - 1, model.max_obj_ptrs_in_encoder - 1)
        self.fingerprint = (
            f"{fingerprint}/{CODE_VERSION}/{int(previous_mask)}{int(dense_prompts)}{int(bf16)}{int(appearance_prior)}"
        )

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._model.device

    @property
    def network(self) -> SAM2Base:
        """The network itself, for those who look into it."""
        return self._model

    @property
    def on_cpu(self) -> bool:
        """Whether the model's memory is the computer's."""
        return self.device.type == "cpu"

    def encode(self, frames: NDArray[np.float32]) -> list[Embedding]:
        """Encode slices (N, S, S) float32 in [0, 1]."""
        encoded: list[Embedding] = []
        with self._inference():
            for start in range(0, len(frames), ENCODE_BATCH):
                batch = torch.from_numpy(np.ascontiguousarray(frames[start : start + ENCODE_BATCH]))
                maps = steps.encode(self._model, batch.to(self.device)).maps
                rows = range(maps[0].shape[0])
                encoded += [Encoded(Features(tuple(m[n : n + 1].clone() for m in maps))) for n in rows]
        return encoded

    def prompt(self, jobs: Sequence[PromptJob], *, num_slices: int) -> list[Observation]:
        """Segment prompted slices; jobs that look alike run as one batch."""

        def run(features: Features, batch: list[PromptJob]) -> Step:
            if batch[0].prompt.mask is not None:
                return steps.prompt_with_mask(self._model, features, self._masks(batch))
            return self._prompt_with_points(features, batch, num_slices)

        return self._in_batches(jobs, prompt_signature, run, prompted=True)

    def track(self, jobs: Sequence[TrackJob], *, num_slices: int) -> list[Observation]:
        """Segment the next slice of each track; tracks with equally much memory run as one batch."""

        def run(features: Features, batch: list[TrackJob]) -> Step:
            banks = [job.bank for job in batch]
            previous = last_logits(banks) if self._previous_mask else None
            bank = stack_banks(banks)
            when = {"time": banks[0].time, "num_slices": num_slices}
            step = steps.track(self._model, features, bank, previous_mask=previous, **when)
            return self._weigh(step, batch)

        return self._in_batches(jobs, lambda job: bank_signature(job.bank), run, prompted=False)

    def _in_batches(
        self,
        jobs: Sequence[Job],
        signature: Callable[[Job], tuple],
        run: Callable[[Features, list[Job]], Step],
        *,
        prompted: bool,
    ) -> list[Observation]:
        groups: dict[tuple, list[int]] = defaultdict(list)
        for n, job in enumerate(jobs):
            groups[signature(job)].append(n)
        answers: dict[int, Observation] = {}
        with self._inference():
            for numbers in groups.values():
                batch = [jobs[n] for n in numbers]
                features = stack_features([job.embedding for job in batch])
                step = run(features, batch)
                memory = steps.remember(self._model, features, step, prompted=prompted)
                answers |= zip(numbers, observations(step, memory), strict=True)
        return [answers[n] for n in range(len(jobs))]

    def _prompt_with_points(self, features: Features, batch: list[PromptJob], num_slices: int) -> Step:
        points, labels = stack_points([job.prompt for job in batch], self.device)
        banks = [job.bank for job in batch if job.bank is not None]
        dense = self._dense(points, labels, previous_answers(batch, self.device))
        bank = stack_banks(banks) if banks else None
        time = banks[0].time if banks else 0
        return steps.prompt_with_points(
            self._model, features, points, labels, dense=dense, bank=bank, time=time, num_slices=num_slices
        )

    def _dense(self, points: torch.Tensor, labels: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor | None:
        if not self._dense_prompts:
            return None if previous is None else previous.clamp(-steps.PREVIOUS_LIMIT, steps.PREVIOUS_LIMIT)
        size = self.image_size // 4
        return steps.draw_prompts(points, labels, mask_size=size, image_size=self.image_size, previous=previous)

    def _weigh(self, step: Step, batch: list[TrackJob]) -> Step:
        """Add each job's prior to its mask, unless the object is said to be absent.

        Favourable prior counts inside the network's own mask only: it keeps pixels and takes pixels away, but what
        merely looks like the object is not added, or the mask leaks into its surroundings from slice to slice.
        """
        if all(job.prior is None for job in batch):
            return step
        silent = np.zeros((self.image_size, self.image_size), dtype=np.float32)
        stacked = np.stack([silent if job.prior is None else job.prior for job in batch])
        prior = F.avg_pool2d(torch.from_numpy(stacked)[:, None].to(self.device), 4)
        prior = torch.where(step.logits > 0, prior, prior.clamp(max=0))
        present = step.object_score[:, :, None, None] > 0
        return replace(step, logits=torch.where(present, step.logits + prior, step.logits))

    def _masks(self, batch: list[PromptJob]) -> torch.Tensor:
        stacked = np.stack([job.prompt.mask for job in batch if job.prompt.mask is not None])
        return torch.from_numpy(stacked)[:, None].to(self.device, torch.float32)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        # Autocast is thread-local: entering it here, per call, keeps results independent of the thread.
        with (
            memory_errors(self.device),
            threads(1 if self.device.type == "cpu" and self.image_size <= SMALL_INPUT_PX else None),
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16),
        ):
            yield

    def pool(self, embedding: Encoded) -> NDArray[np.float32]:
        """Return what a whole slice looks like, (2C,): mean and deviation of each channel of its coarsest map."""
        with self._inference():
            channels = embedding.features.maps[-1][0].float().flatten(1)
            return torch.cat([channels.mean(1), channels.std(1, correction=0)]).cpu().numpy()

    def pack(self, embedding: Encoded) -> bytes:
        """Return an encoded slice as bytes (safetensors)."""
        return save({str(n): m.contiguous().cpu() for n, m in enumerate(embedding.features.maps)})

    def unpack(self, data: bytes) -> Encoded:
        """Return the encoded slice of bytes made by :meth:`pack`."""
        maps = load(data)
        return Encoded(Features(tuple(maps[str(n)].to(self.device) for n in range(len(maps)))))

    def release(self) -> None:
        """Give back what the device holds and nobody uses."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def load_predictor(
    spec: ModelSpec, *, device: str = "auto", bf16: bool | None = None, compiled: bool = False
) -> Sam2Predictor:
    """Build a registered model with its weights.

    Args:
        device: ``auto`` (CUDA if there is one, else CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        bf16: default: on CUDA only.
        compiled: let PyTorch compile the image encoder; on CUDA only, where it is worth its minutes.

    Raises:
        WeightsMissing: the file is not on this machine.
        WeightsCorrupt: the file is not the right one.
        DeviceUnavailable: no such device.
        ConfigError: this version cannot run the model.
    """
    place = choose_device(device)
    model = load_sam2(spec).to(place, torch.float32)
    compiled = compiled and place.type == "cuda"
    if compiled:
        model.image_encoder.compile()
    logger.info("Loaded %s on %s%s", spec.name, place, ", compiled" if compiled else "")
    return Sam2Predictor(
        model,
        previous_mask=spec.carry,
        dense_prompts=spec.dense_prompts,
        zoom=spec.zoom,
        appearance_prior=spec.evidence,
        fingerprint=f"{spec.name}:{spec.sha256}:{spec.image_size}{':compiled' if compiled else ''}",
        bf16=place.type == "cuda" if bf16 is None else bf16,
    )
