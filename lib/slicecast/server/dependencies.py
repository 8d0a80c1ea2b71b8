"""What routes are given: the MONAI Label app, typed, and who is logged in, with the role that the route needs."""

from typing import Annotated

from fastapi import Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from slicecast.labelling.app import AppBehaviour


def labelling_app() -> AppBehaviour:
    """Return the app that MONAI Label has loaded; the first call loads it.

    Raises:
        TypeError: the app folder's class is not one of ours.
    """
    app = app_instance()
    if not isinstance(app, AppBehaviour):
        raise TypeError(f"The app {type(app).__name__} does not derive from {AppBehaviour.__name__}. See apps/sam2.")
    return app


async def _provided() -> AppBehaviour:
    """Return the app without a change of thread: it was loaded before the first request."""
    return labelling_app()


LabellingApp = Annotated[AppBehaviour, Depends(_provided)]

AnyUser = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
Annotator = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
Reviewer = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_REVIEWER))]
Admin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]
"""Whoever is logged in with a role; where there are no logins, MONAI Label's user `admin`."""
