"""Measure what fine-tuning on N labels brings, and write docs/results/finetuning.md."""

from pathlib import Path
from typing import Annotated

import typer

from slicecast.cli._checks import check_output
from slicecast.models.weights import choose_model
from slicecast_lab.evaluation.cases import find_split
from slicecast_lab.evaluation.settings import parse_numbers, parse_values

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
      slicecast lab finetuning --data hippocampus --sizes 0,5 --limit 10
      slicecast lab finetuning --data hippocampus --seeds 3 --page docs/results/finetuning.md
      slicecast lab finetuning --data hippocampus --automatic --sizes 5,20
    """
    check_output(page)
    spec, numbers = choose_model(model or None), parse_numbers(sizes)
    split = find_split(data, parse_values(label) if label else (), test=limit)
    words = f"{'--automatic ' * automatic}--data {data.name} --label {label} --sizes {sizes} --seeds {seeds}"
    # PyTorch and MONAI take seconds, see main.py
    from slicecast.training.finetune import finetune_settings
    from slicecast_lab.cli._finetuning import measure_prompted, measure_unprompted
    from slicecast_lab.evaluation.finetuning import FinetuningPlan

    plan = FinetuningPlan(model=spec, split=split, sizes=numbers, seeds=range(seeds), settings=finetune_settings())
    work = measure_unprompted if automatic else measure_prompted
    work(plan, folder, page, run=not only, name=data.name, words=f"{words} --limit {limit}")
