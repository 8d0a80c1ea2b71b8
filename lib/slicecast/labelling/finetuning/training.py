"""One round of fine-tuning, from labels to a verdict, and to new weights if they pass.

The labels are divided into folds. For each, weights are trained on the others and judged on it, so every label is
judged once, by weights that have not seen it. If these pass the gate, weights are trained on all labels and published.
So a round costs one training more than it has folds, and a refused one saves the last. What the deployed weights have
learnt is not held against them: on such a label they count as their own folds did when they were judged.
Every part is a file in the round's folder; a round that was killed does again only what has no file.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from filelock import FileLock

from slicecast.errors import Cancelled, Conflict
from slicecast.inference.segment import SegmentService
from slicecast.inference.settings import EngineSettings
from slicecast.labelling.finetuning.gate import JudgedObject, Scores, Verdict, judge
from slicecast.labelling.finetuning.rounds import ALL, WEIGHTS, LearntCase, RoundPlan, TuningRound
from slicecast.labelling.store.versions import write_atomically
from slicecast.models.devices import choose_device
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2 import load_predictor
from slicecast.models.sam2_build import load_sam2
from slicecast.models.versions import ModelVersion, ModelVersions, write_weights
from slicecast.models.weights import with_weights
from slicecast.training.finetune import finetune
from slicecast.training.volumes import LabelledObject, store_object, stored_object

logger = logging.getLogger(__name__)

SCORES, OBJECTS = "scores.json", "objects"

HELD_OUT = "held_out"
"""Key of a version's verdict: its folds' scores, structure by structure."""


def carry_out(
    round: TuningRound,
    versions: ModelVersions,
    base: ModelSpec,
    *,
    device: str = "auto",
    promoted: Callable[[ModelVersion, Verdict], None] = lambda version, verdict: None,
) -> dict[str, Any]:
    """Carry out a round, or what is left of it, and return its result.

    Args:
        base: the model, with its own weights.
        device: `auto`, `cpu`, `cuda`, `cuda:N`.
        promoted: told of new weights that are used from now on.

    Raises:
        Conflict: another process works on it, or the model has other weights than when it was begun.
        InputError: there is no label to learn from.
        ResourceError: weights or device are missing.
    """
    plan = round.plan()
    if plan.base_sha256 != base.sha256:
        raise Conflict(f"Round {round.name} trains other weights of '{plan.base}' than are here. Begin a new one.")
    with round.alone():
        known = round.result()
        if known is not None:
            return known
        _store_objects(round, plan)
        verdict, held_out = _judged(round, plan, versions, base, device)
        if not verdict.passed:
            return round.end("DONE", verdict.why, verdict=verdict.described())
        model = load_sam2(_train_part(round, base, ALL, device))
        version = versions.add(
            model,
            base,
            labels={case.id: case.sha256 for case in plan.cases},
            verdict={**verdict.described(), HELD_OUT: held_out},
        )
        promoted(version, verdict)
        return round.end("DONE", verdict.why, verdict=verdict.described(), version=version.number)


def _store_objects(round: TuningRound, plan: RoundPlan) -> None:
    """Write what is learnt to the disk, so that memory holds no more than one volume."""
    for case in plan.cases:
        folder = round.folder / OBJECTS / case.sha256[:16]
        if not (folder / "done").is_file():
            for number, thing in enumerate(case.objects(round.folder)):
                store_object(folder / str(number), thing)
            (folder / "done").touch()


def _stored_objects(round: TuningRound, case: LearntCase) -> list[LabelledObject]:
    folders = (round.folder / OBJECTS / case.sha256[:16]).glob("[0-9]*")
    return [stored_object(folder) for folder in sorted(folders)]


def _judged(
    round: TuningRound, plan: RoundPlan, versions: ModelVersions, base: ModelSpec, device: str
) -> tuple[Verdict, Scores]:
    """Train and judge all folds; return the verdict and their scores."""
    settings = plan.training.round
    serving = versions.named(plan.deployed, base)
    version = next((v for v in versions.all() if v.name == plan.deployed), None)
    learnt = version.labels if version is not None else {}
    chosen = plan.cases[: settings.judged_labels]
    unseen = [case for case in chosen if case.id not in learnt]
    parts = [partial(_score_fold, round, base, n, device) for n in range(len(plan.folds))]
    parts.append(partial(_scores, round, "deployed", serving, unseen, device))
    *folds, deployed = _run(parts, settings.workers)
    new = {name: score for fold in folds for name, score in fold.items()}
    groups = {_structure(case, name): case.id for case in plan.cases for name in case.values}
    same = {case.id for case in plan.cases if learnt.get(case.id) == case.sha256}
    own = (version.verdict.get(HELD_OUT) or {}) if version is not None else {}
    known = {name: score for name, score in own.items() if groups.get(name) in same}
    return judge(new, {**known, **deployed}, settings=settings, groups=groups), new


def _run(parts: Sequence[Callable[[], Scores]], workers: int) -> list[Scores]:
    """Call all parts, several at a time in processes of their own."""
    if workers == 1:
        return [part() for part in parts]
    with ProcessPoolExecutor(min(workers, len(parts)), mp_context=get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(part) for part in parts]]


def _score_fold(round: TuningRound, base: ModelSpec, number: int, device: str) -> Scores:
    plan = round.plan()
    part = f"fold-{number + 1}"
    spec = _train_part(round, base, part, device)
    held_out = [case for case in plan.folds[number] if case in plan.cases[: plan.training.round.judged_labels]]
    return _scores(round, part, spec, held_out, device)


def _train_part(round: TuningRound, base: ModelSpec, part: str, device: str) -> ModelSpec:
    """Train one part, or go on with it; return the base with its weights."""
    plan, folder = round.plan(), round.folder / part
    folder.mkdir(exist_ok=True)
    file = folder / WEIGHTS
    with FileLock(folder / "part.lock"):  # a process of a round that was killed may still be at it
        if not file.is_file():
            held_out = [] if part == ALL else plan.folds[int(part.removeprefix("fold-")) - 1]
            learnt = [case for case in plan.cases if case not in held_out]
            training = plan.training
            loop = replace(training.loop, device=str(choose_device(device)))
            threads = training.round.workers if part == ALL else training.threads
            model = finetune(
                base,
                [thing for case in learnt for thing in _stored_objects(round, case)],
                replace(training, loop=loop, threads=threads),
                folder=folder,
                watch=_end_with(os.getppid()),
            )
            write_weights(model, folder / f".{WEIGHTS}")
            (folder / f".{WEIGHTS}").replace(file)
    return with_weights(base, file)


def _end_with(parent: int) -> Callable[[int, int, Mapping[str, float]], None]:
    """Return a watcher that stops a training whose parent process was killed."""

    def watch(step: int, steps: int, terms: Mapping[str, float]) -> None:
        if os.getppid() != parent:
            raise Cancelled("The process that began the training is gone.")

    return watch


def _scores(round: TuningRound, part: str, spec: ModelSpec, cases: Sequence[LearntCase], device: str) -> Scores:
    """Return the scores of weights on labels, by structure."""
    file = round.folder / part / SCORES
    if file.is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    predictor = load_predictor(spec, device=device)
    service = SegmentService(predictor=predictor, settings=EngineSettings(idle_encode=False, embedding_mb=256))
    found: dict[str, dict[str, float]] = {}
    for case in cases:
        study, label = case.study(), case.array(round.folder)
        for name, value in case.values.items():
            thing = JudgedObject(Path(case.image), study, label == value)
            found[_structure(case, name)] = thing.dice_by_prompt(service)
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, json.dumps(found).encode())
    return found


def _structure(case: LearntCase, name: str) -> str:
    return f"{case.id}/{name}"
