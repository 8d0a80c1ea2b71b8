"""POST /infer/ without a model: what 3D Slicer sends after Next Sample when a model declares labels.

Slicer then runs its automatic model, and reports an error to the user if the server has none. The answer to it is no
mask, only the names of the structures, which Slicer lists as empty segments where they are missing.
"""

from typing import Any

from fastapi import APIRouter, Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from slicecast.errors import UnknownImage
from slicecast.monai.request import number_labels

router = APIRouter(prefix="/infer", tags=["Infer"])


@router.post("/", summary="Segment an image automatically")
def automatic(
    image: str = "",
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)),  # noqa: B008 - FastAPI's way
) -> dict[str, Any]:
    """Answer that there is no automatic model."""
    app = app_instance()
    if image not in app.datastore().list_images():
        raise UnknownImage(f"There is no image '{image}' in the studies. Ask for the list of images again.")
    warning = "There is no automatic model. Place points and choose one of the interactive models."
    return {"label_names": number_labels(app.config.labels, app.config.labels), "warnings": [warning]}
