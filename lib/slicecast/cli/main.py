"""The ``slicecast`` command: finds the commands, runs one, turns errors into one sentence.

Every other module of this folder is a command: ``segment.py`` holds ``slicecast segment`` as a Typer ``app``, and the
first line of its docstring is its line in the help. A module is imported only when its command runs, because some
need torch, which takes seconds to import; the help line is read from the source.
"""

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import slicecast
from slicecast.errors import Cancelled, InputError, NotFound, SlicecastError

EXIT_OK, EXIT_RESOURCE, EXIT_INPUT, EXIT_CANCELLED = 0, 1, 2, 130

COMPLETION_OPTIONS = ("install_completion", "show_completion")
"""What Typer adds to every app of its own; they make no sense on one command."""

EPILOG = """Examples:

slicecast doctor

slicecast models list

slicecast segment scan.nii.gz -o spleen.nii.gz --point spleen=120,96,40

slicecast serve --studies sample-data/studies"""


@cache
def command_files() -> dict[str, Path]:
    """Return the file of each command by the command's name, sorted."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    return {file.stem.replace("_", "-"): file for file in files if file != Path(__file__)}


def load_command(name: str) -> Any:
    """Import a command and return it as the click command or group that Typer makes of it."""
    module = importlib.import_module(f"slicecast.cli.{command_files()[name].stem}")
    command = typer.main.get_command(module.app)
    command.name = name
    command.params = [parameter for parameter in command.params if parameter.name not in COMPLETION_OPTIONS]
    return command


class _Unloaded(TyperCommand):
    """A command's line in the help; becomes the real command as soon as it is to run."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return load_command(str(self.name)).make_context(info_name, args, parent=parent, **extra)


class _Commands(TyperGroup):
    """The root: lists commands without importing them, and says errors in one sentence."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(command_files())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        file = command_files().get(cmd_name)
        return file and _Unloaded(cmd_name, help=_first_docstring_line(file))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SlicecastError as error:
            typer.echo(f"slicecast: {error}", err=True)
            raise typer.Exit(exit_code(error)) from error


def exit_code(error: SlicecastError) -> int:
    """Return 2 where the request was at fault, 130 where the user stopped it, else 1."""
    if isinstance(error, Cancelled):
        return EXIT_CANCELLED
    return EXIT_INPUT if isinstance(error, InputError | NotFound) else EXIT_RESOURCE


def _first_docstring_line(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"slicecast {slicecast.__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands, epilog=EPILOG, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback(help="Turn one annotated slice into a segmented volume.")
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Hold the options that come before the command."""


def main() -> None:
    """Run the command line; the entry point of the ``slicecast`` script."""
    app(prog_name="slicecast")


if __name__ == "__main__":
    main()
