"""Labels saved, changed and removed through the campaign, and GET /datastore/dataset, which leaves no file behind."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse
from monailabel.config import settings
from starlette.background import BackgroundTask

from slicecast.server.dependencies import Admin, Annotator, LabellingApp, Reviewer
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


@labels_router.delete("/label", summary="Remove a label")
def remove_label(id: str, tag: str, user: Admin, app: LabellingApp) -> dict[str, Any]:
    """Remove a label; it is kept among the versions. An approved one must be opened again first."""
    app.campaign_service.remove_label(id, tag)
    return {}


@labels_router.put("/updatelabelinfo", include_in_schema=False, deprecated=True)
def update_label_info_as_before(
    label: str, tag: str, user: Reviewer, app: LabellingApp, params: Annotated[str, Form()] = "{}"
) -> None:
    """Change a label's record, under the old address."""
    update_label_info(label, tag, user, app, params)


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
