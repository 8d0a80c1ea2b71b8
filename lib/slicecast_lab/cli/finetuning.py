"""Measure what fine-tuning on N labels brings, and write docs/results/finetuning.md."""

from pathlib import Path
from typing import Annotated

import typer

from slicecast.labelling.finetuning.training import KINDS
from slicecast.models.weights import choose_model
from slicecast.training.finetune import finetune_settings
from slicecast_lab.cli.evaluate import with_progress
from slicecast_lab.evaluation.cases import find_split
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
from slicecast_lab.evaluation.prompts import parse_values
from slicecast_lab.evaluation.provenance import provenance

app = typer.Typer(add_completion=False)

Data = Annotated[Path, typer.Option(metavar="DIR", help="Folder with images/, labels/ and perhaps split.json.")]
Label = Annotated[str, typer.Option(metavar="L[,L2]", help="Label values of the object; empty for all.")]
Sizes = Annotated[str, typer.Option(metavar="LIST", help="Numbers of labels.")]
Seeds = Annotated[int, typer.Option(min=1, help="Draws of the labelled volumes.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N test cases; 0 for all.")]
Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Folder = Annotated[Path, typer.Option(metavar="DIR", help="Trainings and answers: a stopped run goes on.")]
Page = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the table into this page, and the picture beside.")
]
Automatic = Annotated[bool, typer.Option("--automatic", help="Measure the network that needs no prompts instead.")]
Only = Annotated[bool, typer.Option("--no-run", help="Only write what was measured so far.")]


@app.command("finetuning")
def finetuning(
    data: Data,
    label: Label = "",
    sizes: Sizes = "0,1,2,5,10,20",
    seeds: Seeds = 1,
    limit: Limit = 0,
    model: Model = "",
    folder: Folder = Path("runs/finetuning"),
    page: Page = None,
    automatic: Automatic = False,
    only: Only = False,
) -> None:
    """Fine-tune on N labels of a pool and measure on test cases; a stopped run goes on.

    \b
    Examples:
      slicecast finetuning --data hippocampus --sizes 0,5 --limit 10
      slicecast finetuning --data hippocampus --seeds 3 --page docs/results/finetuning.md
      slicecast finetuning --data hippocampus --automatic --sizes 5,20
    """
    spec = choose_model(model or None)
    plan = FinetuningPlan(
        model=spec,
        split=find_split(data, parse_values(label) if label else (), test=limit),
        sizes=[int(size) for size in sizes.split(",")],
        seeds=range(seeds),
        settings=finetune_settings(),
    )
    if automatic:
        folder = folder / AUTOMATIC
    if not only:
        work = measure_automatic if automatic else measure
        with_progress(len(plan.runs()), lambda told: work(plan, folder, progress=told))
    rows = list(read_rows(folder, plan))
    typer.echo(table(rows, [AUTOMATIC] if automatic else KINDS))
    if page is not None and automatic:
        words = f"slicecast finetuning --automatic --data {data.name} --label {label} --sizes {sizes} --seeds {seeds}"
        source = source_line(provenance(spec, words, device="cpu"))
        write_blocks(page, {f"{data.name}, automatic": f"{table(rows, [AUTOMATIC])}\n\n{source}"})
    elif page is not None:
        picture = draw(rows, page.with_suffix(".svg"))
        words = (
            f"slicecast finetuning --data {data.name} --label {label} --sizes {sizes} --seeds {seeds} --limit {limit}"
        )
        source = source_line(provenance(spec, words, device="cpu"))
        write_blocks(
            page, {data.name: f"{table(rows)}\n\n![Dice over the number of labels]({picture.name})\n\n{source}"}
        )
