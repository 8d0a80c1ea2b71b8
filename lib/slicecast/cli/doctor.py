"""Report what is installed, which device and weights will be used, and how to fix what is missing."""

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from slicecast import config
from slicecast.cli._checks import require_folder
from slicecast.errors import SlicecastError
from slicecast.models.registry import ModelSpec, load_registry
from slicecast.models.weights import choose_model, is_present, verify, weights_path

app = typer.Typer()

MEND_INSTALL = "make install"
NAMED_PACKAGES = ("torch", "torchvision", "sam2", "monai", "monailabel", "numpy", "SimpleITK", "pydicom", "fastapi")
"""Packages whose versions are worth reading in a bug report; the others only show when they are wrong."""

OPTIONAL_PROGRAMS = {
    "Orthanc": (("Orthanc", "orthanc"), "apt-get install orthanc orthanc-dicomweb", "a DICOMweb server for OHIF"),
}


class CheckStatus(StrEnum):
    """How a check came out; only ``FAIL`` makes the command fail."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: what was looked at, what was found, and the command that mends it."""

    name: str
    status: CheckStatus
    found: str
    remedy: str = ""


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option(help="Check this model instead of the default one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    studies: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also list the images of this folder that cannot be segmented.", callback=require_folder
        ),
    ] = None,
    server: Annotated[str, typer.Option(metavar="URL", help="Look only why this server is not reached.")] = "",
    user: Annotated[str, typer.Option(metavar="NAME", help="Log in to it; the token is asked for.")] = "",
) -> None:
    """Report what is installed, which device and weights will be used, and how to fix what is missing.

    Exits with 1 when something is wrong that Slicecast needs.

    \b
    Examples:
      slicecast doctor
      slicecast doctor --studies scans --json
      slicecast doctor --server https://labels.example.org --user dr.lee
    """
    checks = (
        list(check_server(server, user)) if server else [*examine(model), *(check_studies(studies) if studies else ())]
    )
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _print(checks)
    if any(check.status is CheckStatus.FAIL for check in checks):
        raise typer.Exit(1)


def check_server(url: str, user: str) -> Iterator[Check]:
    """Follow the way of a client to a server, as far as it goes."""
    examine_server = importlib.import_module("slicecast.cli._connection").examine_server
    for name, fine, found, remedy in examine_server(
        url, user, lambda: typer.prompt("Token", hide_input=True, err=True)
    ):
        yield Check(name, CheckStatus.OK if fine else CheckStatus.FAIL, found, remedy)


def examine(model: str | None = None) -> Iterator[Check]:
    """Yield every check, in the order of the report."""
    yield check_python(sys.version_info[:3])
    yield from check_packages()
    yield check_torch_pair()
    yield check_device()
    yield check_weights(model)
    yield from check_size(model)
    yield from check_volumetric()
    yield check_folder("sample data", config.project_dir("sample-data") / "studies")
    yield check_writable("app folder", config.project_dir("apps") / "sam2")
    yield check_writable("weights folder", config.home_dir())
    yield from (check_program(name) for name in OPTIONAL_PROGRAMS)


def check_python(version: tuple[int, ...]) -> Check:
    """Check that Slicecast is made for this Python."""
    found = f"Python {'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if (3, 11) <= version < (3, 13):
        return Check("python", CheckStatus.OK, found)
    return Check("python", CheckStatus.FAIL, found, "install Python 3.11 or 3.12, then: make install PYTHON=python3.11")


def check_packages() -> Iterator[Check]:
    """Compare every direct dependency with the range that Slicecast asks for."""
    for line in importlib.metadata.requires("slicecast") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            check = check_package(requirement)
            if check.status is not CheckStatus.OK or requirement.name in NAMED_PACKAGES:
                yield check


def check_package(requirement: Requirement) -> Check:
    """Compare one installed package with the range asked for."""
    name = requirement.name
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, CheckStatus.FAIL, f"not installed; {requirement} is needed", MEND_INSTALL)
    if requirement.specifier.contains(version, prereleases=True):
        return Check(name, CheckStatus.OK, version)
    return Check(name, CheckStatus.FAIL, f"{version}; {requirement} is needed", MEND_INSTALL)


def check_torch_pair() -> Check:
    """Check that torch and torchvision were built for each other, by using both."""
    name = "torch with torchvision"
    try:
        import torch
        import torchvision

        kept = torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        return Check(name, CheckStatus.FAIL, f"they do not fit together: {_first_line(error)}", MEND_INSTALL)
    return Check(name, CheckStatus.OK if kept.tolist() == [0] else CheckStatus.FAIL, "work together")


def check_device() -> Check:
    """Name the device that will compute."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("device", CheckStatus.FAIL, f"torch cannot be imported: {_first_line(error)}", MEND_INSTALL)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Check("device", CheckStatus.OK, f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        return Check("device", CheckStatus.OK, "mps")
    return Check("device", CheckStatus.OK, f"cpu, {os.cpu_count()} cores; the large models want a CUDA GPU")


def check_weights(model: str | None) -> Check:
    """Name the model that will be used, and read its weights completely."""
    try:
        spec = choose_model(model)
        path = verify(spec)
    except SlicecastError as error:
        return Check("weights", CheckStatus.FAIL, str(error), "slicecast models list")
    return Check("weights", CheckStatus.OK, f"{spec.name}, SHA-256 right, {path}")


def check_size(model: str | None) -> Iterator[Check]:
    """Where there is no GPU, name the model that has the same weights at a smaller input, if there is one."""
    import torch

    try:
        spec = choose_model(model)
    except SlicecastError:
        return
    same = (other for other in load_registry().values() if other.file == spec.file)
    smaller = next((other for other in same if other.image_size < spec.image_size), None)
    if smaller and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        found = (
            f"{spec.name} needs seconds a slice on a CPU; {smaller.name} has its weights, {smaller.image_size} pixels"
        )
        yield Check("speed", CheckStatus.NOTE, found, f"slicecast serve --model {smaller.name}")


def check_volumetric() -> Iterator[Check]:
    """Say of each volumetric model whether clients will list it."""
    for spec in load_registry().values():
        if spec.volumetric and spec.supported:
            ready = is_present(spec)
            state = "weights present; clients list it" if ready else "no trusted weights; clients do not list it"
            remedy = "" if ready else _way_to(spec)
            yield Check(spec.name, CheckStatus.OK if ready else CheckStatus.NOTE, state, remedy)


def _way_to(spec: ModelSpec) -> str:
    if spec.by_hand or weights_path(spec).is_file():
        return f"slicecast models verify {spec.name}"
    train = f"slicecast lab train volumetric --config configs/{spec.recipe}"
    return train if spec.recipe else f"slicecast models pull {spec.name}"


def check_folder(name: str, folder: Path) -> Check:
    """Check that a folder is there and holds something."""
    if folder.is_dir() and any(folder.iterdir()):
        return Check(name, CheckStatus.OK, str(folder))
    return Check(name, CheckStatus.NOTE, f"none at {folder}", "slicecast serve --studies DIR with scans of your own")


def check_studies(folder: Path) -> Iterator[Check]:
    """List the images that cannot be segmented, by their headers; a note each, because the others can be."""
    # By name: the command must also run where packages are missing.
    nested_volumes = importlib.import_module("slicecast.labelling.store.unusable").nested_volumes
    with tempfile.TemporaryDirectory() as work:
        images = importlib.import_module("slicecast.labelling.importing").Images(folder, Path(work))
        bad = images.unusable()
        yield Check("studies", CheckStatus.OK, f"{len(images.ids()) - len(bad)} images in {folder} can be segmented")
    for name, why in (bad | nested_volumes(folder)).items():
        yield Check(name, CheckStatus.NOTE, why)


def check_writable(name: str, folder: Path) -> Check:
    """Check that a folder, or the nearest one above that exists, can be written to."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(existing, os.W_OK):
        return Check(name, CheckStatus.OK, f"{folder} can be written to")
    return Check(name, CheckStatus.FAIL, f"{folder} cannot be written to", f"chmod u+w {existing}")


def check_program(name: str, which: Callable[[str], str | None] = shutil.which) -> Check:
    """Look for a program that only some features need."""
    commands, remedy, purpose = OPTIONAL_PROGRAMS[name]
    path = next(filter(None, map(which, commands)), None)
    if path:
        return Check(name, CheckStatus.OK, path)
    return Check(name, CheckStatus.NOTE, f"not found; only needed for {purpose}", remedy)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _print(checks: list[Check]) -> None:
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {CheckStatus.OK: "green", CheckStatus.NOTE: "yellow", CheckStatus.FAIL: "red"}
    for check in checks:
        mend = f"\n→ {check.remedy}" if check.remedy else ""
        table.add_row(f"[{colours[check.status]}]{check.status.value}[/]", check.name, f"{check.found}{mend}")
    Console().print(table)
