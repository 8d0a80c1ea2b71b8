"""What `slicecast lab finetuning` does once its input is checked; PyTorch and MONAI take seconds to import."""

from pathlib import Path

import typer

from slicecast.labelling.finetuning.training import KINDS
from slicecast_lab.cli._progress import with_progress
from slicecast_lab.evaluation.finetuning import (
    AUTOMATIC,
    FinetuningPlan,
    draw,
    measure,
    measure_automatic,
    read_rows,
    table,
)
from slicecast_lab.evaluation.page import source_line, write_blocks
from slicecast_lab.evaluation.provenance import provenance


def measure_prompted(
    plan: FinetuningPlan, folder: Path, page: Path | None, *, run: bool, name: str, words: str
) -> None:
    """Measure the model's masks from prompts, if `run`; print what is measured, and write it into the page."""
    if run:
        with_progress(len(plan.runs()), lambda told: measure(plan, folder, progress=told))
    rows = list(read_rows(folder, plan))
    typer.echo(table(rows, KINDS))
    if page is not None:
        picture = draw(rows, page.with_suffix(".svg"))
        drawn = f"![Dice over the number of labels]({picture.name})"
        write_blocks(page, {name: f"{table(rows)}\n\n{drawn}\n\n{_source(plan, words)}"})


def measure_unprompted(
    plan: FinetuningPlan, folder: Path, page: Path | None, *, run: bool, name: str, words: str
) -> None:
    """Measure the network that needs no prompts, likewise."""
    folder = folder / AUTOMATIC
    if run:
        with_progress(len(plan.runs()), lambda told: measure_automatic(plan, folder, progress=told))
    drawn = table(list(read_rows(folder, plan)), [AUTOMATIC])
    typer.echo(drawn)
    if page is not None:
        write_blocks(page, {f"{name}, automatic": f"{drawn}\n\n{_source(plan, words)}"})


def _source(plan: FinetuningPlan, words: str) -> str:
    return source_line(provenance(plan.model, f"slicecast lab finetuning {words}", device="cpu"))
