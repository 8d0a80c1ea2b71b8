"""SAM 2 behind the engine's port: jobs of single slices in, batched steps inside, observations out."""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from slicecast.engine.ports import Embedding, Observation, PromptJob, TrackJob
from slicecast.models import sam2_forward as steps
from slicecast.models.devices import choose_device, memory_errors, threads
from slicecast.models.graphs import Graph, available, compile_graphs
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2_build import load_sam2
from slicecast.models.sam2_forward import (
    Encoded,
    Features,
    Memory,
    Step,
    bank_signature,
    last_logits,
    observations,
    previous_answers,
    prompt_signature,
    stack_banks,
    stack_features,
    stack_points,
)
from slicecast.models.sam2_graphs import ANCHORS, ClickGraph, EncodeGraph, MaskGraph, TrackGraph, answer_of, weigh

logger = logging.getLogger(__name__)

CODE_VERSION = 2  # Raise it whenever this file, ``sam2_forward`` or ``sam2_graphs`` changes what a model answers

SMALL_INPUT_PX = 256
"""Up to this input size a network runs on one CPU thread: its operations are too short to share. Measured with
the bundled model on two cores: 56 slices in 1.3 s with one thread; 2 s with two, and 14 s with two while another
process is busy, because the threads wait for each other."""

BATCHES = (4, 2, 1)
"""Slices encoded, or tracks that step, at once; each of them has a compiled graph. More together gain little."""

CLICK, CORRECTION, MASK, OTHER = "click", "correction", "mask", "other"
"""Kinds of prompts; those of the last have no compiled graph."""

Item = TypeVar("Item")
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
        compiled: let OpenVINO compute what it can.
        flat: track through one flat module where the network allows it, not through SAM 2's own classes.
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
        compiled: bool = False,
        flat: bool = True,
    ) -> None:
        self._model = model
        self._previous_mask = previous_mask
        self._dense_prompts = dense_prompts
        self._bf16 = bf16
        self.zoom = zoom
        self.appearance_prior = appearance_prior
        self.image_size: int = model.image_size
        suits = TrackGraph.suits(model) and not previous_mask and not bf16
        self._flat = TrackGraph(model).eval() if suits and flat else None
        pointers = 0 if suits else model.max_obj_ptrs_in_encoder
        self.memory_length: int = max(model.num_maskmem - 1, pointers - 1)
        self.fingerprint = (
            f"{fingerprint}/{CODE_VERSION}/{int(previous_mask)}{int(dense_prompts)}{int(bf16)}{int(appearance_prior)}"
        )
        self._threads = 1 if self.on_cpu and self.image_size <= SMALL_INPUT_PX else None
        self._encode: dict[int, Graph] = dict.fromkeys(BATCHES, EncodeGraph(model).eval())
        self._prompts: dict[tuple[str, int], Graph] = {}
        self._step: dict[int, Graph] = {} if self._flat is None else dict.fromkeys(BATCHES, self._flat)
        if compiled:
            self._compile()

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

    def _compile(self) -> None:
        """Let compiled graphs replace what is computed most."""
        sizes = BATCHES if self.image_size <= SMALL_INPUT_PX else BATCHES[-1:]
        frames = torch.rand(max(sizes), self.image_size, self.image_size)
        self._encode = self._graphs("the encoder", EncodeGraph(self._model).eval(), {n: (frames[:n],) for n in sizes})
        if self._flat is not None:
            maps = self._encode[max(sizes)](frames)
            self._compile_steps(self._flat, {n: [m[:n] for m in maps] for n in sizes})

    def _compile_steps(self, flat: TrackGraph, maps: Mapping[int, Sequence[torch.Tensor]]) -> None:
        """Compile the tracked step, and what answers the usual prompts: one click, alone or as a correction, a mask."""
        examples = {n: flat.example(given) for n, given in maps.items()}
        self._step = self._graphs("the tracked step", flat, examples)
        if not self._dense_prompts:  # those that are drawn are an input of the graphs below
            return
        size, bank = self.image_size, examples[1][3:6]
        said = {
            n: (
                torch.full((n, 1, 2), size / 2),
                torch.ones(n, 1, dtype=torch.int32),
                torch.zeros(n, 1, size // 4, size // 4),
            )
            for n in maps
        }
        click, mask = ClickGraph(flat).eval(), MaskGraph(self._model).eval()
        kinds = {
            CLICK: self._graphs("a click", click, {n: (*maps[n], *said[n]) for n in maps}),
            CORRECTION: self._graphs("a correction", click, {1: (*maps[1], *said[1], *bank)}),
            MASK: self._graphs("a mask", mask, {1: (*maps[1], torch.ones(1, 1, size, size).tril())}),
        }
        self._prompts = {(kind, n): graph for kind, graphs in kinds.items() for n, graph in graphs.items()}

    def _graphs(self, name: str, module: nn.Module, examples: dict[int, tuple[torch.Tensor, ...]]) -> dict[int, Graph]:
        made = compile_graphs(name, module, list(examples.values()), key=self.fingerprint, threads=self._threads)
        return dict(zip(examples, made, strict=True))

    def encode(self, frames: NDArray[np.float32]) -> list[Embedding]:
        """Encode slices (N, S, S) float32 in [0, 1]."""
        encoded: list[Embedding] = []
        with self._inference():
            for part in _parts(list(frames), self._encode):
                maps = self._encode[len(part)](torch.from_numpy(np.stack(part)).to(self.device))
                encoded += [Encoded(Features(tuple(m[n : n + 1].clone() for m in maps))) for n in range(len(part))]
        return encoded

    def prompt(self, jobs: Sequence[PromptJob], *, num_slices: int) -> list[Observation]:
        """Segment prompted slices; jobs that look alike run as one batch."""

        def run(features: Features, batch: Sequence[PromptJob]) -> tuple[Step, Memory]:
            graph = self._prompts.get((_kind_of(batch[0]), len(batch)))
            if graph is not None:
                return answer_of(graph(*features.maps, *self._inputs(batch)))
            if batch[0].prompt.mask is not None:
                step = steps.prompt_with_mask(self._model, features, self._masks(batch))
            else:
                step = self._prompt_with_points(features, batch, num_slices)
            return step, steps.remember(self._model, features, step, prompted=True)

        return self._in_batches(jobs, prompt_signature, run, sizes=BATCHES if self._prompts else None)

    def track(self, jobs: Sequence[TrackJob], *, num_slices: int) -> list[Observation]:
        """Segment the next slice of each track, several as one batch: on a GPU those with equally much memory."""
        if self._flat and all(len(job.bank.anchors) <= ANCHORS for job in jobs):
            return self._track_flat(self._flat, jobs)

        def run(features: Features, batch: Sequence[TrackJob]) -> tuple[Step, Memory]:
            banks = [job.bank for job in batch]
            previous = last_logits(banks) if self._previous_mask else None
            bank = stack_banks(banks)
            when = {"time": banks[0].time, "num_slices": num_slices}
            step = steps.track(self._model, features, bank, previous_mask=previous, **when)
            if any(job.prior is not None or job.bias for job in batch):
                step = weigh(step, *self._weights(batch))
            return step, steps.remember(self._model, features, step, prompted=False)

        return self._in_batches(jobs, lambda job: bank_signature(job.bank), run)

    def _track_flat(self, flat: TrackGraph, jobs: Sequence[TrackJob]) -> list[Observation]:
        answers: list[Observation] = []
        with self._inference():
            for batch in _parts(jobs, self._step):
                maps = stack_features([job.embedding for job in batch]).maps
                memory = flat.memory_of([job.bank for job in batch])
                outputs = self._step[len(batch)](*maps, *memory, *self._weights(batch))
                answers += observations(*answer_of(outputs))
        return answers

    def _in_batches(
        self,
        jobs: Sequence[Job],
        signature: Callable[[Job], tuple],
        run: Callable[[Features, Sequence[Job]], tuple[Step, Memory]],
        *,
        sizes: Collection[int] | None = None,
    ) -> list[Observation]:
        """Run jobs of one signature together, in batches of these sizes; any size without."""
        groups: dict[tuple, list[int]] = defaultdict(list)
        for n, job in enumerate(jobs):
            groups[signature(job)].append(n)
        answers: dict[int, Observation] = {}
        with self._inference():
            for group in groups.values():
                for numbers in _parts(group, sizes or (len(group),)):
                    batch = [jobs[n] for n in numbers]
                    features = stack_features([job.embedding for job in batch])
                    answers |= zip(numbers, observations(*run(features, batch)), strict=True)
        return [answers[n] for n in range(len(jobs))]

    def _inputs(self, batch: Sequence[PromptJob]) -> tuple[torch.Tensor | None, ...]:
        """Return what a compiled prompt takes beside the slices' maps."""
        if batch[0].prompt.mask is not None:
            return (self._masks(batch),)
        points, labels = stack_points([job.prompt for job in batch], self.device)
        dense = self._dense(points, labels, previous_answers(batch, self.device))
        banks = [job.bank for job in batch if job.bank is not None]
        memory = self._flat.memory_of(banks) if self._flat and banks else ()
        return points, labels, dense, *memory

    def _prompt_with_points(self, features: Features, batch: Sequence[PromptJob], num_slices: int) -> Step:
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

    def _weights(self, batch: Sequence[TrackJob]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return priors (B, S, S) and biases (B,)."""
        silent = np.zeros((self.image_size, self.image_size), dtype=np.float32)
        stacked = np.stack([silent if job.prior is None else job.prior for job in batch])
        biases = torch.tensor([job.bias for job in batch], dtype=torch.float32)
        return torch.from_numpy(stacked).to(self.device), biases.to(self.device)

    def _masks(self, batch: Sequence[PromptJob]) -> torch.Tensor:
        stacked = np.stack([job.prompt.mask for job in batch if job.prompt.mask is not None])
        return torch.from_numpy(stacked)[:, None].to(self.device, torch.float32)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        # Autocast is thread-local: entering it here, per call, keeps results independent of the thread.
        with (
            memory_errors(self.device),
            threads(self._threads),
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16),
        ):
            yield

    def pool(self, embedding: Encoded) -> NDArray[np.float32]:
        """Return what a whole slice looks like, (2C,): mean and deviation of each channel of its coarsest map."""
        with self._inference():
            channels = embedding.features.maps[-1][0].float().flatten(1)
            return torch.cat([channels.mean(1), channels.std(1, correction=0)]).cpu().numpy()

    def release(self) -> None:
        """Give back what the device holds and nobody uses."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _kind_of(job: PromptJob) -> str:
    said = job.prompt
    if said.mask is not None:
        return MASK
    if len(said.labels) != 1 or said.box_xyxy is not None or (job.bank and len(job.bank.anchors) > ANCHORS):
        return OTHER
    return CLICK if job.bank is None else CORRECTION


def _parts(items: Sequence[Item], sizes: Collection[int]) -> Iterator[Sequence[Item]]:
    """Cut a sequence into parts of these sizes, the largest first."""
    while items:
        size = next(size for size in sorted(sizes, reverse=True) if size <= len(items))
        yield items[:size]
        items = items[size:]


def load_predictor(
    spec: ModelSpec, *, device: str = "auto", compiled: bool = False, openvino: bool = False, flat: bool = True
) -> Sam2Predictor:
    """Build a registered model with its weights.

    Args:
        device: ``auto`` (CUDA if there is one, else CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        compiled: let PyTorch compile the image encoder; on CUDA only, where it is worth its minutes.
        openvino: let OpenVINO compute what it can; on a CPU only, and where it is installed.
        flat: as `Sam2Predictor` says; off for those who look into the network's own modules.

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
        bf16=place.type == "cuda",
        compiled=openvino and place.type == "cpu" and available(),
        flat=flat,
    )
