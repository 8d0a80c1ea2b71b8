"""The training loop, on pytorch-ignite: knows nothing of clips or SAM 2, only of a model, batches and an objective.

A run is a folder: checkpoints, TensorBoard events, `history.jsonl`. A run that was killed goes on from its last
checkpoint and ends bit-exactly where it would have ended: everything random depends on (seed, step) alone.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, EMAHandler, ProgressBar, TensorboardLogger
from torch import Tensor, nn

from slicecast.errors import ConfigError, StateError

log = logging.getLogger(__name__)

HISTORY = "history.jsonl"
LOG_EVERY = 25  # Steps between log lines; each line is the mean since the last


Watch = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step with its number, the number of all, and the loss terms; may raise to stop."""


class LossTerms(Protocol):
    """What an objective returns."""

    @property
    def total(self) -> Tensor:
        """The number to minimise."""
        ...

    def terms(self) -> Mapping[str, Tensor]:
        """Everything worth recording, the total included."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """How to train."""

    steps: int  # of the whole run; may be raised later
    learning_rate: float = 1e-3  # after the warm-up
    warmup_steps: int = 200  # linear rise from zero
    decay_steps: int = 0  # linear fall at the end of the run; 0 for none
    final_rate: float | None = None  # the decay stops at this; default: a twentieth of `learning_rate`
    accumulate: int = 1  # batches of a step; their gradients are averaged
    weight_decay: float = 0.01  # of AdamW, for matrices and kernels only
    grad_norm: float = 1.0  # gradients are clipped to this
    ema_momentum: float = 0.002  # share of the new weights in the running mean, each step
    # float32, or bfloat16 autocast (slower than float32 on CPUs without AVX-512 BF16 or AMX)
    precision: str = "float32"
    checkpoint_every: int = 200  # steps
    validate_every: int = 500  # steps
    device: str = "cpu"  # of the model

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision is {self.precision!r}; it must be float32 or bfloat16.")
        if min(self.steps, self.accumulate, self.checkpoint_every, self.validate_every) < 1:
            raise ConfigError("steps, accumulate, checkpoint_every and validate_every must be at least 1.")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: warm-up, constant, decay."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        fall = min(1.0, (self.steps - step) / max(1, self.decay_steps)) if self.decay_steps else 1.0
        final = 0.05 * self.learning_rate if self.final_rate is None else self.final_rate
        return rise * max(final, self.learning_rate * fall)


@dataclass(slots=True)
class StepCounter:
    """Steps done, as part of a checkpoint."""

    done: int = 0

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint keeps."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take over a checkpoint."""
        self.done = int(state["done"])


def train(
    model: nn.Module,
    objective: Callable[[Any], LossTerms],
    batches: Callable[[int, int], Iterable[Any]],
    *,
    settings: LoopSettings,
    folder: Path,
    seed: int,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    show_progress: bool = False,
    watch: Watch | None = None,
) -> nn.Module:
    """Train in place until `settings.steps`, going on from the folder's last checkpoint; return the averaged model.

    Under `ignite.distributed` every process works on its own batches and the gradients are averaged.

    Args:
        objective: batch -> loss terms, over `model`.
        batches: (first, last) -> the batches of these numbers, in order; a step takes `accumulate` of them.
        folder: of the run.
        seed: of torch's generator, together with the step.
        validate: averaged model -> named numbers.
        show_progress: draw a progress bar.
        watch: told of every step.

    Raises:
        StateError: the loss is no longer a finite number.
    """
    optimizer = _optimizer(model, settings)
    counter, ema = StepCounter(), EMAHandler(model, momentum=settings.ema_momentum)
    parts = {"model": model, "optimizer": optimizer, "ema": ema.ema_model, "counter": counter}
    _resume(folder, parts)
    ema.ema_model.eval()
    if counter.done >= settings.steps:
        return ema.ema_model
    trainer = Engine(_update(model, optimizer, objective, settings))
    _attach_schedule(trainer, optimizer, settings, seed)
    ema.attach(trainer, event=Events.ITERATION_COMPLETED)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: setattr(counter, "done", e.state.iteration))
    if watch is not None:
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: watch(e.state.iteration, settings.steps, e.state.output)
        )
    trainer.load_state_dict({"iteration": counter.done, "epoch_length": settings.steps, "max_epochs": 1})
    with ExitStack() as stack:
        if idist.get_rank() == 0:
            board = TensorboardLogger(log_dir=str(folder))
            stack.callback(board.close)
            _attach_log(trainer, folder, board, show_progress)
            if validate is not None:
                _attach_validation(trainer, folder, board, settings, lambda: validate(ema.ema_model))
            _attach_checkpoints(trainer, folder, parts, settings)
        share = settings.accumulate
        trainer.run(_together(batches(share * counter.done, share * settings.steps), share))
    return ema.ema_model


def _together(batches: Iterable[Any], count: int) -> Iterator[tuple[Any, ...]]:
    """Yield `count` batches at a time."""
    stream = iter(batches)
    while together := tuple(islice(stream, count)):
        yield together


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the latest step in a run's folder."""
    files = folder.glob("checkpoint_*.pt")
    return max(files, key=lambda file: int(file.stem.rpartition("_")[2]), default=None)


def _resume(folder: Path, parts: Mapping[str, Any]) -> None:
    file = latest_checkpoint(folder)
    if file is None:
        return
    Checkpoint.load_objects(to_load=parts, checkpoint=torch.load(file, map_location="cpu", weights_only=True))
    log.info("resumed from %s", file)


def _optimizer(model: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    """Return AdamW; vectors (biases, norms, embeddings of one row) are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, objective: Callable[[Any], LossTerms], settings: LoopSettings
) -> Callable[[Engine, Any], dict[str, float]]:
    device_type = torch.device(settings.device).type
    mixed = settings.precision == "bfloat16"

    def accumulated(batch: Any, share: float) -> dict[str, float]:
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=mixed):
            loss = objective(batch)
        (share * loss.total).backward()
        return {name: share * float(value.detach()) for name, value in loss.terms().items()}

    def update(engine: Engine, batches: Sequence[Any]) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        parts = [accumulated(batch, 1 / len(batches)) for batch in batches]
        terms = {name: sum(part[name] for part in parts) for name in parts[0]}
        _average_gradients(model)
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings.grad_norm)
        if not math.isfinite(terms["total"] + float(norm)):
            raise StateError(
                f"The loss is not finite at step {engine.state.iteration}. The last checkpoint is sound: "
                "lower the learning rate and start again from it."
            )
        optimizer.step()
        return {**terms, "grad_norm": float(norm)}

    return update


def _average_gradients(model: nn.Module) -> None:
    """Give every process the mean of all processes' gradients."""
    if idist.get_world_size() == 1:
        return
    trained = [p for p in model.parameters() if p.requires_grad]
    own = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
    mean = torch.as_tensor(idist.all_reduce(own)) / idist.get_world_size()
    for p, grad in zip(trained, mean.split([p.numel() for p in trained]), strict=True):
        p.grad = grad.view_as(p)


def _attach_schedule(trainer: Engine, optimizer: torch.optim.Optimizer, settings: LoopSettings, seed: int) -> None:
    @trainer.on(Events.ITERATION_STARTED)
    def _(engine: Engine) -> None:
        step = engine.state.iteration - 1
        torch.manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)


def _attach_checkpoints(trainer: Engine, folder: Path, parts: Mapping[str, Any], settings: LoopSettings) -> None:
    saver = DiskSaver(str(folder), create_dir=True, require_empty=False)
    checkpoint = Checkpoint(
        dict(parts), saver, n_saved=2, global_step_transform=lambda engine, _: engine.state.iteration
    )
    every = Events.ITERATION_COMPLETED(every=settings.checkpoint_every)
    trainer.add_event_handler(every | Events.COMPLETED, checkpoint)


def _attach_log(trainer: Engine, folder: Path, board: TensorboardLogger, show_progress: bool) -> None:
    sums: dict[str, float] = {}

    @trainer.on(Events.ITERATION_COMPLETED)
    def _(engine: Engine) -> None:
        output: dict[str, float] = engine.state.output  # type: ignore[assignment]
        for name, value in output.items():
            sums[name] = sums.get(name, 0.0) + value

    @trainer.on(Events.ITERATION_COMPLETED(every=LOG_EVERY))
    def _(engine: Engine) -> None:
        means = {name: value / LOG_EVERY for name, value in sums.items()}
        sums.clear()
        _record(folder, board, engine.state.iteration, "train", means)

    if show_progress:
        ProgressBar(persist=True).attach(trainer, output_transform=lambda output: {"loss": output["total"]})


def _attach_validation(
    trainer: Engine,
    folder: Path,
    board: TensorboardLogger,
    settings: LoopSettings,
    validate: Callable[[], Mapping[str, float]],
) -> None:
    @trainer.on(Events.ITERATION_COMPLETED(every=settings.validate_every) | Events.COMPLETED)
    def _(engine: Engine) -> None:
        _record(folder, board, engine.state.iteration, "validation", validate())


def _record(folder: Path, board: TensorboardLogger, step: int, kind: str, values: Mapping[str, float]) -> None:
    log.info("step %d %s %s", step, kind, " ".join(f"{name} {value:.4f}" for name, value in values.items()))
    for name, value in values.items():
        board.writer.add_scalar(f"{kind}/{name}", value, step)
    with (folder / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
