"""What complaints are about beside the way to the server: model, memory, disk, limits. `slicecast doctor` reads it."""

import shutil
from pathlib import Path

import psutil
import torch
from fastapi import APIRouter
from monailabel.config import settings
from pydantic import BaseModel, Field

from slicecast.models.devices import choose_device
from slicecast.server.dependencies import LabellingApp
from slicecast.server.settings import server_settings

router = APIRouter(prefix="/slicecast", tags=["Others"])


class Health(BaseModel):
    """How much room a server has, and what it accepts; sizes in MiB."""

    model: str
    device: str
    device_mb: int = Field(description="Free memory of the device; of the machine, where a processor computes")
    disk_mb: int = Field(description="Free where labels and sessions are kept; the lesser of the two")
    image_mb: int = Field(description="Largest image that may be uploaded")
    sessions_each: int = Field(description="Sessions that one user may have open")


@router.get("/health", summary="Say how much room there is, and what is accepted")
def health(app: LabellingApp) -> Health:
    """Say how much room there is, and what is accepted."""
    device, limits = choose_device(app.config.device), server_settings()
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    places = [place for place in (app.studies, settings.MONAI_LABEL_APP_DIR) if Path(place).is_dir()]
    return Health(
        model=app.service.model_name,
        device=str(device),
        device_mb=free >> 20,
        disk_mb=min(shutil.disk_usage(place).free for place in places) >> 20,
        image_mb=limits.limits.upload_mb,
        sessions_each=limits.sessions.per_user,
    )
