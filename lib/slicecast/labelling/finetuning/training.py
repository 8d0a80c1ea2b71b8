"""One round of fine-tuning, from labels to a verdict, and to new weights if they pass the gate.

The labels are divided into folds. For each, weights are trained on the others and judged on it, so every label is
judged once, by weights that have not seen it. If these pass the gate, weights are trained on all labels and published.
So a round costs one training more than it has folds, and a refused one saves the last. What the deployed weights have
learnt is not held against them: on such a label they count as their own folds did when they were judged.
Every part is a file in the round's folder; a round that was killed does again only what has no file.

The gate segments a structure as an annotator would: from a click, a box, a mask on its largest slice, and from the
click with three further slices painted, each where the product suggests. New and deployed weights answer the same
prompts on the same labels; the differences in Dice are averaged for each kind of prompt. The new weights pass if no
kind loses more than the margin and all kinds together gain.

Whatever comes of the weights, the network that segments without prompts learns the same labels afterwards.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from scipy.stats import bootstrap

from slicecast.errors import Cancelled, Conflict, SlicecastError
from slicecast.files import appearing, write_atomically
from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.settings import EngineSettings, engine_settings
from slicecast.inference.studies import Study
from slicecast.labelling.finetuning.automatic import AutomaticModels, Promoted, learn_round
from slicecast.labelling.finetuning.rounds import ALL, WEIGHTS, LearntCase, RoundPlan, TuningRound
from slicecast.models.devices import choose_device
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2 import load_predictor
from slicecast.models.sam2_build import load_sam2
from slicecast.models.versions import ModelVersions, write_weights
from slicecast.models.weights import with_weights
from slicecast.prompts import Box, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.prompts.mapping import slice_to_source_ijk
from slicecast.prompts.simulate import next_click
from slicecast.training.executor import run_parts
from slicecast.training.finetune import LabelledObject, RoundSettings, finetune, store_object, stored_object
from slicecast.volume import SliceAxis, SliceStack, choose_axis
from slicecast.volume.metrics import dice
from slicecast.volume.slices import box_of

logger = logging.getLogger(__name__)

KINDS = ("click", "box", "mask", "corrections")  # Prompts that are compared
PAINTED = 3  # Slices painted after the click, for `corrections`

NAME = "object"

Mask = NDArray[np.bool_]

Scores = Mapping[str, Mapping[str, float]]  # Structure of a case -> kind of prompt -> Dice over the volume


@dataclass(frozen=True, slots=True, eq=False)
class JudgedObject:
    """A structure whose true mask is known."""

    image: Path  # file or folder of the scan
    study: Study  # the scan, opened
    truth: Mask  # bool [k, j, i], as stored

    @property
    def axis(self) -> SliceAxis:
        """The axis along which the product slices the scan."""
        return choose_axis(self.study.volume.geometry)

    def dice_by_prompt(self, service: SegmentService) -> dict[str, float]:
        """Return the Dice of the product's answer to each kind of prompt; 0 where it cannot be prompted so."""
        return {kind: self._dice(service, kind) for kind in KINDS}

    def _dice(self, service: SegmentService, kind: str) -> float:
        try:
            result = self._ask(service, self._first(kind))
            painted: list[int] = []
            while kind == "corrections" and len(painted) < PAINTED and result.next_slice is not None:
                painted.append(result.next_slice.slice)
                result = self._ask(service, self._first("click", painted))
        except SlicecastError:
            return 0.0
        return dice(result.mask == 1, self.truth)

    def _ask(self, service: SegmentService, prompts: ObjectPrompts) -> SegmentResult:
        request = SegmentRequest(self.image, PromptSet((prompts,)), axis=self.axis.name.lower())
        return service.segment(request, study=self.study)

    def _first(self, kind: str, painted: Sequence[int] = ()) -> ObjectPrompts:
        stack = SliceStack(self.study.reorientation.to_canonical_array(self.truth), self.axis)
        number = int(np.argmax([np.count_nonzero(stack.slice(n)) for n in range(stack.count)]))
        shown = stack.slice(number)
        stored = self.study.reorientation.to_source_slice(self.axis, number)
        masks = (MaskPrompt(self.truth, slices=tuple(painted) or (stored,)),)
        if kind == "mask":
            return ObjectPrompts(NAME, masks=masks)
        if kind == "box":
            low, high = self._stored(number, box_of(shown).reshape(2, 2).astype(int))
            return ObjectPrompts(NAME, boxes=(Box(low, high),))
        click = next_click(shown, np.zeros_like(shown), spacing=self.axis.pixel_spacing_mm(self.study.volume.geometry))
        places = self._stored(number, np.array([click.index if click else (0, 0)]))
        return ObjectPrompts(NAME, points=(Point(places[0]),), masks=masks if painted else ())

    def _stored(self, number: int, xy: NDArray[np.integer]) -> list[tuple[int, int, int]]:
        found = slice_to_source_ijk(self.study.reorientation, self.axis, n=number, xy=xy)
        return [(int(i), int(j), int(k)) for i, j, k in found]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says."""

    passed: bool  # the new weights may be used
    why: str  # in words
    deployed: Mapping[str, float]  # mean Dice of the deployed weights by kind of prompt
    new: Mapping[str, float]  # of the new ones
    gain: float = 0.0  # mean difference over all kinds, with its 95 % interval `low` to `high` over cases
    low: float = 0.0  # see there
    high: float = 0.0  # see there
    structures: int = 0  # how many were compared

    def described(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def judge(new: Scores, deployed: Scores, *, settings: RoundSettings, groups: Mapping[str, str]) -> Verdict:
    """Compare scores of the same structures.

    Args:
        new: of the new weights, none of which has learnt the structure that it answers.
        deployed: of the deployed ones, likewise; structures that only one side has are left out.
        settings: `margin`, the most that a kind of prompt may lose, and `least_gain` of all together.
        groups: structure -> its case; the interval is over cases.
    """
    both = sorted(new.keys() & deployed.keys())
    if not both:
        return Verdict(False, "There is no label on which the weights could be compared.", {}, {})
    means = [{kind: float(np.mean([s[name][kind] for name in both])) for kind in KINDS} for s in (deployed, new)]
    gains = {name: float(np.mean([new[name][kind] - deployed[name][kind] for kind in KINDS])) for name in both}
    cases = sorted({groups[name] for name in both})
    by_case = [float(np.mean([gain for name, gain in gains.items() if groups[name] == case])) for case in cases]
    total = float(np.mean(by_case))
    lost = {kind: means[0][kind] - means[1][kind] for kind in KINDS}
    worst = max(KINDS, key=lambda kind: lost[kind])
    margin, passed = settings.margin, lost[worst] <= settings.margin and total > settings.least_gain
    if passed:
        why = f"The new weights gain {total:+.3f} Dice, and no kind of prompt loses more than {margin:g}."
    elif lost[worst] > margin:
        why = f"From '{worst}' the new weights lose {lost[worst]:.3f} Dice; at most {margin:g} is allowed."
    else:
        why = f"The new weights gain {total:+.3f} Dice; more than {settings.least_gain:g} is needed."
    old, own = ({kind: round(value, 4) for kind, value in mean.items()} for mean in means)
    low, high = _interval(by_case)
    return Verdict(passed, why, old, own, round(total, 4), round(low, 4), round(high, 4), len(both))


def _interval(gains: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean; of a single value that value."""
    if len(gains) < 2:
        return gains[0], gains[0]
    found = bootstrap((gains,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return float(found.low), float(found.high)


SCORES, OBJECTS = "scores.json", "objects"

HELD_OUT = "held_out"  # Key of a version's verdict: its folds' scores, structure by structure


def carry_out(
    round: TuningRound,
    versions: ModelVersions,
    base: ModelSpec,
    *,
    device: str = "auto",
    promoted: Promoted = lambda version: None,
) -> dict[str, Any]:
    """Carry out a round, or what is left of it, and return its result.

    Args:
        base: the model, with its own weights.
        device: `auto`, `cpu`, `cuda`, `cuda:N`.
        promoted: told of new weights, and of a network that segments without prompts, that are used from now on.

    Raises:
        Conflict: another process works on it, it was stopped or failed, or the model has other weights than when it
            was begun.
        Cancelled: it is stopped meanwhile.
        InputError: there is no label to learn from.
        ResourceError: weights or device are missing.
    """
    plan = round.plan()
    if plan.base_sha256 != base.sha256:
        raise Conflict(f"Round {round.name} trains other weights of '{plan.base}' than are here. Begin a new one.")
    with round.alone():
        result = round.result() or _tune(round, versions, base, device, promoted)
        if result["status"] != "DONE":
            raise Conflict(f"Round {round.name} has ended: {result['why']} Begin with 'slicecast train finetune'.")
        learn_round(round, AutomaticModels(versions), device=device, promoted=promoted)
        return result


def _tune(
    round: TuningRound,
    versions: ModelVersions,
    base: ModelSpec,
    device: str,
    promoted: Promoted,
) -> dict[str, Any]:
    """Train and judge, publish the weights if they pass the gate, and return the result."""
    plan = round.plan()
    _store_objects(round, plan)
    verdict, held_out = _judged(round, plan, versions, base, device)
    if not verdict.passed:
        return round.end("DONE", verdict.why, verdict=verdict.described())
    model = load_sam2(_train_part(round, base, ALL, device))
    round.refuse_stopped()
    version = versions.add(
        model,
        base,
        labels={case.id: case.sha256 for case in plan.cases},
        verdict={**verdict.described(), HELD_OUT: held_out},
    )
    promoted(version)
    return round.end("DONE", verdict.why, verdict=verdict.described(), version=version.number)


def _store_objects(round: TuningRound, plan: RoundPlan) -> None:
    """Write what is learnt to the disk, so that memory holds no more than one volume."""
    for case in plan.cases:
        folder = _objects_of(round, case)
        if not (folder / "done").is_file():
            for number, thing in enumerate(case.objects(round.folder)):
                store_object(folder / str(number), thing)
            (folder / "done").touch()


def _objects_of(round: TuningRound, case: LearntCase) -> Path:
    """Return the folder of a case; not of a label, which two scans of a patient may share to the byte."""
    return round.folder / OBJECTS / hashlib.sha256(f"{case.id}/{case.sha256}".encode()).hexdigest()[:16]


def _stored_objects(round: TuningRound, case: LearntCase) -> list[LabelledObject]:
    folders = _objects_of(round, case).glob("[0-9]*")
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
    engine = engine_settings()
    *folds, deployed = run_parts(parts, workers=settings.workers, ray=engine.ray, gpus=engine.ray_gpus)
    new = {name: score for fold in folds for name, score in fold.items()}
    groups = {_structure(case, name): case.id for case in plan.cases for name in case.values}
    same = {case.id for case in plan.cases if learnt.get(case.id) == case.sha256}
    own = (version.verdict.get(HELD_OUT) or {}) if version is not None else {}
    known = {name: score for name, score in own.items() if groups.get(name) in same}
    return judge(new, {**known, **deployed}, settings=settings, groups=groups), new


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
                watch=_end_with(os.getppid(), round),
            )
            with appearing(file) as part_file:
                write_weights(model, part_file)
    return with_weights(base, file)


def _end_with(parent: int, round: TuningRound) -> Callable[[int, int, Mapping[str, float]], None]:
    """Return a watcher that stops a training whose parent process was killed, or whose round was stopped."""

    def watch(step: int, steps: int, terms: Mapping[str, float]) -> None:
        round.refuse_stopped()
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
