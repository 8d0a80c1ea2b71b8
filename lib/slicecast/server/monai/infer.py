"""POST /infer/{model} and POST /infer/: MONAI Label's contract for clients, without its faults.

The address decides which model and image; `params` cannot replace them. Uploads are removed, the answer's file is
closed and removed. Requests wait in the device's queue, fair between users; one whose client has gone is stopped.
"""

import json
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from requests_toolbelt import MultipartEncoder

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.seg import seg_of_label
from slicecast.errors import InputError
from slicecast.inference.caller import current_caller
from slicecast.inference.queue import QueueSettings
from slicecast.inference.settings import require_few_points
from slicecast.labelling.app import AppBehaviour
from slicecast.server.dependencies import AnyUser, LabellingApp
from slicecast.server.errors import Described, problems
from slicecast.server.security.limits import json_object, received, require_plain_text
from slicecast.server.threads import while_wanted

SPARE_THREADS = 8
"""More threads than places to work and wait, so that a request that finds the queue full is answered at once."""

NAMES = ("client_id", "label_tag")  # Keys of a request that are kept as names

FIXED_KEYS = ("image", "model", "session", "label_file", "description")
"""Keys of a request that come from the address or the server."""


DICOM = "application/dicom"

automatic_router = APIRouter(prefix="/infer", tags=["Infer"])


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
            499: "The client closed the connection",
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
        app: LabellingApp,
        user: AnyUser,
        image: str = "",
        session_id: str = "",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
        output: Output | None = None,
    ) -> Response:
        require_plain_text(model, "model")
        require_id(image)
        if output is Output.dicom_seg:
            require_image_of_studies(image, sent_along=file is not None or bool(session_id))
        checked = await anyio.to_thread.run_sync(checked_params, params, limiter=limiter)
        request = {**checked, "model": model, "image": image}
        name = current_caller().named(request.get("client_id"))
        work = partial(_infer, app, request, session_id=session_id, file=file, label=label)

        def queued(cancelled: Callable[[], bool]) -> Response:
            with app.service.queue.job(name, cancelled=cancelled):
                return answer(work, output, as_seg=partial(_as_seg, app, image=image, user=name))

        return await while_wanted(http, queued, limiter=limiter)

    return router


@automatic_router.post("/", summary="Send an image's pre-annotation", response_class=Response)
def automatic(app: LabellingApp, user: AnyUser, image: str = "", output: Output | None = None) -> Response:
    """Answer with the image's pre-annotation, as an automatic model would."""
    # 3D Slicer sends this after Next Sample when a model declares labels, and reports an error where it fails. Without
    # a pre-annotation the answer is an empty mask, because Slicer cannot read an answer that has no file.
    return answer(partial(app.preannotation, image), output)


def checked_params(text: str) -> dict[str, Any]:
    """Parse `params`.

    Raises:
        InputError: they are no JSON object, hold what belongs into the address, or a name that is too long.
        TooLarge: they hold too many points.
    """
    params = json_object(text or "{}", "params")
    for key in FIXED_KEYS:
        if key in params:
            raise InputError(f"'params' must not hold '{key}'; it belongs into the address.")
    for key in NAMES:
        if isinstance(params.get(key), str):
            require_plain_text(params[key], key)
    label = params.get("label")
    if isinstance(label, str) and (label.startswith(("/", "\\", "~")) or ".." in label.split("/")):
        raise InputError("'label' in 'params' is a path. Give a label's name, or send the file.")
    require_few_points(sum(len(value) for value in params.values() if isinstance(value, list)))
    return params


def require_id(image: str) -> None:
    """Refuse to open a path that a client names; those of uploads are put in by the server.

    Raises:
        InputError: it is a path.
    """
    require_plain_text(image, "image")
    if "/" in image or "\\" in image:
        raise InputError(f"The image '{image}' is a path. Give the id of an image of the studies, or upload the file.")


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


def require_image_of_studies(image: str, *, sent_along: bool) -> None:
    """Refuse what is no series of the studies, before anything is computed.

    Raises:
        InputError: the image is an upload; there are no DICOM images that a segmentation could refer to.
    """
    if sent_along or not image:
        raise InputError(
            "A DICOM SEG refers to the images it was made from, so only an image of the studies can have one. "
            "Name one with 'image', or leave out output=dicom_seg."
        )


def seg_answer(result: dict[str, Any], image: str, catalogue: Catalogue, *, user: str = "") -> Response:
    """Send an infer request's mask as DICOM SEG, one segment for each object that was asked for.

    Args:
        result: what the app answered; its `file` stays.
        image: id of the image, or UID of its series.
        catalogue: knows the series.
        user: who asked.

    Raises:
        InputError: the image is not served as DICOM.
        VolumeError: the series cannot be referred to.
    """
    series = catalogue.of_image(image)
    if series is None:
        raise InputError(f"The image '{image}' is no DICOM series, so it has no DICOM SEG. Ask for output=image.")
    objects = result["params"].get("objects") or {}
    info = {"label_info": [{"name": name, "idx": found["value"]} for name, found in objects.items()], "user": user}
    data, stream = seg_of_label(Path(result["file"]), series, info), BytesIO()
    data.save_as(stream, write_like_original=False)
    headers = {"Content-Disposition": f'attachment; filename="{data.SOPInstanceUID}.dcm"'}
    return Response(stream.getvalue(), media_type=DICOM, headers=headers)


def _infer(
    app: AppBehaviour, request: dict[str, Any], *, session_id: str, file: UploadFile | None, label: UploadFile | None
) -> dict[str, Any]:
    with received(file) as image_path, received(label) as label_path:
        if image_path:
            request["image"] = image_path
        if label_path:
            request["label_file"] = label_path
        sessions = app.sessions()
        session = sessions.get_session(session_id) if session_id and sessions is not None else None
        if session:
            request["image"] = session.image
        return app.answer(request)


def _as_seg(app: AppBehaviour, result: dict[str, Any], *, image: str, user: str) -> Response:
    return seg_answer(result, image, app.datastore().catalogue, user=user)


def _remove(file: str | None) -> None:
    if file:
        Path(file).unlink(missing_ok=True)
