"""PUT /datastore/label: MONAI Label's contract, with the campaign told."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, UploadFile
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from slicecast.errors import SlicecastError
from slicecast.inference.status import http_status
from slicecast.server.threads import json_object
from slicecast.server.uploads import received

FINAL = "final"

router = APIRouter(prefix="/datastore", tags=["Datastore"])


@router.put("/label", summary="Save a finished label")
def save_label(
    image: str,
    label: Annotated[UploadFile, File()],
    params: Annotated[str, Form()] = "{}",
    tag: str = FINAL,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)),  # noqa: B008 - FastAPI's way
) -> dict[str, Any]:
    """Save a label; under the tag `final` it is submitted to the campaign."""
    info, app = json_object(params or "{}", "params"), app_instance()
    client = user.username if settings.MONAI_LABEL_AUTH_ENABLE else None
    try:
        with received(label) as file:
            saved = app.campaign_service.save(image, Path(str(file)), tag=tag or FINAL, info=info, client_id=client)
    except SlicecastError as error:
        raise HTTPException(http_status(error), detail=str(error)) from error
    return {**(app.on_save_label(image, saved["label"]) or {}), **saved}
