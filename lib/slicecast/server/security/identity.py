"""Who asks: what the queue is fair between, and whose sessions are counted."""

from fastapi import Request
from monailabel.config import settings
from monailabel.endpoints.user.auth import User

MAX_LENGTH = 200
"""Of a name that a client gives itself."""


def who(user: User, request: Request, *, client_id: object = None) -> str:
    """Name the user: the one logged in, else the client's own word for itself, else its address.

    Args:
        user: as MONAI Label's login has it; everybody is the same one where logins are off.
        client_id: what OHIF, Slicer and MONAI Label's client send in their params.
    """
    if settings.MONAI_LABEL_AUTH_ENABLE:
        return user.username
    if isinstance(client_id, str) and client_id.strip():
        return client_id.strip()[:MAX_LENGTH]
    return request.client.host if request.client else ""
