"""Fine-tuning as the server, MONAI Label's Train button and the command line begin, watch and stop it.

Beside a server a round has a process of its own at the lowest priority.
"""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from slicecast.campaign.campaign import Campaign, open_campaign
from slicecast.campaign.events import Kind
from slicecast.campaign.settings import FOLDER as CAMPAIGN
from slicecast.campaign.state import DONE, Status
from slicecast.config import read_config
from slicecast.errors import SlicecastError, TooMany
from slicecast.inference.studies import open_study
from slicecast.labelling.campaign.service import CampaignService, open_campaign_service
from slicecast.labelling.finetuning.automatic import NOTHING, Promoted
from slicecast.labelling.finetuning.rounds import (
    RoundPlan,
    Rounds,
    TuningRound,
    changed_slices,
    label_sha256,
    plan_round,
)
from slicecast.labelling.store.labels import FINAL
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.models.registry import ModelSpec
from slicecast.models.versions import FOLDER, ModelVersion, ModelVersions, name_of
from slicecast.models.weights import choose_model
from slicecast.training.finetune import FILE, RoundSettings, finetune_settings
from slicecast.volume import choose_axis, read_volume
from slicecast.volume.reading import WRITTEN_ENDINGS

logger = logging.getLogger(__name__)

LOG = "log.txt"  # What the process of a round says, in the round's folder
LINES = 20  # Of that, what a client is told

PROMPTS = "prompts"


class FineTuner:
    """The fine-tuning of one campaign.

    Args:
        campaign: whose labels are learnt.
        datastore: the images and labels.
        versions: where weights go.
        base: gives the model, with its own weights.
        labels: the app's.
        device: as for the model.
    """

    def __init__(
        self,
        campaign: CampaignService,
        *,
        datastore: Callable[[], Datastore],
        versions: ModelVersions,
        base: Callable[[], ModelSpec],
        labels: Sequence[str],
        device: str = "auto",
    ) -> None:
        self._campaign, self._datastore, self._versions = campaign, datastore, versions
        self._base, self._labels, self._device = base, tuple(labels), device
        self._guard = threading.Lock()
        self._process: tuple[str, subprocess.Popen[bytes]] | None = None
        self.rounds = Rounds(versions)

    def begin(self) -> TuningRound:
        """Plan a round on the labels that there are now, or find the unfinished one that learns the same.

        Raises:
            InputError: there are too few labels.
            TooMany: a round is running.
        """
        with self._guard:
            if self.running() is not None:
                raise TooMany("Fine-tuning is already running. Wait for its end, or stop it.")
            return self.rounds.begin(*self.plan())

    def plan(self) -> tuple[RoundPlan, dict[str, Path]]:
        """Return what a round on the labels that there are now would learn, and the labels' files."""
        settings = dict(read_config(FILE))
        chosen = finetune_settings(settings).round
        names = self._counted(chosen)
        return plan_round(
            self._datastore(),
            names,
            self._base(),
            self._versions,
            settings=settings,
            labels=self._labels,
            touched={name: self._touched(name) for name in names} if chosen.slices == "touched" else None,
        )

    def start(self) -> TuningRound:
        """Begin a round in a process of its own; the errors are those of `begin`."""
        return self._spawn(self.begin())

    def running(self) -> TuningRound | None:
        """Return the round that a process works on, whoever started it."""
        last = self.rounds.latest()
        return last if last is not None and self._works_on(last) else None

    def _works_on(self, round: TuningRound) -> bool:
        """Tell whether a process works on a round, or is about to: it takes seconds to begin."""
        name, process = self._process or ("", None)
        return round.is_running() or (name == round.name and process is not None and process.poll() is None)

    def stop(self) -> TuningRound | None:
        """End the running round and return it; the next one on the same labels goes on with it. None if none runs."""
        found = self.running()
        if found is None:
            return None
        for end in (psutil.Process.terminate, psutil.Process.kill):
            working = _processes_of(found)  # listed anew: one may have begun another
            for process in working:
                with suppress(psutil.NoSuchProcess):
                    end(process)
            psutil.wait_procs(working, timeout=10)
        name, begun = self._process or ("", None)
        if begun is not None and name == found.name:
            begun.wait()  # until then the round is said to be worked on
        found.halt("STOPPED", "It was stopped.")
        return found

    def resume(self) -> None:
        """Go on with a round whose process was killed, with the server or without it."""
        last = self.rounds.latest()
        if last is not None and last.is_left() and not self._works_on(last):
            logger.info("Round %s of fine-tuning goes on", last.name)
            self._spawn(last)

    def consider(self) -> None:
        """Begin a round if the settings ask for one after so many new labels."""
        try:
            after = finetune_settings().round.after_labels
            if after and self.running() is None and self._new_labels() >= after:
                self.start()
        except SlicecastError as error:
            logger.info("No round of fine-tuning begins: %s", error)

    def _new_labels(self) -> int:
        last = self.rounds.latest()
        plan = last.plan() if last is not None else None
        known = {**plan.left_out, **{case.id: case.sha256 for case in plan.cases}} if plan else {}
        counted = self._counted(finetune_settings().round)
        return sum(known.get(name) != label_sha256(self._datastore(), name) for name in counted)

    def _counted(self, settings: RoundSettings) -> list[str]:
        """Return the images whose final label counts: done, and not a hidden gold case."""
        self._campaign.sync()
        wanted = DONE if settings.statuses == "submitted" else (Status.APPROVED,)
        labelled = set(self._datastore().get_labeled_images())
        cases = self._campaign.campaign.state().cases.values()
        return sorted(c.name for c in cases if c.status in wanted and not c.gold and c.name in labelled)

    def _touched(self, name: str) -> Collection[int] | None:
        """Return the canonical slices of a case that somebody prompted or changed; None without a draft: all of them.

        A label without a draft was drawn or made elsewhere, so every slice of it is somebody's.
        """
        draft = self._campaign.work.drafts.latest(name)
        if draft is None:
            return None
        store = self._datastore()
        study = open_study(read_volume(Path(store.get_image_uri(name))))
        axis, final = choose_axis(study.volume.geometry), read_volume(store.get_label_uri(name, FINAL)).array
        events = self._campaign.campaign.store.read()
        prompts = [e.data.get(PROMPTS) or {} for e in events if e.case == name and e.kind is Kind.PREDICTED]
        voxels = [voxel for given in prompts for voxel in _voxels(given)]
        clicked = {int(axis.to_slice(study.reorientation.to_canonical_ijk(voxel))[0]) for voxel in voxels}
        return clicked | changed_slices(study, read_volume(draft.file).array, final)

    def _spawn(self, round: TuningRound) -> TuningRound:
        log = round.folder / LOG
        command = [sys.executable, "-m", "slicecast.cli.main", "train", "go-on", str(round.folder)]
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [*command, "--device", self._device],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        psutil.Process(process.pid).nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else 19)
        threading.Thread(target=process.wait, name="fine-tuning", daemon=True).start()
        self._process = round.name, process
        return round

    def described(self, round: TuningRound) -> dict[str, Any]:
        """Return a round as MONAI Label describes a task, and `progress` and `verdict` besides."""
        plan, result = round.plan(), round.result()
        status = "RUNNING" if self._works_on(round) else (result or {}).get("status", "STOPPED")
        done, steps = round.steps()
        log = round.folder / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:] if log.is_file() else []
        ended = {"end_ts": _stamp(result["ended_s"])} if result and status != "RUNNING" else {}
        return {
            "id": round.name,
            "status": status,
            "request": {"model": plan.base, "labels": len(plan.cases)},
            "start_ts": _stamp(plan.made_s),
            **ended,
            "details": [*lines, *([result["why"]] if result else []), *_automatic_lines(round)],
            "progress": {"done": min(done, steps), "total": steps},
            **{key: (result or {})[key] for key in ("verdict", "version") if key in (result or {})},
        }

    def stats(self) -> dict[str, Any]:
        """Return the last round in the words of MONAI Label's `train_stats`: an epoch is a step."""
        last = self.rounds.latest()
        if last is None:
            return {}
        told, losses = self.described(last), last.losses()
        verdict = told.get("verdict") or {}
        new = list((verdict.get("new") or {}).values())
        end_s = (last.result() or {}).get("ended_s", time.time())
        return {
            "epoch": told["progress"]["done"],
            "total_epochs": told["progress"]["total"],
            "start_ts": last.plan().made_s,
            "total_time": str(round_seconds(end_s - last.plan().made_s)),
            "best_metric": round(sum(new) / len(new), 4) if new else 0.0,
            "train": {"loss": losses[-1]} if losses else {},
            "eval": dict(verdict.get("new") or {}),
            "before": dict(verdict.get("deployed") or {}),
            "status": told["status"],
            "why": " ".join([(last.result() or {}).get("why", ""), *_automatic_lines(last)]).strip(),
            "serving": self._versions.serving(self._base()).name,
            "automatic": getattr(self._versions.deployed(NOTHING), "name", ""),
        }


def _automatic_lines(round: TuningRound) -> list[str]:
    why = round.automatic()
    return [f"Without prompts: {why}"] if why else []


def round_seconds(seconds: float) -> timedelta:
    """Return a time span in whole seconds, as clients show it."""
    return timedelta(seconds=int(seconds))


def _processes_of(round: TuningRound) -> list[psutil.Process]:
    """Return the processes that work on a round, workers included."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(round.folder) in (process.info["cmdline"] or ()):
            found += [*process.children(recursive=True), process]
    return found


def _stamp(when_s: float) -> str:
    return datetime.fromtimestamp(when_s).strftime("%Y-%m-%d %H:%M:%S")


def described_verdict(verdict: Mapping[str, Any]) -> list[str]:
    """Say a verdict in lines: each kind of prompt before and after, and what follows."""
    rows = [f"{kind:12} {old:.3f} -> {verdict['new'][kind]:.3f}" for kind, old in verdict.get("deployed", {}).items()]
    interval = f"gain {verdict['gain']:+.3f} (95 % {verdict['low']:+.3f} to {verdict['high']:+.3f})"
    return [*rows, *([f"{interval} on {verdict['structures']} structures"] if rows else []), str(verdict["why"])]


def versions_beside(place: Path) -> ModelVersions:
    """Return the versions of the campaign that lies in `place`."""
    return ModelVersions(place / CAMPAIGN / FOLDER)


def campaign_of(versions: ModelVersions) -> Campaign:
    """Return the campaign to which versions belong."""
    return open_campaign(versions.folder.parent.parent)


def recorder(versions: ModelVersions, who: str) -> Promoted:
    """Return what enters weights that are used from now on into the campaign's chain of events."""

    def promoted(version: ModelVersion) -> None:
        verdict = {key: value for key, value in version.verdict.items() if key not in ("held_out", "plan")}
        told = {"model": version.name, "sha256": version.sha256, "before": name_of(version.base, version.before)}
        campaign = campaign_of(versions)
        campaign.weights_changed(Kind.PROMOTED, who, {**told, "labels": dict(version.labels), "verdict": verdict})

    return promoted


@contextmanager
def folder_tuner(studies: Path, *, model: str | None, labels: Sequence[str], device: str) -> Iterator[FineTuner]:
    """Open the fine-tuning of a folder of studies; a server may run meanwhile."""
    store = StudiesDatastore(str(studies), labels=labels, extensions=[f"*{end}" for end in WRITTEN_ENDINGS])
    service = open_campaign_service(studies, datastore=lambda: store)
    try:
        yield FineTuner(
            service,
            datastore=lambda: store,
            versions=versions_beside(studies),
            base=lambda: choose_model(model),
            labels=labels,
            device=device,
        )
    finally:
        service.campaign.store.close()


SLICE_NUMBERS = ("painted", "absent", "locked")  # Kinds of prompts that are recorded as slices, not as voxels


def _voxels(given: Any) -> Iterator[tuple[int, int, int]]:
    """Yield the voxels that recorded prompts hold: clicks, corners of boxes, vertices of lines."""
    if isinstance(given, list) and len(given) == 3 and not any(isinstance(entry, list) for entry in given):
        yield given[0], given[1], given[2]
    elif isinstance(given, dict | list):
        pairs = given.items() if isinstance(given, dict) else enumerate(given)
        yield from (voxel for key, inner in pairs if key not in SLICE_NUMBERS for voxel in _voxels(inner))


NAME = "sam2"  # As the model is called among the infer tasks


class FinetuneTask(TrainTask):
    """Fine-tuning as MONAI Label sees it.

    Args:
        tuner: begins rounds and knows them.
    """

    def __init__(self, tuner: FineTuner) -> None:
        super().__init__("Fine-tune the model on the submitted labels; used only if it is shown not to be worse")
        self._tuner = tuner

    def stats(self) -> dict[str, Any]:
        """Return how far the last round is: an epoch is a step."""
        return self._tuner.stats()

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Begin a round in a process of its own and return its state."""
        return self._tuner.described(self._tuner.start())
