"""Show what a model's answers rest on: memory, object pointers, or the previous mask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from slicecast.errors import ConfigError
from slicecast.models.weights import choose_model
from slicecast_lab.evaluation.candidate import candidate_spec
from slicecast_lab.evaluation.cases import find_cases
from slicecast_lab.evaluation.settings import parse_values

if TYPE_CHECKING:
    from slicecast.models.registry import ModelSpec
    from slicecast_lab.evaluation.memory import MemoryReport

app = typer.Typer(add_completion=False)

SEED = 1_000_004  # Of the generated clips; no training run uses it

Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Weights = Annotated[Path | None, typer.Option(metavar="FILE", help="Weights for the bundled model's entry.")]
Pointers = Annotated[bool, typer.Option(help="For --weights: the memory attention sees object pointers.")]
Clips = Annotated[int, typer.Option(min=1, help="Generated clips of eight slices, two tracks each.")]
Data = Annotated[Path | None, typer.Option(metavar="DIR", help="Report on these scans, in the product, instead.")]
Label = Annotated[str, typer.Option(metavar="L[,L2]", help="Label values of --data; empty for all together.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="A list of split.json of --data.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N cases of --data; 0 for all.")]


@app.command("memory-report")
def report_memory(
    model: Model = "",
    weights: Weights = None,
    pointers: Pointers = False,
    clips: Clips = 24,
    data: Data = None,
    label: Label = "",
    split: Split = "",
    limit: Limit = 0,
) -> None:
    """Show what a model's answers rest on: memory, object pointers, or the previous mask.

    \b
    Examples:
      slicecast lab memory-report
      slicecast lab memory-report --data hippocampus --split pool --limit 12
      slicecast lab memory-report --weights candidate.safetensors
    """
    if model and weights:
        raise ConfigError("Give --model or --weights, not both.")
    spec = candidate_spec(weights, {"pointers": pointers}) if weights else choose_model(model or None)
    cases = find_cases(data, parse_values(label) if label else (), split=split, limit=limit) if data else []
    if cases:
        from slicecast_lab.evaluation.memory import case_report  # PyTorch takes seconds, see main.py

        _print(case_report(spec, cases), what=f"Dice on {len(cases)} scans")
    else:
        _print(_on_clips(spec, clips), what="IoU on generated clips")


def _on_clips(spec: ModelSpec, clips: int) -> MemoryReport:
    import torch

    from slicecast.models.sam2_build import load_sam2
    from slicecast_lab.evaluation.memory import memory_report
    from slicecast_lab.generated.batches import BatchSpec, GeneratedBatches

    torch.set_num_threads(1)
    batches = GeneratedBatches(BatchSpec(frames=8 * clips, slices=(8,), size_px=spec.image_size), seed=SEED)
    return memory_report(load_sam2(spec).float(), [batches[0]], carry=spec.carry)


def _print(report: MemoryReport, *, what: str) -> None:
    """Print a report as three small tables."""
    console = Console()
    for title, heads, rows in (
        ("Cross-attention", ("to", "share"), report.attention.items()),
        (f"{what}, from a mask", ("without", "score"), report.without.items()),
        ("By distance", ("slices from the prompt", "score", "slices"), _distances(report)),
    ):
        table = Table(*heads, title=title, title_justify="left", min_width=len(title))
        for row in rows:
            table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
        console.print(table)
    console.print(f"Zeroing the memory maps costs {report.memory_worth:.3f}.")


def _distances(report: MemoryReport) -> list[tuple[str, float, int]]:
    names = [str(low) if low == high else f"{low} to {high}" for low, high, _, _ in report.by_distance]
    return [(name, score, count) for name, (_, _, score, count) in zip(names, report.by_distance, strict=True)]
