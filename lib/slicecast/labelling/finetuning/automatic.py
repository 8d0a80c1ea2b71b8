"""Automatic segmentation of a campaign: networks that learnt its labels, when one is used, and the task `automatic`.

The networks are kept beside the fine-tuned weights, as versions of `automatic`. The labels are divided into folds, each
judged by a network that learnt the others. A network is used if it finds its structures well enough, and not worse than
the one before did.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from safetensors.torch import load_file
from torch import nn

from slicecast.config import build
from slicecast.errors import Cancelled, InputError, NotFound, SlicecastError
from slicecast.files import temporary
from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import Study
from slicecast.labelling.finetuning.rounds import AUTOMATIC, LearntCase, RoundPlan, TuningRound
from slicecast.labelling.tasks.answer import InferAnswer, answer_ending, described_objects
from slicecast.labelling.tasks.infer import as_http
from slicecast.labelling.tasks.request import number_labels, read_extension, read_flag
from slicecast.models.devices import choose_device
from slicecast.models.versions import ModelVersion, ModelVersions
from slicecast.training.automatic import (
    AutomaticPlan,
    LabelledVolume,
    plan_for,
    predict_automatic,
    train_automatic,
)
from slicecast.training.finetune import FinetuneSettings
from slicecast.training.loop import Watch
from slicecast.volume import read_volume, write_mask
from slicecast.volume.metrics import dice

logger = logging.getLogger(__name__)

MODEL = "automatic"  # How a pre-annotation names its model; a number follows
RUNS = "runs"  # Folder of unfinished trainings
Dices = dict[str, dict[str, float]]  # Case -> structure -> Dice over the volume
Promoted = Callable[[ModelVersion], None]  # Told of what is used from now on


@dataclass(frozen=True, slots=True)
class Nothing:
    """What the networks are versions of: without any, there is no automatic segmentation."""

    name: str = MODEL
    sha256: str = ""


NOTHING = Nothing()


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomaticModel:
    """A network that is used."""

    version: ModelVersion  # its file, and the labels that it learnt
    plan: AutomaticPlan  # of the network
    held_out: Dices  # how networks that had not learnt a case did on it

    @property
    def name(self) -> str:
        """How a pre-annotation names it."""
        return self.version.name


class AutomaticModels:
    """The networks of a campaign.

    Args:
        versions: of the campaign.
    """

    def __init__(self, versions: ModelVersions) -> None:
        self.versions = versions
        self._loaded: tuple[str, nn.Module] | None = None

    def latest(self) -> AutomaticModel | None:
        """Return the network that is used; None before there is one."""
        version = self.versions.deployed(NOTHING)
        if version is None:
            return None
        plan = build(AutomaticPlan, version.verdict["plan"], where=version.name)
        return AutomaticModel(version=version, plan=plan, held_out=version.verdict["held_out"])

    def add(self, model: nn.Module, plan: AutomaticPlan, *, labels: Mapping[str, str], held_out: Dices) -> ModelVersion:
        """Keep a network; it is used from now on."""
        verdict = {"plan": asdict(plan), "dice": round(mean_dice(held_out), 4), "held_out": held_out}
        return self.versions.add(model, NOTHING, labels=labels, verdict=verdict)

    def segment(
        self, model: AutomaticModel, study: Study, values: Mapping[str, int], *, device: str = "auto"
    ) -> np.ndarray:
        """Segment a scan; uint8 [k, j, i] as stored.

        Args:
            values: the number of each of its structures in the mask.
        """
        known = self._loaded
        if known is None or known[0] != model.name:
            network = model.plan.network()
            tensors = load_file(self.versions.folder / model.version.file)
            network.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
            self._loaded = known = (model.name, network.to(choose_device(device)).eval())
        classes = np.array([0, *(values[name] for name in model.plan.names)], dtype=np.uint8)
        found = predict_automatic(model.plan, known[1], study.volume)
        return study.reorientation.to_source_array(classes[found])


def learn_automatic(
    plan: RoundPlan,
    labels: Mapping[str, Path],
    models: AutomaticModels,
    *,
    device: str = "auto",
    folder: Path | None = None,
    tell: Callable[[str], None] = logger.info,
    promoted: Promoted = lambda version: None,
    watch: Watch | None = None,
) -> str:
    """Train on labels, judge by folds, and use the network if it is good enough; a stopped run on the same goes on.

    Args:
        labels: file of each case's label.
        folder: of the trainings, gone when they end well; by default beside the networks.
        tell: hears what is going on.
        promoted: told of a network that is used from now on.
        watch: told of every step; may raise to stop.

    Returns:
        what came of it, in a sentence.

    Raises:
        InputError: too few labels hold the same structures.
    """
    settings, names = plan.training, common_structures(plan.cases)
    cases = [case for case in plan.cases if set(names) <= set(case.values)]
    if len(cases) < settings.round.least_labels:
        raise InputError(
            f"Automatic segmentation needs {settings.round.least_labels} labels that hold the same structures; "
            f"{len(cases)} hold {', '.join(names) or 'any'}. Submit more."
        )
    if left := [case.id for case in plan.cases if case not in cases]:
        tell(f"Not learnt, because a structure is missing: {', '.join(left)}")
    volumes = {case.id: _labelled(case, labels[case.id], names) for case in cases}
    network = plan_for([given.volume.geometry for given in volumes.values()], names, settings.automatic)
    run = folder or models.versions.folder / AUTOMATIC / RUNS / _digest(network, volumes, settings)
    held_out = _judged(cases, volumes, network, settings, run, device, tell, watch)
    why = refusal(held_out, models.latest(), settings)
    for name in names:
        tell(f"{name}: Dice {np.mean([found[name] for found in held_out.values()]):.3f} on labels not learnt")
    if why:
        return why
    trained = _train(network, list(volumes.values()), settings, run / "all", device, watch)
    made = models.add(trained, network, labels={case.id: case.sha256 for case in cases}, held_out=held_out)
    shutil.rmtree(run)
    promoted(made)
    mean = mean_dice(held_out)
    return f"Network {made.number} segments without prompts from now on: Dice {mean:.3f} on labels not learnt."


def learn_round(round: TuningRound, models: AutomaticModels, *, device: str, promoted: Promoted) -> None:
    """Train on the labels of a round of fine-tuning, unless that was done, and write there what came of it."""
    plan = round.plan()
    if not plan.training.round.automatic or round.automatic() is not None:
        return
    labels = {case.id: round.folder / "labels" / case.label for case in plan.cases}

    def watch(step: int, steps: int, terms: Mapping[str, float]) -> None:
        if round.automatic() is not None:
            raise Cancelled("It was stopped.")

    folder = round.folder / AUTOMATIC
    try:
        why = learn_automatic(plan, labels, models, device=device, folder=folder, promoted=promoted, watch=watch)
    except SlicecastError as error:
        why = f"{error}"
    round.end_automatic(why)


def _digest(network: AutomaticPlan, volumes: Mapping[str, LabelledVolume], settings: FinetuneSettings) -> str:
    """Name a run by all that decides what its networks learn: another one does not go on with it."""
    automatic = replace(settings.automatic, least_dice=0.0)  # judges them afterwards
    found = hashlib.sha256(f"{network} {automatic} {settings.seed} {settings.round.folds}".encode())
    for name, given in volumes.items():  # in the order in which they are divided into folds
        found.update(f"{name} {given.volume.geometry} {given.volume.modality}".encode())
        for array in (given.volume.array, given.label):
            found.update(f"{array.dtype}".encode() + np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def common_structures(cases: Sequence[LearntCase]) -> tuple[str, ...]:
    """Return the structures that at least half of the labels hold; what few hold may just be missing in the others."""
    counts = {name: sum(name in case.values for case in cases) for case in cases for name in case.values}
    return tuple(sorted(name for name, count in counts.items() if 2 * count >= len(cases)))


def mean_dice(found: Dices) -> float:
    """Return the mean over cases and structures."""
    return float(np.mean([value for by_name in found.values() for value in by_name.values()]))


def refusal(held_out: Dices, before: AutomaticModel | None, settings: FinetuneSettings) -> str:
    """Say why a network is not used; empty if it is."""
    mean = mean_dice(held_out)
    if mean < settings.automatic.least_dice:
        return f"Not used: the mean Dice is {mean:.3f}, below least_dice, {settings.automatic.least_dice}."
    old, new = [], []
    for case, found in (before.held_out if before else {}).items():
        for name in set(found) & set(held_out.get(case, {})):
            old.append(found[name])
            new.append(held_out[case][name])
    if old and np.mean(new) < np.mean(old) - settings.round.margin:
        return f"Not used: on the same labels the one before found {np.mean(old):.3f}, this one {np.mean(new):.3f}."
    return ""


def _judged(
    cases: Sequence[LearntCase],
    volumes: Mapping[str, LabelledVolume],
    network: AutomaticPlan,
    settings: FinetuneSettings,
    folder: Path,
    device: str,
    tell: Callable[[str], None],
    watch: Watch | None,
) -> Dices:
    count, found = min(settings.round.folds, len(cases)), {}
    for fold in range(count):
        tell(f"Fold {fold + 1} of {count}")
        part = [case.id for case in cases[fold::count]]
        others = [given for name, given in volumes.items() if name not in part]
        trained = _train(network, others, settings, folder / f"fold-{fold + 1}", device, watch)
        for name in part:
            answer, truth = predict_automatic(network, trained, volumes[name].volume), volumes[name].label
            found[name] = {s: dice(answer == n, truth == n) for n, s in enumerate(network.names, 1)}
    return found


def _train(
    network: AutomaticPlan,
    volumes: Sequence[LabelledVolume],
    settings: FinetuneSettings,
    folder: Path,
    device: str,
    watch: Watch | None,
) -> nn.Module:
    return train_automatic(
        network,
        volumes,
        settings=settings.automatic,
        seed=settings.seed,
        threads=settings.round.workers,
        folder=folder,
        device=str(choose_device(device)),
        watch=watch,
    )


def _labelled(case: LearntCase, file: Path, names: Sequence[str]) -> LabelledVolume:
    study = case.study()
    stored = study.reorientation.to_canonical_array(read_volume(file).array)
    label = np.zeros(stored.shape, dtype=np.uint8)
    for number, name in enumerate(names, 1):
        label[stored == case.values[name]] = number
    return LabelledVolume(study.volume, label)


UNTRAINED = "There is no automatic network yet. Submit labels, then press Train or run 'slicecast train finetune'."


class AutomaticTask(InferTask):
    """The campaign's latest network; clients list it under automatic segmentation as soon as there is one.

    Args:
        service: whose device queue and opened scans are used.
        models: gives the campaign's networks; called with each request.
        labels: the app's, whose numbers a mask has.
    """

    def __init__(
        self, service: SegmentService, models: Callable[[], AutomaticModels], *, labels: Sequence[str], device: str
    ) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=list(labels),
            dimension=3,
            description="All structures without prompts, learnt from the submitted labels",
        )
        self._service, self._models, self._app_labels, self._device = service, models, tuple(labels), device

    @property
    def fingerprint(self) -> str:
        """Names the network."""
        network = self._models().latest()
        return network.name if network is not None else MODEL

    def is_valid(self) -> bool:
        """Tell whether there is a network."""
        return self._models().latest() is not None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer one request with a mask file and its params; errors as HTTP."""
        with as_http():
            answer = self.answer(request)
        return str(answer.file), answer.params

    def answer(self, request: Mapping[str, Any]) -> InferAnswer:
        """Answer one request; `image` is a path here.

        Raises:
            NotFound: there is no network yet.
            SlicecastError: the scan cannot be read.
        """
        models, begun, image = self._models(), time.perf_counter(), Path(request["image"])
        network = models.latest()
        if network is None:
            raise NotFound(UNTRAINED)
        study = self._service.studies.open(image)
        values = number_labels(network.plan.names, self._app_labels)
        with self._service.queue.step():
            mask = models.segment(network, study, values, device=self._device)
        geometry = study.reorientation.source
        with temporary(answer_ending(read_extension(request.get("result_extension")), image)) as path:
            write_mask(path, mask, geometry, compress=read_flag(request.get("result_compress")))
        params = {
            **described_objects(mask, values, geometry),
            "confidence": [],
            "mean_confidence": None,
            "latencies": {"total": round(time.perf_counter() - begun, 4)},
            "warnings": []
            if mask.any()
            else ["The network found nothing in this scan. Place points with a model instead."],
        }
        return InferAnswer(path, params)
