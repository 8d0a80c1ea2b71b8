"""Says how far a command of the laboratory is, on stderr."""

from collections.abc import Callable
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def with_progress(total: int, run: Callable[[Callable[[int, int, str], None]], T]) -> T:
    """Run something that reports cases done, their number and the name of the next, with a bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        return run(lambda done, _, name: bar.update(task, completed=done, description=name))


def tell_skipped(skipped: dict[str, str]) -> None:
    """Say on stderr which cases were left out, and why."""
    for name, why in skipped.items():
        typer.echo(f"skipped {name}: {why}", err=True)
