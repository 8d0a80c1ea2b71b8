"""MONAI Label's own routes made safe: run in worker threads, their arguments checked before its code sees them.

Left out: `/reload` and the upload of model files (anybody could call them), and whole-slide images. Ours in place of
some: logs without scripts from the network, scoring in this process; training is in `train`.
"""

import subprocess
from collections import deque
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, UploadFile
from fastapi.responses import PlainTextResponse
from monailabel.config import settings
from monailabel.endpoints import activelearning, datastore, model, scoring, session
from monailabel.interfaces.tasks.infer_v2 import InferType

from slicecast.errors import InputError, NotFound, TooLarge, UnknownModel
from slicecast.server.dependencies import Admin, AnyUser, LabellingApp, labelling_app
from slicecast.server.ohif.viewer import is_from_viewer
from slicecast.server.settings import server_settings
from slicecast.server.threads import off_loop
from slicecast.server.uploads import require_file_name, require_plain_text, upload_ending

CHECKSUMS = ("SHA256", "SHA512", "MD5")

logs_router = APIRouter(prefix="/logs", tags=["Others"], default_response_class=PlainTextResponse)

scoring_router = APIRouter()

info_router = APIRouter(tags=["App"])


def datastore_routers() -> list[APIRouter]:
    """Return the routes of images, labels and upload sessions, without those that are ours."""
    ours = (
        *("PUT /datastore/label", "DELETE /datastore/label", "GET /datastore/dataset"),
        *("PUT /datastore/label/info", "PUT /datastore/updatelabelinfo"),
    )
    return [off_loop(datastore.router, check=check_names, skip=ours), off_loop(session.router, check=check_session)]


def task_routers() -> list[APIRouter]:
    """Return the routes of scoring, models and active learning."""
    return [
        off_loop(scoring.router, skip=("POST /scoring/{method}", "POST /scoring/")),
        off_loop(model.router, check=check_model, skip=("PUT /model/{model}", "DELETE /model/{model}")),
        info_router,
        off_loop(activelearning.router, check=check_names),
    ]


@info_router.get("/info/", summary="Describe the app")
def app_info(request: Request, user: AnyUser, app: LabellingApp) -> dict[str, Any]:
    """Describe the app; to OHIF without the models for one structure, for it never says which one that is."""
    told = app.info()
    if is_from_viewer(request):
        told["models"] = {name: model for name, model in told["models"].items() if model["type"] != InferType.DEEPGROW}
    return told


@scoring_router.post("/scoring/", tags=["Scoring"])
def run_all_scoring(
    app: LabellingApp, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, dict[str, Any]]:
    """Run all scoring methods in this process; the body may hold the params of each by its name."""
    methods = {name: (params or {}).get(name) for name in app.info()["scoring"]}
    requests = {
        name: {**own, "method": name} if isinstance(own, dict) else {"method": name} for name, own in methods.items()
    }
    return {name: {"result": app.scoring(request), "detail": None} for name, request in requests.items()}


@scoring_router.post("/scoring/{method}", tags=["Scoring"])
def run_scoring(
    method: str, app: LabellingApp, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, Any]:
    """Run a scoring method in this process, where MONAI Label would start another."""
    return app.scoring({**(params or {}), "method": method})


@logs_router.get("/", summary="See the last lines of the log")
def logs(user: Admin, lines: Annotated[int, Query(ge=1, le=10_000)] = 300) -> str:
    """Return the last lines."""
    file = Path(settings.MONAI_LABEL_APP_DIR) / "logs" / "app.log"
    if not file.is_file():
        raise NotFound("There is no log; the server was not started by MONAI Label's command line.")
    with file.open(encoding="utf-8", errors="replace") as stream:
        return "".join(deque(stream, lines))


@logs_router.get("/gpu", summary="See what nvidia-smi says")
def gpu(user: Admin) -> str:
    """Return the output of nvidia-smi."""
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotFound("There is no nvidia-smi on this machine, hence no NVIDIA GPU.") from error


def check_names(arguments: dict[str, Any]) -> None:
    """Refuse names that no file could have, before they reach a file system or a log.

    Raises:
        InputError: there is one.
    """
    for key, value in arguments.items():
        if isinstance(value, str) and key not in ("params", "info"):
            require_plain_text(value, key)
        elif isinstance(value, UploadFile):
            upload_ending(value)
    checksum = arguments.get("check_sum")
    if checksum and ":" in checksum and checksum.partition(":")[0] not in CHECKSUMS:
        raise InputError(f"'check_sum' begins with none of {', '.join(CHECKSUMS)}. Write SHA256:...")


def check_model(arguments: dict[str, Any]) -> None:
    """Refuse models that the app does not have.

    Raises:
        UnknownModel: there is none of that name.
        InputError: no model could be called so.
    """
    check_names(arguments)
    known, model = labelling_app().info()["models"], arguments.get("model")
    if model is not None and model not in known:
        raise UnknownModel(f"There is no model '{model}'. Known: {', '.join(known)}.")


def check_session(arguments: dict[str, Any]) -> None:
    """Refuse uploads of too many files or of odd names, and to send a session's folder as if it were a file.

    Raises:
        TooLarge: too many files.
        InputError: an odd name, or a folder.
    """
    check_names(arguments)
    files, most = arguments.get("files") or [], server_settings().limits.files
    if len(files) > most:
        raise TooLarge(f"{len(files)} files were sent; at most {most} are taken. Send an archive.")
    for file in files:
        require_file_name(file.filename or "")
    sessions = labelling_app().sessions()
    if arguments.get("image") and sessions is not None:
        session = sessions.get_session(arguments["session_id"], update_ts=False)
        if session and Path(session.image).is_dir():
            raise InputError("The session holds several files and cannot be sent as one. Leave 'image'.")
