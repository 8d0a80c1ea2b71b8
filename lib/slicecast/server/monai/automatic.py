"""POST /infer/ without a model: what 3D Slicer sends after Next Sample when a model declares labels.

Slicer then runs its automatic model, and reports an error to the user where the server has none. The answer to it is
the image's pre-annotation, which Slicer has loaded a moment before; without one, an empty mask, because Slicer cannot
read an answer that has no file.
"""

from functools import partial

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from slicecast.server.monai.infer import Output, answer

router = APIRouter(prefix="/infer", tags=["Infer"])


@router.post("/", summary="Send an image's pre-annotation", response_class=Response)
def automatic(
    image: str = "",
    output: Output | None = None,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)),  # noqa: B008 - FastAPI's way
) -> Response:
    """Answer with the image's pre-annotation, as an automatic model would."""
    return answer(partial(app_instance().preannotation, image), output)
