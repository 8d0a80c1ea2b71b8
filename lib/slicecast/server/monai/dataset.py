"""GET /datastore/dataset: images and final labels as one archive, which MONAI Label would leave on the disk."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from starlette.background import BackgroundTask

router = APIRouter(prefix="/datastore", tags=["Datastore"])


@router.get("/dataset", summary="Download images and final labels as a ZIP archive", response_class=FileResponse)
def dataset(
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_REVIEWER))],
    limit_cases: Annotated[int | None, Query(ge=1)] = None,
) -> FileResponse:
    """Pack and send; the archive is removed once it is sent."""
    archive = Path(app_instance().datastore().get_dataset_archive(limit_cases))
    remove = BackgroundTask(archive.unlink, missing_ok=True)
    return FileResponse(archive, media_type="application/zip", filename="dataset.zip", background=remove)
