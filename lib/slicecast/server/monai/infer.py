"""POST /infer/{model}: MONAI Label's contract for clients, without its faults.

The address decides which model and image; `params` cannot replace them. Uploads are removed, the answer's file is
closed and removed. Requests stand in the device's queue, fair between users, and one whose client has gone is stopped.
"""

import json
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from requests_toolbelt import MultipartEncoder

from slicecast.inference.caller import current_caller
from slicecast.inference.queue import QueueSettings
from slicecast.server.monai.seg import DICOM, require_image_of_studies, seg_answer
from slicecast.server.names import require_plain_text
from slicecast.server.problems import Described, problems
from slicecast.server.settings import server_settings
from slicecast.server.threads import json_object
from slicecast.server.uploads import received
from slicecast.server.watch import while_wanted

SPARE_THREADS = 8
"""More threads than places to work and wait, so that whoever finds the queue full is told at once."""

FIXED_KEYS = ("image", "model", "session", "label_file", "description")
"""Keys of a request that come from the address or the server."""


class Output(StrEnum):
    """What the answer holds: the mask, the params, both, or the mask as DICOM SEG."""

    image = "image"
    json = "json"
    all = "all"
    dicom_seg = "dicom_seg"


RESPONSES: Described = {
    200: {
        "description": "The mask, the params, both, or a DICOM SEG, as `output` asks",
        "content": {"multipart/form-data": {}, "application/json": {}, "application/octet-stream": {}, DICOM: {}},
    },
    **problems(
        {
            404: "There is no such model, image or upload session",
            422: "The prompts or options cannot be used; the detail says why",
            499: "The client went away; nobody reads this",
            503: "The queue is full, or the weights are missing; `Retry-After` says when to come back",
        }
    ),
}


def infer_router(queue: QueueSettings) -> APIRouter:
    """Build the route, with threads for all that the queue lets work or wait."""
    router = APIRouter(prefix="/infer", tags=["Infer"])
    limiter = anyio.CapacityLimiter(queue.jobs + queue.waiting + SPARE_THREADS)

    @router.post("/{model}", summary="Segment an image from prompts", responses=RESPONSES, response_class=Response)
    async def infer(
        model: str,
        http: Request,
        image: str = "",
        session_id: str = "",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
        output: Output | None = None,
        user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)),  # noqa: B008 - FastAPI's way
    ) -> Response:
        require_plain_text(model, "model")
        require_id(image)
        if output is Output.dicom_seg:
            require_image_of_studies(image, sent_along=file is not None or bool(session_id))
        request = {**checked_params(params), "model": model, "image": image}
        name = current_caller().named(request.get("client_id"))
        work = partial(_infer, request, session_id=session_id, file=file, label=label)

        def queued(cancelled: Callable[[], bool]) -> Response:
            with app_instance().service.queue.job(name, cancelled=cancelled):
                return answer(work, output, as_seg=partial(_as_seg, image=image, user=name))

        return await while_wanted(http, queued, limiter=limiter)

    return router


def checked_params(text: str) -> dict[str, Any]:
    """Parse `params`.

    Raises:
        HTTPException: 422, they are no JSON object, or hold what belongs into the address; 413, too many points.
    """
    params = json_object(text or "{}", "params")
    for key in FIXED_KEYS:
        if key in params:
            raise HTTPException(422, detail=f"'params' must not hold '{key}'; it belongs into the address.")
    label = params.get("label")
    if isinstance(label, str) and (label.startswith(("/", "\\", "~")) or ".." in label.split("/")):
        raise HTTPException(422, detail="'label' in 'params' is a path. Give a label's name, or send the file.")
    sent, most = (
        sum(len(value) for value in params.values() if isinstance(value, list)),
        server_settings().limits.points,
    )
    if sent > most:
        raise HTTPException(
            413, detail=f"'params' holds {sent} points; at most {most} are taken. Paint a slice instead."
        )
    return params


def require_id(image: str) -> None:
    """Refuse to open a path that a client names; those of uploads are put in by the server.

    Raises:
        HTTPException: 422.
    """
    require_plain_text(image, "image")
    if "/" in image or "\\" in image:
        detail = f"The image '{image}' is a path. Give the id of an image of the studies, or upload the file."
        raise HTTPException(422, detail=detail)


def answer(
    work: Callable[[], dict[str, Any]],
    output: Output | None,
    *,
    as_seg: Callable[[dict[str, Any]], Response] | None = None,
) -> Response:
    """Do the work, and send its params, its mask, or both as multipart/form-data; the mask's file is then removed.

    `as_seg` makes the answer of what is asked for as DICOM SEG.
    """
    result = work()
    params = result["params"]
    if output is Output.dicom_seg and as_seg is not None and result["file"]:
        try:
            return as_seg(result)
        finally:
            _remove(result["file"])
    if output is Output.json or not result["file"]:
        _remove(result["file"])
        return JSONResponse(params)
    file = Path(result["file"])
    try:
        content = file.read_bytes()
    finally:
        _remove(result["file"])
    if output is Output.image:
        headers = {"Content-Disposition": f'attachment; filename="{file.name}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)
    fields = {
        "params": (None, json.dumps(params, allow_nan=False), "application/json"),
        "image": (file.name, content, "application/octet-stream"),
    }
    message = MultipartEncoder(fields=fields)
    return Response(message.to_string(), media_type=message.content_type)


def _infer(
    request: dict[str, Any], *, session_id: str, file: UploadFile | None, label: UploadFile | None
) -> dict[str, Any]:
    app = app_instance()
    with received(file) as image_path, received(label) as label_path:
        if image_path:
            request["image"] = image_path
        if label_path:
            request["label_file"] = label_path
        session = app.sessions().get_session(session_id) if session_id and app.sessions() is not None else None
        if session:
            request["image"] = session.image
        result: dict[str, Any] = app.infer(request)
    return result


def _as_seg(result: dict[str, Any], *, image: str, user: str) -> Response:
    return seg_answer(result, image, app_instance().datastore().catalogue, user=user)


def _remove(file: str | None) -> None:
    if file:
        Path(file).unlink(missing_ok=True)
