"""Train models; what was stopped goes on where it was."""

import logging
from pathlib import Path

import typer

from slicecast.training.loop import latest_checkpoint
from slicecast.training.nano import export_weights, read_settings, train_nano

app = typer.Typer(no_args_is_help=True, help="Train models; what was stopped goes on where it was.")


@app.callback()
def _root() -> None:
    """Keep `nano` a sub-command even while it is the only one."""


@app.command()
def nano(
    config: Path = typer.Option(Path("configs/training/nano.yaml"), help="Training settings."),
    folder: Path = typer.Option(Path("runs/nano"), help="Of the run: checkpoints, history, TensorBoard."),
    export: Path | None = typer.Option(None, help="Write the averaged weights here at the end (.safetensors)."),
    progress: bool = typer.Option(True, help="Draw a progress bar."),
) -> None:
    """Train the bundled model on generated clips, or go on from the folder's last checkpoint."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    model = train_nano(read_settings(config), folder, show_progress=progress)
    typer.echo(f"trained; last checkpoint {latest_checkpoint(folder)}")
    if export is not None:
        export_weights(model, export)
        typer.echo(f"wrote {export}")
