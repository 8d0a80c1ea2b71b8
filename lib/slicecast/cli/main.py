"""The ``slicecast`` command: finds the commands, runs one, turns errors into one sentence.

Every other module of this folder is a command: ``segment.py`` holds ``slicecast segment`` as a Typer ``app``, and the
first line of its docstring is its line in the help. A module is imported only when its command runs, because some
need torch, which takes seconds to import; the help line is read from the source. For the same reason a command imports
what computes inside its function, after its input was checked: `--help` and wrong input are answered within a second.
"""

import ast
import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import slicecast
from slicecast.errors import Cancelled, ConfigError, InputError, NotFound, SlicecastError

EXIT_OK, EXIT_RESOURCE, EXIT_INPUT, EXIT_CANCELLED = 0, 1, 2, 130

COMPLETION_OPTIONS = ("install_completion", "show_completion")
"""What Typer adds to every app of its own; they make no sense on one command."""

EPILOG = """Examples:

slicecast doctor

slicecast models list

slicecast segment scan.nii.gz -o spleen.nii.gz --point spleen=120,96,40

slicecast serve --studies sample-data/studies"""


PACKAGES = ("slicecast", "slicecast_lab")
"""Where commands are looked for, in their folder `cli`; the laboratory may be absent."""

LAB = "lab"  # The group of the laboratory's commands, which also go by their names alone where these are free

LAB_EPILOG = """Examples:

slicecast lab evaluate --data hippocampus --split test --label 1,2 --prompt clicks:5

slicecast lab train nano --folder runs/nano"""

LAB_HELP = "Measure the product and train its bundled model; also without `lab`."


@cache
def command_files() -> dict[str, Path]:
    """Return the file of each command by the command's name, sorted."""
    return dict(sorted({**lab_command_files(), **product_command_files()}.items()))


@cache
def product_command_files() -> dict[str, Path]:
    """Return the file of each command of the product."""
    return _files_of(PACKAGES[0])


@cache
def lab_command_files() -> dict[str, Path]:
    """Return the file of each command of the laboratory; empty where it is not installed."""
    return _files_of(PACKAGES[1])


def _files_of(package: str) -> dict[str, Path]:
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) / "cli" for folder in (spec and spec.submodule_search_locations) or ()]
    files = sorted(file for folder in folders for file in folder.glob("[a-z]*.py") if file != Path(__file__))
    return {file.stem.replace("_", "-"): file for file in files}


def load_command(name: str, file: Path | None = None) -> Any:
    """Import a command and return it as the click command or group that Typer makes of it.

    Args:
        file: of the command; the laboratory may have another one of the same name. Default: the one without `lab`.

    Raises:
        ConfigError: a package that it needs is not installed.
    """
    file = file or command_files()[name]
    try:
        module = importlib.import_module(f"{file.parent.parent.name}.cli.{file.stem}")
    except ModuleNotFoundError as error:
        raise ConfigError(_missing(name, error)) from error
    command = typer.main.get_command(module.app)
    command.name = name
    command.params = [parameter for parameter in command.params if parameter.name not in COMPLETION_OPTIONS]
    if isinstance(command, TyperGroup):
        command.epilog = _examples(command)
    lab = lab_command_files().get(name, file)
    return command if lab == file else _with_lab(command, name, lab)


def _examples(group: TyperGroup) -> str:
    """Return the first example of each of a group's commands, for the end of its help."""
    texts = (re.split(r"Examples?:", one.help or "", maxsplit=1)[-1] for one in group.commands.values())
    return "\n\n".join(["Examples:", *(text.strip().partition("\n")[0] for text in texts if text)])


def _with_lab(group: Any, name: str, lab: Path) -> Any:
    """Return a product's group that also knows what only the laboratory's group of that name has: `train nano`."""
    own = group.get_command
    group.get_command = lambda ctx, sub: own(ctx, sub) or load_command(name, lab).get_command(ctx, sub)
    return group


def _missing(name: str, error: ModuleNotFoundError) -> str:
    return (
        f"'slicecast {name}' needs the package {error.name}, which is not installed. "
        "Install the laboratory: pip install 'slicecast[lab]'."
    )


class _Unloaded(TyperCommand):
    """A command's line in the help; becomes the real command as soon as it is to run."""

    def __init__(self, name: str, file: Path) -> None:
        super().__init__(name, help=_first_docstring_line(file))
        self._file = file

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return load_command(str(self.name), self._file).make_context(info_name, args, parent=parent, **extra)


class _Group(TyperGroup):
    """Lists commands without importing them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self._files())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        file = self._files().get(cmd_name)
        return file and _Unloaded(cmd_name, file)

    def _files(self) -> dict[str, Path]:
        return lab_command_files()


class _Commands(_Group):
    """The root: also knows the laboratory as a group, and says errors in one sentence."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted([*self._files(), *([LAB] if lab_command_files() else [])])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name == LAB and lab_command_files():
            return _Group(name=LAB, no_args_is_help=True, help=LAB_HELP, epilog=LAB_EPILOG)
        return super().get_command(ctx, cmd_name)

    def _files(self) -> dict[str, Path]:
        return command_files()

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
