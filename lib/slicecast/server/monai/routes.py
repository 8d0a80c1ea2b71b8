"""MONAI Label's routes: its own made safe, and ours in place of some.

Its own run in worker threads, and their arguments are checked before its code sees them. Ours are labels, which go
through the campaign, logs without scripts from the network, and batch inference and fine-tuning outside of its child
processes. Left out: `/reload` and the upload of model files (anybody could call them), whole-slide images, and scoring.
"""

import subprocess
from collections import deque
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse
from monailabel.config import settings
from monailabel.endpoints import activelearning, datastore, model, session
from monailabel.interfaces.tasks.infer_v2 import InferType
from starlette.background import BackgroundTask

from slicecast.errors import InputError, NotFound, TooLarge, UnknownModel
from slicecast.labelling.finetuning.tuner import NAME
from slicecast.labelling.preannotation import BatchRequest
from slicecast.labelling.store.labels import FINAL
from slicecast.server.dependencies import Admin, Annotator, AnyUser, LabellingApp, Reviewer, labelling_app
from slicecast.server.ohif.viewer import is_from_viewer
from slicecast.server.security.limits import json_object, received, require_file_name, require_plain_text, upload_ending
from slicecast.server.settings import server_settings
from slicecast.server.threads import off_loop

CHECKSUMS = ("SHA256", "SHA512", "MD5")

logs_router = APIRouter(prefix="/logs", tags=["Others"], default_response_class=PlainTextResponse)

info_router = APIRouter(tags=["App"])


def datastore_routers() -> list[APIRouter]:
    """Return the routes of images, labels and upload sessions, without those that are ours."""
    ours = (
        *("PUT /datastore/label", "DELETE /datastore/label", "GET /datastore/dataset"),
        *("PUT /datastore/image/info", "PUT /datastore/label/info", "PUT /datastore/updatelabelinfo"),
    )
    return [off_loop(datastore.router, check=check_names, skip=ours), off_loop(session.router, check=check_session)]


def task_routers() -> list[APIRouter]:
    """Return the routes of models and active learning."""
    return [
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


batch_router = APIRouter(prefix="/batch", tags=["Infer"])


class ImageChoice(StrEnum):
    """Which images to answer."""

    all = "all"
    labeled = "labeled"
    unlabeled = "unlabeled"


@batch_router.get("/infer/", include_in_schema=False)
@batch_router.get("/infer", summary="See how far batch inference is")
def batch_state(user: AnyUser, app: LabellingApp, all: bool = False, check_if_running: bool = False) -> Any:
    """Return the latest batch, or all; with `check_if_running` only one that runs."""
    batches = app.batch_inference.batches()
    if check_if_running:
        batches = tuple(batch for batch in batches if batch.status == "RUNNING")
    if not batches:
        raise NotFound("No batch inference is running." if check_if_running else "There was no batch inference yet.")
    return [batch.described() for batch in batches] if all else batches[-1].described()


@batch_router.post("/infer/{model}", summary="Pre-annotate many images")
def run_batch(
    model: str,
    user: Admin,
    app: LabellingApp,
    images: ImageChoice = ImageChoice.all,
    params: Annotated[dict[str, Any] | None, Body()] = None,
    run_sync: bool = False,
) -> dict[str, Any]:
    """Begin a batch, or, with `run_sync`, do it before the answer. Images that have a label already are skipped."""
    asked = BatchRequest.parse(model, images.value, params or {})
    batch = app.batch_inference.run(asked) if run_sync else app.batch_inference.start(asked)
    return batch.described()


@batch_router.delete("/infer/", include_in_schema=False)
@batch_router.delete("/infer", summary="Stop batch inference")
def stop_batch(user: Admin, app: LabellingApp) -> dict[str, Any] | None:
    """Stop the batch that runs, at its next step, and return it; null when there is none."""
    batch = app.batch_inference.stop()
    return None if batch is None else batch.described()


train_router = APIRouter(prefix="/train", tags=["Train"])


@train_router.get("/", summary="See how far fine-tuning is")
def train_state(user: AnyUser, app: LabellingApp, all: bool = False, check_if_running: bool = False) -> Any:
    """Return the last round, or all; with `check_if_running` only one that runs."""
    tuner = app.fine_tuner
    rounds = tuner.rounds.all()
    if check_if_running:
        rounds = [found] if (found := tuner.running()) else []
    if not rounds:
        raise NotFound("No fine-tuning is running." if check_if_running else "There was no fine-tuning yet.")
    return [tuner.described(known) for known in rounds] if all else tuner.described(rounds[-1])


@train_router.post("/", summary="Fine-tune the model", include_in_schema=False)
def train_all(
    user: Admin, app: LabellingApp, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, dict[str, Any]]:
    """Begin a round for the only model that is trained; OHIF asks so."""
    return {NAME: {"result": train_model(NAME, user, app, params), "detail": None}}


@train_router.post("/{model}", summary="Fine-tune the model")
def train_model(
    model: str, user: Admin, app: LabellingApp, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, Any]:
    """Begin a round on the submitted labels, or go on with one that was stopped; `params` change nothing."""
    if model != NAME:
        raise NotFound(f"There is no trainer '{model[:100]}'. Known: {NAME}.")
    return app.fine_tuner.described(app.fine_tuner.start())


@train_router.delete("/", summary="Stop fine-tuning")
def stop_training(user: Admin, app: LabellingApp) -> dict[str, Any] | None:
    """Stop the round that runs and return it; null when none does."""
    found = app.fine_tuner.stop()
    return None if found is None else app.fine_tuner.described(found)


labels_router = APIRouter(prefix="/datastore", tags=["Datastore"])
dataset_router = APIRouter(prefix="/datastore", tags=["Datastore"])


@labels_router.put("/label", summary="Save a finished label")
def save_label(
    image: str,
    label: Annotated[UploadFile, File()],
    user: Annotator,
    app: LabellingApp,
    params: Annotated[str, Form()] = "{}",
    tag: str = FINAL,
) -> dict[str, Any]:
    """Save a label; under the tag `final` it is submitted to the campaign."""
    info = json_object(params or "{}", "params")
    client = user.username if settings.MONAI_LABEL_AUTH_ENABLE else None
    with received(label) as file:
        saved = app.campaign_service.save(image, Path(str(file)), tag=tag or FINAL, info=info, client_id=client)
    return {**app.on_save_label(image, saved["label"]), **saved}


@labels_router.delete("/label", summary="Remove a label")
def remove_label(id: str, tag: str, user: Admin, app: LabellingApp) -> dict[str, Any]:
    """Remove a label; it is kept among the versions. An approved one must be opened again first."""
    app.campaign_service.remove_label(id, tag)
    return {}


@labels_router.put("/image/info", summary="Change an image's record")
def update_image_info(image: str, user: Reviewer, app: LabellingApp, info: Annotated[str, Form()] = "{}") -> None:
    """Change an image's record."""
    who = {"user": user.username} if user.username else {}
    app.datastore().save_image_info(image, json_object(info or "{}", "info") | who)


@labels_router.put("/label/info", summary="Change a label's record")
def update_label_info(
    label: str, tag: str, user: Reviewer, app: LabellingApp, info: Annotated[str, Form()] = "{}"
) -> None:
    """Change a label's record. An approved label must be opened again first."""
    app.campaign_service.update_label_info(label, tag, json_object(info or "{}", "info"))


@dataset_router.get(
    "/dataset", summary="Download images and final labels as a ZIP archive", response_class=FileResponse
)
def dataset(user: Reviewer, app: LabellingApp, limit_cases: Annotated[int | None, Query(ge=1)] = None) -> FileResponse:
    """Pack and send; the archive is removed once it is sent."""
    archive = Path(app.datastore().get_dataset_archive(limit_cases))
    remove = BackgroundTask(archive.unlink, missing_ok=True)
    return FileResponse(archive, media_type="application/zip", filename="dataset.zip", background=remove)
