"""Start the labelling server for OHIF, 3D Slicer and MONAI Label's own client."""

import io
import logging
import os
import shutil
import socket
import ssl
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import uvicorn

import slicecast
from slicecast.config import project_dir, users_file
from slicecast.errors import ConfigError, ResourceError
from slicecast.models.weights import choose_model
from slicecast.server.connections import PatientProtocol
from slicecast.server.security.users import Users
from slicecast.server.settings import auth_settings

app = typer.Typer(add_completion=False)

SAMPLES, APP = project_dir("sample-data") / "studies", project_dir("apps") / "sam2"
LOG = Path("logs") / "app.log"
UVICORN_APP = "slicecast.server.app:app"


class LogFormat(StrEnum):
    """How the log is written."""

    lines = "lines"
    json = "json"


Studies = Annotated[
    str, typer.Option(help="Folder of images (NIfTI, NRRD, MHA, DICOM), or address of a DICOMweb server.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens the server to the network.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Labels = Annotated[str, typer.Option(help="Names of the structures, separated by commas.")]
Conf = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting of the app; repeatable.")]
AppFolder = Annotated[
    Path | None,
    typer.Option("--app", help="Folder of a MONAI Label app, for log and sessions too. Default: in the studies."),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Open the server to the network without any login.")]
Verbose = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"], typer.Option(help="What is printed, from which level on.")
]

TlsCert = Annotated[Path | None, typer.Option(help="Speak HTTPS with this certificate (PEM, with its chain).")]
TlsKey = Annotated[Path | None, typer.Option(help="The certificate's private key (PEM, without a password).")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="`json`: an object on every line, for collectors.")]


@app.command()
def serve(
    studies: Studies = str(SAMPLES),
    host: Host = "127.0.0.1",
    port: Port = 8000,
    model: Model = "",
    labels: Labels = "",
    conf: Conf = None,
    app_dir: AppFolder = None,
    verbose: Verbose = "WARNING",
    insecure: Insecure = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    log_format: Format = LogFormat.lines,
) -> None:
    """Start the labelling server for OHIF, 3D Slicer and MONAI Label's own client.

    \b
    Example: slicecast serve --studies sample-data/studies --labels "spleen,liver"
    """
    check_folders(studies, app_dir)
    check_logins(host, insecure=insecure)
    check_port(host, port)
    tls = tls_arguments(tls_cert, tls_key)
    pairs = [*map(_pair, conf or [])]
    from slicecast.labelling.conf import AppConfig  # these take a while, see main.py
    from slicecast.labelling.state import only_server

    spec = choose_model(model or None)
    named = {
        "model": model,
        "labels": labels or ("" if "labels" in dict(pairs) else described_labels(Path(studies))),
        "insecure": "true" if insecure else "",
    }
    pairs += [(key, value) for key, value in named.items() if value]
    AppConfig.from_conf(dict(pairs))
    arguments = ["--studies", studies, "--host", host, "--port", str(port), "--verbose", verbose, *tls]
    settings = [word for key, value in pairs for word in ("--conf", key, value)]
    with only_server(studies):
        place = app_dir or own_app(studies)
        what = {"Model": f"{spec.name} on {_device(dict(pairs).get('device', 'auto'))}", "Log": str(place / LOG)}
        typer.echo(_welcome(studies, host, port, scheme="https" if tls else "http", what=what))
        words = ["--app", str(place), *arguments, "--uvicorn_app", UVICORN_APP, *settings]
        start_monailabel(words, log_format=log_format)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError(f"--conf {text} has no value. Write --conf KEY=VALUE, such as --conf device=cpu.")
    return key, value


def described_labels(studies: Path) -> str:
    """Return the structures that a `dataset.json` names, as --labels: the n-th is value n; empty for none.

    Raises:
        ConfigError: a name holds a comma.
    """
    from slicecast.labelling.tasks.request import MAX_LABELS  # these take a while, see main.py
    from slicecast.volume.reading import dataset_description, value_names

    names = {value: name for value, name in value_names(dataset_description(studies)).items() if value <= MAX_LABELS}
    if odd := next((name for name in names.values() if "," in name), None):
        raise ConfigError(
            f"The dataset.json names a structure '{odd}', and names are divided by commas. Give --labels."
        )
    return ",".join(names.get(value, f"label {value}") for value in range(1, max(names, default=0) + 1))


def tls_arguments(cert: Path | None, key: Path | None) -> list[str]:
    """Return MONAI Label's words for a certificate and its key; none for plain HTTP.

    Raises:
        ConfigError: one of the files is missing, or cannot be used with the other.
    """
    if cert is None and key is None:
        return []
    if cert is None or key is None:
        raise ConfigError("HTTPS needs both files. Give --tls-cert and --tls-key, or neither.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except OSError as error:  # an SSLError is one
        reason = error.strerror or str(error)
        raise ConfigError(
            f"{cert} and {key} cannot be used: {reason}. Give a certificate and its key as PEM."
        ) from error
    return ["--ssl_certfile", str(cert), "--ssl_keyfile", str(key)]


def start_monailabel(arguments: list[str], *, log_format: LogFormat = LogFormat.lines) -> None:
    """Run MONAI Label's server, with our application, until it is stopped."""
    with redirect_stdout(io.StringIO()):  # it prints what it will not do
        from monailabel.main import Main  # takes seconds, which `slicecast serve --help` must not

    os.environ["FORWARDED_ALLOW_IPS"] = ""  # uvicorn would believe every program of this machine; see NamedProxies
    parser = Main(actions="start_server").args_parser()
    given = parser.parse_args(["start_server", *arguments])
    level = logging.getLevelName(given.verbose)
    logging.getLogger().setLevel(level)
    logging.getLogger("timeloop").addFilter(lambda record: level <= logging.INFO)  # it prints by itself
    main = Main(loglevel=level, actions="start_server")
    main.start_server_validate_args(given)
    main.start_server_init_settings(given)
    config = uvicorn.Config(
        given.uvicorn_app,
        given.host,
        given.port,
        log_config=log_config(Path(given.app) / LOG, level, log_format=log_format),
        http=PatientProtocol,
        ssl_certfile=given.ssl_certfile,
        ssl_keyfile=given.ssl_keyfile,
    )
    with redirect_stdout(io.StringIO()):  # importing MONAI Label's own application prints its origins
        config.load()
    server = AnnouncingServer(config)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after its own clean end
        server.run()
    if not server.started:
        raise ResourceError(f"The server did not start; the reason is above and in {Path(given.app) / LOG}.")


class AnnouncingServer(uvicorn.Server):
    """A server that says when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            typer.echo("Ready.")


LINES = {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}
OBJECTS = {
    "()": "pythonjsonlogger.json.JsonFormatter",
    "fmt": ["levelname", "name", "message"],
    "timestamp": True,
    "rename_fields": {"levelname": "level", "name": "logger", "exc_info": "exception"},
}


def log_config(file: Path, level: int, *, log_format: LogFormat = LogFormat.lines) -> dict[str, Any]:
    """Describe the log for `logging.config`: all from INFO on to a file, from `level` on to the terminal.

    What the server prepares is told on the terminal at any level.
    """
    kept = {"class": "logging.handlers.RotatingFileHandler", "filename": str(file), "encoding": "utf-8"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": OBJECTS if log_format is LogFormat.json else LINES, "text": {}},
        "handlers": {
            "terminal": {"class": "logging.StreamHandler", "formatter": "line", "level": level},
            "told": {"class": "logging.StreamHandler", "formatter": "text"},
            "file": {**kept, "maxBytes": 10 << 20, "backupCount": 5, "formatter": "line"},
        },
        "root": {"level": min(level, logging.INFO), "handlers": ["terminal", "file"]},
        "loggers": {
            "uvicorn.access": {"level": "WARNING"},
            "slicecast.progress": {"level": "INFO", "handlers": ["told"] if level > logging.INFO else []},
        },
    }


def own_app(studies: str) -> Path:
    """Copy the app to where the server's state lies, because MONAI Label writes into its folder."""
    from slicecast.labelling.state import state_folder

    folder = state_folder(studies) / "app"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(APP / "main.py", folder / "main.py")
    return folder


def check_folders(studies: str, app_dir: Path | None) -> None:
    """Say before the start what would stop it.

    Raises:
        ConfigError: a folder is missing.
        ResourceError: a folder cannot be written to.
    """
    if app_dir is not None:
        if not (app_dir / "main.py").is_file():
            raise ConfigError(f"There is no app in {app_dir}. Give a copy of apps/sam2 with --app.")
        _require_writable(app_dir, "MONAI Label keeps its log there. Copy it to a place of your own, given with --app")
    if studies.startswith(("http://", "https://")):
        return
    if not Path(studies).is_dir():
        raise ConfigError(f"There is no folder {studies}. Give the folder of your images with --studies.")
    _require_writable(Path(studies), "labels are saved there. Change its owner, or use a copy")


def check_logins(host: str, *, insecure: bool) -> None:
    """Refuse to open a server to the network that would let everybody in.

    Raises:
        ConfigError: no login would be needed.
    """
    if is_loopback(host) or insecure or _has_logins():
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


def _welcome(studies: str, host: str, port: int, *, scheme: str, what: Mapping[str, str]) -> str:
    address = own_address() if host in ("0.0.0.0", "::") else host
    url = f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}"
    rows = {
        "Studies": studies,
        **what,
        "Open to": _reached_by(host),
        "Annotate": f"{url}/annotate/",
        "Web page": f"{url}/",
        "OHIF": f"{url}/ohif/",
        "3D Slicer": f"module MONAI Label, server {url}, then Next Sample",
    }
    lines = [f"  {name:<9} {text}" for name, text in rows.items()]
    return "\n".join([f"Slicecast {slicecast.__version__} (ready in about ten seconds; stop with Ctrl+C)", *lines])


def _device(name: str) -> str:
    """Return the device's name, of `auto` the one that will be used."""
    import torch  # takes seconds, which `slicecast serve --help` must not

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _reached_by(host: str) -> str:
    if is_loopback(host):
        return "programs of this machine, without a login" if not _has_logins() else "this machine, with a login"
    return "the network, with a login" if _has_logins() else "everybody who reaches it, without a login (--insecure)"


def _has_logins() -> bool:
    return bool(Users(users_file()).all() or auth_settings().oidc_issuer)


def own_address() -> str:
    """Return the address under which the network reaches this machine; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation
        except OSError:  # no network
            return "127.0.0.1"
        return str(probe.getsockname()[0])
