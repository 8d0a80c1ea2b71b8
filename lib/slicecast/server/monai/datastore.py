"""PUT /datastore/label, which also submits to the campaign, and GET /datastore/dataset, which leaves no file behind."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse
from monailabel.config import settings
from starlette.background import BackgroundTask

from slicecast.server.dependencies import Annotator, LabellingApp, Reviewer
from slicecast.server.security.limits import json_object
from slicecast.server.uploads import received

FINAL = "final"

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


@dataset_router.get(
    "/dataset", summary="Download images and final labels as a ZIP archive", response_class=FileResponse
)
def dataset(user: Reviewer, app: LabellingApp, limit_cases: Annotated[int | None, Query(ge=1)] = None) -> FileResponse:
    """Pack and send; the archive is removed once it is sent."""
    archive = Path(app.datastore().get_dataset_archive(limit_cases))
    remove = BackgroundTask(archive.unlink, missing_ok=True)
    return FileResponse(archive, media_type="application/zip", filename="dataset.zip", background=remove)
