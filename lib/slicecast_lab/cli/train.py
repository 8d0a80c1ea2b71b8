"""Train models; what was stopped goes on where it was."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml

from slicecast.cli._checks import Device, check_output
from slicecast.errors import ConfigError, NotFound
from slicecast.models.registry import bundled_spec
from slicecast_lab.evaluation.candidate import candidate_spec
from slicecast_lab.evaluation.cases import CaseFiles, find_cases
from slicecast_lab.evaluation.settings import parse_values

if TYPE_CHECKING:
    from slicecast_lab.evaluation.promote import Comparison

WEIGHTS = (".safetensors",)

app = typer.Typer(no_args_is_help=True, help="Train models; what was stopped goes on where it was.")

CONFIG = typer.Option(Path("configs/training/nano.yaml"), help="Training settings.")
FOLDER = typer.Option(Path("runs/nano"), help="Of the run: checkpoints, history, TensorBoard.")


@app.command()
def nano(
    config: Path = CONFIG,
    folder: Path = FOLDER,
    progress: bool = typer.Option(True, help="Draw a progress bar."),
) -> None:
    """Train the bundled model on generated clips, or go on from the folder's last checkpoint.

    \b
    Examples:
      slicecast lab train nano --folder runs/nano
    """
    _require(config)
    from slicecast_lab.training.nano import LOG_FORMAT, read_settings, train_nano  # PyTorch takes seconds, see main.py

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    train_nano(read_settings(config), folder, show_progress=progress)


@app.command("export-nano")
def export_nano(
    target: Path = typer.Argument(help="File to write, .safetensors."),
    config: Path = CONFIG,
    folder: Path = FOLDER,
) -> None:
    """Write the averaged weights of the run's last checkpoint, also while it is still running.

    \b
    Examples:
      slicecast lab train export-nano nano.safetensors --folder runs/nano
    """
    _require(config, folder)
    check_output(target, WEIGHTS)
    from slicecast_lab.training.nano import averaged_model, export_weights, read_settings

    export_weights(averaged_model(read_settings(config), folder), target)
    typer.echo(f"wrote {target}")


@app.command("volumetric")
def volumetric(
    config: Path = typer.Option(Path("configs/training/ct_sam3d_nano.yaml"), help="Training settings."),
    folder: Path = typer.Option(Path("runs/ct_sam3d_nano"), help="Of the run: checkpoints, history, TensorBoard."),
    progress: bool = typer.Option(True, help="Draw a progress bar."),
    export: Path | None = typer.Option(None, metavar="FILE", help="Train nothing: write the last averaged weights."),
) -> None:
    """Train a small volumetric model on generated patches, or go on from the folder's last checkpoint.

    \b
    Examples:
      slicecast lab train volumetric --folder runs/ct_sam3d_nano
      slicecast lab train volumetric --export ct_sam3d_nano.safetensors
    """
    _require(config, *([folder] if export else []))
    check_output(export, WEIGHTS)
    from slicecast_lab.training import volumetric as volumes
    from slicecast_lab.training.nano import LOG_FORMAT, export_weights

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    settings = volumes.read_settings(config)
    if export is None:
        volumes.train_volumetric(settings, folder, show_progress=progress)
        return
    export_weights(volumes.averaged_volumetric(settings, folder), export)
    typer.echo(f"wrote {export}")


@app.command("promote")
def promote_weights(
    candidate: Path = typer.Argument(help="Weights as `export-nano` writes them."),
    data: Path | None = typer.Option(None, metavar="DIR", help="Cases to compare on; default: the sample data."),
    label: str = typer.Option("", metavar="L[,L2]", help="Label values of --data; empty for all together."),
    split: str = typer.Option("", metavar="NAME", help="A list of split.json of --data."),
    limit: int = typer.Option(0, min=0, help="At most so many cases; 0 for all."),
    setting: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Changes of the entry that it needs."),
    device: Device = "auto",
    force: bool = typer.Option(False, help="Replace without comparing."),
) -> None:
    """Make weights the bundled ones if they are not worse on the same prompts; also writes their hash.

    \b
    Examples:
      slicecast lab train promote nano.safetensors
      slicecast lab train promote nano.safetensors --data hippocampus --split pool --limit 12
    """
    changes = dict(_setting(words) for words in setting)
    spec = candidate_spec(candidate, changes)
    cases = find_cases(data, parse_values(label) if label else (), split=split) if data else []
    from slicecast_lab.evaluation.promote import compare, dice_by_prompt, promote, require_acceptable, sample_cases

    if not force:
        cases = cases or sample_cases()
        chosen = cases[: limit or None]
        present, other = (dice_by_prompt(model, chosen, device=device) for model in (bundled_spec(), spec))
        result = compare(present, other, [files.group for files in chosen])
        _tell(result, chosen)
        require_acceptable(result)
    typer.echo(f"{promote(spec, changes)} holds {candidate} now, and configs/models.yaml its hash.")
    typer.echo(
        "Model card and docs/results describe the earlier weights: measure with 'make results', and raise `floors`."
    )


def _tell(result: Comparison, cases: list[CaseFiles]) -> None:
    for prompt, before in result.present.items():
        typer.echo(f"{prompt:9} present {before:.3f}  candidate {result.candidate[prompt]:.3f}")
    gain = result.difference
    interval = f"{gain.value:+.3f} (95 % {gain.low:+.3f} to {gain.high:+.3f})"
    typer.echo(f"difference {interval} on {len(cases)} cases: {result.verdict}")


def _setting(words: str) -> tuple[str, Any]:
    key, equals, value = words.partition("=")
    if not equals:
        raise ConfigError(f"--set {words!r} is not KEY=VALUE, for example evidence=true.")
    return key, yaml.safe_load(value)


def _require(*paths: Path) -> None:
    """Raise NotFound for settings or a run's folder that is not there, before PyTorch is imported."""
    for path in paths:
        if not path.exists():
            raise NotFound(f"There is no {path}. Give the settings with --config and the run with --folder.")
