"""Fine-tune the model on a campaign's labels."""

from __future__ import annotations

import getpass
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slicecast.campaign.backup import INDEX
from slicecast.cli._checks import Device, Studies
from slicecast.errors import ConfigError, NotFound
from slicecast.models.registry import get_spec
from slicecast.models.weights import choose_model

if TYPE_CHECKING:
    from slicecast.labelling.finetuning.rounds import TuningRound

app = typer.Typer(no_args_is_help=True, help="Fine-tune the model on a campaign's labels.")

Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Labels = Annotated[str, typer.Option(help="Names of the structures, for labels without names of their own.")]


@app.callback()
def _root() -> None:
    """Keep `finetune` a sub-command."""


@app.command("finetune")
def finetune(studies: Studies, model: Model = "", labels: Labels = "", device: Device = "auto") -> None:
    """Train the model on the submitted labels; use the new weights if they are shown not to be worse.

    The labels are divided into folds, each judged by weights that have not learnt it. A round that was stopped goes on
    with the same command. A running server takes new weights up with the next request. The settings are those of
    configs/training/finetune.yaml.

    \b
    Examples:
      slicecast train finetune --studies scans
      slicecast train finetune --studies scans --labels liver,spleen --device cuda
      slicecast models rollback --studies scans
    """
    _require_labels(studies)
    if (spec := choose_model(model or None)).volumetric:
        raise ConfigError(f"{spec.name} sees volumes, and only models that see slices are fine-tuned. Name a SAM 2.")
    from slicecast.labelling.finetuning.tuner import folder_tuner  # MONAI Label takes seconds, see main.py

    names = [name.strip() for name in labels.split(",") if name.strip()]
    with folder_tuner(studies, model=model or None, labels=names, device=device) as tuner:
        round = tuner.begin()
    typer.echo(f"Round {int(round.name)}: {len(round.plan().cases)} labels, {round.steps()[1]} steps in all.")
    with _bar(round):
        _carry_out(round, device)


@app.command("automatic")
def automatic(studies: Studies, labels: Labels = "", device: Device = "auto") -> None:
    """Train a network that segments without prompts; used for pre-annotations if it is good enough.

    Each fold of the labels is judged by a network that has not learnt it. What was stopped goes on with the
    same command. A running server uses the network with the next pre-annotation, in OHIF's
    Auto-Segmentation and batch inference too.

    \b
    Examples:
      slicecast train automatic --studies scans
      slicecast train automatic --studies scans --labels liver,spleen --device cuda
      slicecast models rollback --studies scans --model automatic
    """
    _require_labels(studies)
    from slicecast.labelling.finetuning.automatic import AutomaticModels, learn_automatic
    from slicecast.labelling.finetuning.tuner import folder_tuner, recorder, versions_beside

    names = [name.strip() for name in labels.split(",") if name.strip()]
    with folder_tuner(studies, model=None, labels=names, device=device) as tuner:
        plan, files = tuner.plan()
    versions = versions_beside(studies)
    promoted = recorder(versions, getpass.getuser())
    models = AutomaticModels(versions)
    typer.echo(learn_automatic(plan, files, models, device=device, tell=typer.echo, promoted=promoted))


@app.command("go-on")
def go_on(
    folder: Annotated[Path, typer.Argument(help="Of the round: campaign/models/rounds/NUMBER in the studies.")],
    device: Device = "auto",
) -> None:
    """Go on with a round by its folder; a server does so by itself.

    \b
    Example: slicecast train go-on scans/campaign/models/rounds/0002
    """
    if not (folder / "round.json").is_file():
        raise NotFound(f"{folder} is no round of fine-tuning. Give campaign/models/rounds/NUMBER of the studies.")
    from slicecast.labelling.finetuning.rounds import TuningRound

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    round = TuningRound(folder.resolve())
    try:
        _carry_out(round, device)
    except Exception as error:  # the outermost boundary of the process: the server reads it from the round
        if not round.is_running():  # by another process, which is not to be stopped
            round.halt("ERROR", f"{error}")
        raise


def _require_labels(studies: Path) -> None:
    if not (studies / INDEX).is_file():
        raise NotFound(f"There are no labels in {studies}. Serve that folder and submit some, or give the right one.")


def _carry_out(round: TuningRound, device: str) -> None:
    from slicecast.labelling.finetuning.training import carry_out
    from slicecast.labelling.finetuning.tuner import described_verdict, recorder
    from slicecast.models.versions import ModelVersions

    versions = ModelVersions(round.folder.parent.parent)
    base = get_spec(round.plan().base)
    result = carry_out(round, versions, base, device=device, promoted=recorder(versions, getpass.getuser()))
    for line in described_verdict(result["verdict"]):
        typer.echo(line)
    number = result.get("version")
    typer.echo(f"Version {number} is used from now on." if number else "The weights stay as they are.")
    if why := round.automatic():
        typer.echo(f"Without prompts: {why}")


@contextmanager
def _bar(round: TuningRound) -> Iterator[None]:
    """Draw a bar of the round's steps while the block lasts."""
    columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    ended = threading.Event()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("steps", total=round.steps()[1])

        def follow() -> None:
            while not ended.wait(1.0):
                progress.update(task, completed=round.steps()[0])

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
