"""Train models; what was stopped goes on where it was."""

import logging
from pathlib import Path

import typer

from slicecast.training.nano import LOG_FORMAT, averaged_model, export_weights, read_settings, train_nano

app = typer.Typer(no_args_is_help=True, help="Train models; what was stopped goes on where it was.")


CONFIG = typer.Option(Path("configs/training/nano.yaml"), help="Training settings.")
FOLDER = typer.Option(Path("runs/nano"), help="Of the run: checkpoints, history, TensorBoard.")


@app.callback()
def _root() -> None:
    """Keep `nano` a sub-command even while it is the only one."""


@app.command()
def nano(
    config: Path = CONFIG,
    folder: Path = FOLDER,
    progress: bool = typer.Option(True, help="Draw a progress bar."),
) -> None:
    """Train the bundled model on generated clips, or go on from the folder's last checkpoint."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    train_nano(read_settings(config), folder, show_progress=progress)


@app.command("export-nano")
def export_nano(
    target: Path = typer.Argument(help="File to write, .safetensors."),
    config: Path = CONFIG,
    folder: Path = FOLDER,
) -> None:
    """Write the averaged weights of the run's last checkpoint, also while it is still running."""
    export_weights(averaged_model(read_settings(config), folder), target)
    typer.echo(f"wrote {target}")
