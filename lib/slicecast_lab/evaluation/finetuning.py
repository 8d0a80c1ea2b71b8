"""What fine-tuning brings: the model after N labels of a pool, on test cases that it has never seen.

For each number of labels and each seed the model is trained by the product's own recipe and asked by the product's own
gate: one click, one box, one mask on the largest slice, and the click with three painted slices. Trainings and answers
are kept in a folder, so that what was stopped goes on.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from slicecast.inference.segment import SegmentService
from slicecast.inference.settings import EngineSettings
from slicecast.inference.studies import open_study
from slicecast.labelling.finetuning.training import KINDS, JudgedObject
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2 import load_predictor
from slicecast.models.versions import write_weights
from slicecast.models.weights import with_weights
from slicecast.training.automatic import LabelledVolume, plan_for, predict_automatic, train_automatic
from slicecast.training.finetune import FinetuneSettings, LabelledObject, finetune
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import CaseFiles, Split, read_case
from slicecast_lab.evaluation.page import markdown
from slicecast_lab.evaluation.picture import new_figure, save_figure
from slicecast_lab.evaluation.report import bootstrap_mean
from slicecast_lab.evaluation.run import Progress

DONE, AUTOMATIC = "answers.jsonl", "automatic"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuningPlan:
    """What is measured."""

    model: ModelSpec  # whose weights are fine-tuned
    split: Split  # volumes to learn from, and to measure on
    sizes: Sequence[int]  # numbers of labels; 0 is the model as it is
    seeds: Sequence[int]  # seed 0 learns the first volumes of the pool, the others draw theirs
    settings: FinetuneSettings  # of the training

    def runs(self) -> list[tuple[int, int]]:
        """Return (labels, seed) of all runs; without labels there is one."""
        return [(size, seed) for size in self.sizes for seed in (self.seeds if size else self.seeds[:1])]

    def learnt(self, size: int, seed: int) -> list[CaseFiles]:
        """Return the volumes of a run."""
        pool = list(self.split.pool)
        order = np.random.default_rng(seed).permutation(len(pool)) if seed else np.arange(len(pool))
        return [pool[int(n)] for n in order[:size]]


def measure(plan: FinetuningPlan, folder: Path, *, progress: Progress = lambda done, total, name: None) -> None:
    """Carry out all runs, or what is left of them."""
    runs = plan.runs()
    for done, (size, seed) in enumerate(runs):
        progress(done, len(runs), f"{size} labels, seed {seed}")
        own = folder / f"n{size:02}-seed{seed}"
        own.mkdir(parents=True, exist_ok=True)
        _answer(_trained(plan, size, seed, own), plan.split.test, own / DONE)


def measure_automatic(
    plan: FinetuningPlan, folder: Path, *, progress: Progress = lambda done, total, name: None
) -> None:
    """Train the network that needs no prompts on the labels of each run, and segment the test cases."""
    runs = [run for run in plan.runs() if run[0]]
    for done, (size, seed) in enumerate(runs):
        progress(done, len(runs), f"{size} labels, seed {seed}")
        own = folder / f"n{size:02}-seed{seed}"
        known = {row["case"] for row in _lines(own / DONE)}
        left = [files for files in plan.split.test if files.id not in known]
        if left:
            _segment_automatically(plan, plan.learnt(size, seed), left, own)


def _segment_automatically(
    plan: FinetuningPlan, learnt: Sequence[CaseFiles], cases: Sequence[CaseFiles], folder: Path
) -> None:
    volumes, settings = [_labelled(files) for files in learnt], plan.settings
    network = plan_for([given.volume.geometry for given in volumes], ["object"], settings.automatic)
    trained = train_automatic(
        network, volumes, settings=settings.automatic, seed=settings.seed, threads=settings.threads, folder=folder
    )
    for files in cases:
        given = _labelled(files)
        found = dice(predict_automatic(network, trained, given.volume) == 1, given.label == 1)
        with (folder / DONE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"case": files.id, AUTOMATIC: round(found, 5)}) + "\n")


def _labelled(files: CaseFiles) -> LabelledVolume:
    case = read_case(files)
    study = open_study(case.volume)
    return LabelledVolume(study.volume, study.reorientation.to_canonical_array(case.truth).astype(np.uint8))


def read_rows(folder: Path, plan: FinetuningPlan) -> Iterator[dict[str, Any]]:
    """Yield what was measured so far: Dice by kind of prompt, one row for each run and test case."""
    wanted = {files.id for files in plan.split.test}
    for size, seed in plan.runs():
        for row in _lines(folder / f"n{size:02}-seed{seed}" / DONE):
            if row["case"] in wanted:
                yield {"labels": size, "seed": seed, **row}


def _trained(plan: FinetuningPlan, size: int, seed: int, folder: Path) -> ModelSpec:
    if not size:
        return plan.model
    file = folder / "weights.safetensors"
    if not file.is_file():
        objects = [_object(files) for files in plan.learnt(size, seed)]
        part = folder / "part.safetensors"
        write_weights(finetune(plan.model, objects, plan.settings, folder=folder), part)
        part.replace(file)
    return with_weights(plan.model, file)


def _object(files: CaseFiles) -> LabelledObject:
    case = read_case(files)
    study = open_study(case.volume)
    stack = case.slices(case.truth)
    masks = np.stack([stack.slice(n) for n in range(stack.count)])
    return LabelledObject(files.id, study.frames(case.axis, study.window("auto")), masks, np.ones(len(masks), bool))


def _answer(model: ModelSpec, cases: Sequence[CaseFiles], file: Path) -> None:
    known = {row["case"] for row in _lines(file)}
    left = [files for files in cases if files.id not in known]
    if not left:
        return
    predictor = load_predictor(model, device="cpu")
    service = SegmentService(predictor=predictor, settings=EngineSettings(idle_encode=False, embedding_mb=256))
    for files in left:
        case = read_case(files)
        found = JudgedObject(files.image, open_study(case.volume), case.truth).dice_by_prompt(service)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"case": files.id, **{kind: round(found[kind], 5) for kind in KINDS}}) + "\n")


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def table(rows: Sequence[dict[str, Any]], kinds: Sequence[str] = KINDS) -> str:
    """Write the means with their intervals over cases, a row for each number of labels."""
    lines = []
    for size in sorted({row["labels"] for row in rows}):
        own = [row for row in rows if row["labels"] == size]
        cells = {"labels": size, "seeds": len({r["seed"] for r in own}), "cases": len({r["case"] for r in own})}
        for kind in kinds:
            mean = bootstrap_mean([row[kind] for row in own], [row["case"] for row in own])
            cells[kind] = f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"
        lines.append(cells)
    return markdown(lines)


def draw(rows: Sequence[dict[str, Any]], file: Path) -> Path:
    """Draw Dice over the number of labels, a line for each kind of prompt, with its interval; return `file`."""
    figure = new_figure(6.5, 4.2)
    plot = figure.subplots()
    sizes = sorted({row["labels"] for row in rows})
    for kind in KINDS:
        means = []
        for size in sizes:
            own = [row for row in rows if row["labels"] == size]
            means.append(bootstrap_mean([row[kind] for row in own], [row["case"] for row in own]))
        line = plot.plot(sizes, [mean.value for mean in means], marker="o", label=kind)[0]
        low, high = [mean.low for mean in means], [mean.high for mean in means]
        plot.fill_between(sizes, low, high, alpha=0.15, color=line.get_color())
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel("labelled volumes")
    plot.set_ylabel("Dice of test volumes")
    plot.legend(frameon=False)
    return save_figure(figure, file)
