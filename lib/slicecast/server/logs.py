"""`/logs/`: the last lines of the log, for administrators. MONAI Label's page loads scripts from the network."""

import subprocess
from collections import deque
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.responses import PlainTextResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User

router = APIRouter(prefix="/logs", tags=["Others"], default_response_class=PlainTextResponse)

Admin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]


@router.get("/", summary="See the last lines of the log")
def logs(user: Admin, lines: Annotated[int, Query(ge=1, le=10_000)] = 300) -> str:
    """Return the last lines."""
    file = Path(settings.MONAI_LABEL_APP_DIR) / "logs" / "app.log"
    if not file.is_file():
        raise HTTPException(404, detail="There is no log; the server was not started by MONAI Label's command line.")
    with file.open(encoding="utf-8", errors="replace") as stream:
        return "".join(deque(stream, lines))


@router.get("/gpu", summary="See what nvidia-smi says")
def gpu(user: Admin) -> str:
    """Return the output of nvidia-smi."""
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HTTPException(404, detail="There is no nvidia-smi on this machine, hence no NVIDIA GPU.") from error
