"""Start the labelling server for OHIF, 3D Slicer and MONAI Label's own client."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from slicecast.config import project_dir, users_file
from slicecast.errors import ConfigError, ResourceError
from slicecast.models.weights import choose_model
from slicecast.server.security.users import Users
from slicecast.server.settings import auth_settings

app = typer.Typer(add_completion=False)

SAMPLES, APP = project_dir("sample-data") / "studies", project_dir("apps") / "sam2"
STATE = ".slicecast"
"""Folder in the studies for what a server needs while it runs."""
UVICORN_APP = "slicecast.server.app:app"


Studies = Annotated[
    str, typer.Option(help="Folder of images (NIfTI, NRRD, MHA, DICOM), or address of a DICOMweb server.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens the server to the network.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Labels = Annotated[str, typer.Option(help="Names of the structures, separated by commas.")]
Conf = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting of the app; repeatable.")]
AppFolder = Annotated[Path, typer.Option("--app", help="Folder of the MONAI Label app.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Open the server to the network without any login.")]
Verbose = Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")]


@app.command()
def serve(
    studies: Studies = str(SAMPLES),
    host: Host = "127.0.0.1",
    port: Port = 8000,
    model: Model = "",
    labels: Labels = "",
    conf: Conf = None,
    app_dir: AppFolder = APP,
    verbose: Verbose = "INFO",
    insecure: Insecure = False,
) -> None:
    """Start the labelling server for OHIF, 3D Slicer and MONAI Label's own client.

    \b
    Example: slicecast serve --studies sample-data/studies --labels "spleen,liver"
    """
    check_folders(studies, app_dir)
    check_logins(host, insecure=insecure)
    check_port(host, port)
    from slicecast.volume.reading import dataset_description, value_names  # takes a while, see main.py

    choose_model(model or None)
    named = {
        "model": model,
        "labels": labels or ",".join(value_names(dataset_description(Path(studies))).values()),
        "insecure": "true" if insecure else "",
    }
    pairs = [*map(_pair, conf or []), *((key, value) for key, value in named.items() if value)]
    typer.echo(_welcome(studies, host, port))
    arguments = ["--app", str(app_dir), "--studies", studies, "--host", host, "--port", str(port), "--verbose", verbose]
    settings = [word for key, value in pairs for word in ("--conf", key, value)]
    with only_server(studies, app_dir):
        start_monailabel([*arguments, "--uvicorn_app", UVICORN_APP, *settings])


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError(f"--conf {text} has no value. Write --conf KEY=VALUE, such as --conf device=cpu.")
    return key, value


def start_monailabel(arguments: list[str]) -> None:
    """Run `monailabel start_server` in this process until it is stopped."""
    from monailabel.main import Main  # takes seconds, which `slicecast serve --help` must not

    os.environ["FORWARDED_ALLOW_IPS"] = ""  # uvicorn would believe every program of this machine; see NamedProxies
    main = Main(actions="start_server")
    main.action_start_server(main.args_parser().parse_args(["start_server", *arguments]))


def check_folders(studies: str, app_dir: Path) -> None:
    """Say before the start what would stop it.

    Raises:
        ConfigError: a folder is missing.
        ResourceError: a folder cannot be written to.
    """
    if not (app_dir / "main.py").is_file():
        raise ConfigError(f"There is no app in {app_dir}. Give the repository's folder apps/sam2 with --app.")
    _require_writable(app_dir, "MONAI Label keeps its log there. Copy it to a place of your own, given with --app")
    if studies.startswith(("http://", "https://")):
        return
    if not Path(studies).is_dir():
        raise ConfigError(f"There is no folder {studies}. Give the folder of your images with --studies.")
    _require_writable(Path(studies), "labels are saved there. Change its owner, or use a copy")


@contextmanager
def only_server(studies: str, app_dir: Path) -> Iterator[None]:
    """Be the only server of the studies while the block lasts, unless servers share their campaign in PostgreSQL.

    Raises:
        ResourceError: another server runs on them.
    """
    from slicecast.campaign.settings import campaign_settings

    if campaign_settings().database.startswith("postgresql"):
        yield
        return
    remote = studies.startswith(("http://", "https://"))
    folder = app_dir / "cache" if remote else Path(studies) / STATE
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "server.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ResourceError(
            f"Another server runs on {studies}. Stop it first, give this one other studies, or keep the campaign in "
            "PostgreSQL (database in campaign.yaml)."
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_logins(host: str, *, insecure: bool) -> None:
    """Refuse to open a server to the network that would let everybody in.

    Raises:
        ConfigError: no login would be needed.
    """
    if is_loopback(host) or insecure or Users(users_file()).all() or auth_settings().oidc_issuer:
        return
    raise ConfigError(
        f"--host {host} opens the server to the network, without any login. Add yourself with "
        "`slicecast users add NAME --role admin` (or set oidc_issuer in server.yaml), or say --insecure."
    )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_port(host: str, port: int) -> None:
    """Raise ResourceError where another program listens already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = f"{host}:{port} ({error.strerror})"
            raise ResourceError(f"Cannot listen on {reason}. Choose another one with --port.") from error


def _require_writable(folder: Path, why: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"{folder} cannot be written to, but {why}.")


def _welcome(studies: str, host: str, port: int) -> str:
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    return "\n".join(
        [
            f"Slicecast serves {studies} at {url} (ready in about ten seconds; stop with Ctrl+C).",
            f"  Web page        {url}/",
            f"  OHIF            {url}/ohif/",
            f"  3D Slicer       module MONAI Label, server {url}, then Next Sample",
        ]
    )
