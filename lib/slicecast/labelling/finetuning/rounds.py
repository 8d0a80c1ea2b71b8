"""Rounds: what each learns, kept in a folder, so that a round that was stopped or killed goes on where it was.

models/rounds/0002/
  round.json         what is learnt, and how: never changed
  labels/            copies of the labels, so that a correction meanwhile does not mix two states
  fold-1/ ... all/   the trainings, with checkpoints and TensorBoard's events
  result.json        how it ended; as long as it is missing, the round can go on
  automatic/         the trainings of the network that segments without prompts
  automatic.json     what became of it
  round.lock         held while a process works on it
"""

import json
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from monailabel.interfaces.datastore import Datastore

from slicecast.config import build
from slicecast.errors import Cancelled, Conflict, InputError, SlicecastError
from slicecast.files import file_sha256, place_file, write_atomically
from slicecast.inference.studies import Study, open_study
from slicecast.labelling.store.labels import FINAL, read_final_label
from slicecast.models.registry import ModelSpec
from slicecast.models.versions import ModelVersions
from slicecast.training.finetune import FinetuneSettings, LabelledObject, finetune_settings
from slicecast.training.loop import HISTORY
from slicecast.volume import SliceStack, choose_axis, read_volume

logger = logging.getLogger(__name__)

ROUNDS, MANIFEST, RESULT, LOCK = "rounds", "round.json", "result.json", "round.lock"
AUTOMATIC = "automatic"  # Folder of what segments without prompts, in a round's and in that of the weights

WEIGHTS = "weights.safetensors"  # What a training ends with, in its folder
ALL = "all"  # Folder of the training on all labels


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntCase:
    """A label that a round learns."""

    id: str  # of the image
    image: str  # its file
    label: str  # its copy's name in the round's `labels`
    sha256: str  # of the label
    values: Mapping[str, int]  # name of each structure -> its number
    slices: Sequence[int] | None = None  # canonical slices that a person vouches for; None: all

    def objects(self, folder: Path) -> list[LabelledObject]:
        """Return its structures as training wants them.

        Args:
            folder: of the round.

        Raises:
            VolumeError: a file cannot be read.
        """
        study = self.study()
        axis = choose_axis(study.volume.geometry)
        frames = study.frames(axis, study.window("auto"))
        label = study.reorientation.to_canonical_array(self.array(folder))
        known = np.ones(frames.count, dtype=bool) if self.slices is None else np.isin(range(frames.count), self.slices)
        masks = [np.moveaxis(label == value, 2 - axis, 0) for value in self.values.values()]
        return [LabelledObject(self.id, frames, mask, known) for mask in masks]

    def study(self) -> Study:
        """Open the image."""
        return open_study(read_volume(Path(self.image)))

    def array(self, folder: Path) -> np.ndarray:
        """Return the label [k, j, i], as stored."""
        return read_volume(folder / "labels" / self.label).array


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """What a round does."""

    base: str  # the model, whose own weights it begins with
    base_sha256: str  # of those weights
    deployed: str  # name of the version that new weights are compared with
    settings: Mapping[str, Any]  # the content of `configs/training/finetune.yaml`
    cases: tuple[LearntCase, ...]  # the labels, by id
    made_s: float = field(default=0.0, compare=False)  # when, seconds since 1970
    # SHA-256 of the labels that cannot be learnt, by case; "" of one that is not here
    left_out: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def training(self) -> FinetuneSettings:
        """The settings, checked."""
        return finetune_settings(self.settings)

    @property
    def folds(self) -> list[list[LearntCase]]:
        """The cases in parts, each to be judged by weights that have learnt the others."""
        count = min(self.training.round.folds, len(self.cases))
        return [list(self.cases[n::count]) for n in range(count)]


@dataclass(frozen=True, slots=True)
class TuningRound:
    """A round on the disk."""

    folder: Path

    @property
    def name(self) -> str:
        """Its number as text."""
        return self.folder.name

    def plan(self) -> RoundPlan:
        """Read what it does."""
        content = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        return build(RoundPlan, content, where=str(self.folder))

    def result(self) -> dict[str, Any] | None:
        """Return how it ended; None as long as it has not."""
        file = self.folder / RESULT
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def end(self, status: str, why: str, **more: Any) -> dict[str, Any]:
        """Write how it ended: DONE, ERROR or STOPPED, and why."""
        result = {"status": status, "why": why, "ended_s": time.time(), **more}
        write_atomically(self.folder / RESULT, json.dumps(result, indent=1).encode())
        return result

    def automatic(self) -> str | None:
        """Say what became of the network that segments without prompts; None as long as nothing has."""
        file = self.folder / f"{AUTOMATIC}.json"
        return str(json.loads(file.read_text(encoding="utf-8"))["why"]) if file.is_file() else None

    def end_automatic(self, why: str) -> None:
        """Write what became of it."""
        write_atomically(self.folder / f"{AUTOMATIC}.json", json.dumps({"why": why}).encode())

    def is_left(self) -> bool:
        """Tell whether something is left to do: nothing of a round that was stopped or failed."""
        result = self.result()
        if result is None or result["status"] != "DONE":
            return result is None
        return self.plan().training.round.automatic and self.automatic() is None

    def refuse_stopped(self) -> None:
        """Raise Cancelled where somebody has stopped it: they cannot end every process that may work on it."""
        if (self.folder / RESULT).is_file():
            raise Cancelled(f"Round {self.name} of fine-tuning was stopped. The same command goes on with it.")

    def halt(self, status: str, why: str) -> None:
        """Write that what is left is not done now: STOPPED or ERROR, and why."""
        if self.result() is None:
            self.end(status, why)
        elif self.is_left():
            self.end_automatic(why)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the one who works on it while the block lasts; raises Conflict if another process does."""
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=5)  # somebody may just be looking whether it runs
        except Timeout as error:
            raise Conflict(f"Another process works on round {self.name} of fine-tuning.") from error
        try:
            yield
        finally:
            lock.release()

    def is_running(self) -> bool:
        """Tell whether a process works on it."""
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                return False
        except Timeout:
            return True

    def steps(self) -> tuple[int, int]:
        """Return the steps done so far in all its trainings, and their number."""
        plan = self.plan()
        each, trainings = plan.training.loop.steps, len(plan.folds) + 1
        histories = self.folder.glob(f"*/{HISTORY}")
        done = sum(each if (file.parent / WEIGHTS).is_file() else _last_step(file) for file in histories)
        if not plan.training.round.automatic:
            return done, trainings * each
        more = trainings * plan.training.automatic.loop.steps
        learnt = [_last_step(file) for file in self.folder.glob(f"{AUTOMATIC}/*/{HISTORY}")]
        return done + (sum(learnt) if self.automatic() is None else more), trainings * each + more

    def losses(self) -> list[float]:
        """Return the loss at each recorded step of the training that is farthest in the round."""
        files = sorted(self.folder.glob(f"*/{HISTORY}"), key=lambda file: file.stat().st_mtime)
        lines = files[-1].read_text(encoding="utf-8").splitlines() if files else []
        return [json.loads(line)["total"] for line in lines]


class Rounds:
    """The rounds of a campaign.

    Args:
        versions: of the model; the rounds lie beside them.
    """

    def __init__(self, versions: ModelVersions) -> None:
        self.folder = versions.folder / ROUNDS

    def all(self) -> list[TuningRound]:
        """Return them, oldest first."""
        return [TuningRound(file.parent) for file in sorted(self.folder.glob(f"[0-9]*/{MANIFEST}"))]

    def latest(self) -> TuningRound | None:
        """Return the last one."""
        return next(reversed(self.all()), None)

    def begin(self, plan: RoundPlan, labels: Mapping[str, Path]) -> TuningRound:
        """Write a round's plan and copy its labels; the same plan as that of an unfinished round goes on with it.

        Args:
            labels: file of each case's label.

        Raises:
            InputError: there are too few labels.
            Conflict: a round is running.
        """
        least = plan.training.round.least_labels
        if len(plan.cases) < least:
            raise InputError(f"Fine-tuning needs at least {least} submitted labels; there are {len(plan.cases)}.")
        last = self.latest()
        if last is not None and last.is_running():
            raise Conflict(f"Round {int(last.name)} of fine-tuning is running. Wait for its end, or stop it.")
        if last is not None and (last.result() or {}).get("status") in (None, "STOPPED") and last.plan() == plan:
            (last.folder / RESULT).unlink(missing_ok=True)
            return last
        number = int(last.name) + 1 if last is not None else 1
        found = TuningRound(self.folder / f"{number:04}")
        (found.folder / "labels").mkdir(parents=True, exist_ok=True)
        for case in plan.cases:
            place_file(labels[case.id], found.folder / "labels" / case.label)
        content = json.dumps({**asdict(plan), "made_s": time.time()}, indent=1)
        write_atomically(found.folder / MANIFEST, content.encode())
        return found


def plan_round(
    store: Datastore,
    cases: Sequence[str],
    base: ModelSpec,
    versions: ModelVersions,
    *,
    settings: Mapping[str, Any],
    labels: Sequence[str],
    touched: Mapping[str, Collection[int] | None] | None = None,
) -> tuple[RoundPlan, dict[str, Path]]:
    """Plan a round on labels of a store; return it with the files of its labels, without those that cannot be used.

    Args:
        cases: ids of the images whose final label counts.
        settings: the content of `configs/training/finetune.yaml`.
        labels: the app's, whose numbers an unnamed label has.
        touched: canonical slices that a person has seen to, by case; None: all of every label.
    """
    found: dict[str, LearntCase] = {}
    files: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for name in sorted(cases):
        try:
            found[name] = _learnt(store, name, labels, None if touched is None else touched.get(name))
            files[name] = Path(store.get_label_uri(name, FINAL))
        except SlicecastError as error:
            logger.warning("The label of '%s' is not learnt: %s", name, error)
            left_out[name] = label_sha256(store, name)
    plan = RoundPlan(
        base=base.name,
        base_sha256=str(base.sha256),
        deployed=versions.serving(base).name,
        settings=settings,
        cases=tuple(found.values()),
        left_out=left_out,
    )
    return plan, files


def label_sha256(store: Datastore, name: str) -> str:
    """Return the SHA-256 of an image's final label; "" where only a DICOM server has it."""
    file = store.get_label_uri(name, FINAL)
    return file_sha256(Path(file)) if file else ""


def _learnt(store: Datastore, name: str, labels: Sequence[str], slices: Collection[int] | None) -> LearntCase:
    image, file = Path(store.get_image_uri(name)), Path(store.get_label_uri(name, FINAL))
    study = open_study(read_volume(image))
    label = read_final_label(store, name, study, labels=labels)
    if not label.present:
        raise InputError("it is empty")
    sha256 = file_sha256(file)
    ending = file.name[len(name) :] if file.name.startswith(name) else "".join(file.suffixes[-2:])
    return LearntCase(
        id=name,
        image=str(image.resolve()),
        label=f"{sha256[:16]}{ending}",
        sha256=sha256,
        values=dict(label.values) or {f"label {value}": value for value in label.present},
        slices=None if slices is None else sorted(slices),
    )


def changed_slices(study: Study, before: np.ndarray, after: np.ndarray) -> set[int]:
    """Return the canonical slices on which two masks [k, j, i], as stored, differ."""
    differs = study.reorientation.to_canonical_array(before != after)
    stack = SliceStack(differs, choose_axis(study.volume.geometry))
    return {n for n in range(stack.count) if stack.slice(n).any()}


def _last_step(file: Path) -> int:
    with file.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - 4096))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):
            continue
    return 0
