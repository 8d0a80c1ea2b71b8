"""What routes are given: the MONAI Label app, typed, and who is logged in, with the role that the route needs."""

from typing import Annotated

from fastapi import Depends, Request, Security
from monailabel.config import settings
from monailabel.endpoints.user.auth import DEFAULT_USER, RBAC, User
from monailabel.interfaces.utils.app import app_instance

from slicecast.labelling.app import AppBehaviour

USER = "slicecast.user"  # Where a request's scope holds who is logged in


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


def current_user(request: Request) -> User:
    """Return who is logged in; where nobody logs in, MONAI Label's user `admin`, as without Slicecast."""
    found: User = request.scope.get(USER, DEFAULT_USER)
    return found


class Needs(RBAC):
    """MONAI Label's check of a role, of the user that the gate let in.

    FastAPI's `dependency_overrides` would do the same, and analyse the route again at every request; that takes
    time, and is not safe while other threads touch Python's list of warnings.
    """

    async def __call__(self, user: User = Security(current_user)) -> User:  # noqa: B008 # FastAPI's way
        """Return the user, if they have the role."""
        return await super().__call__(user)


AnyUser = Annotated[User, Depends(Needs(settings.MONAI_LABEL_AUTH_ROLE_USER))]
Annotator = Annotated[User, Depends(Needs(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
Reviewer = Annotated[User, Depends(Needs(settings.MONAI_LABEL_AUTH_ROLE_REVIEWER))]
Admin = Annotated[User, Depends(Needs(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]
"""Whoever is logged in with a role; where there are no logins, MONAI Label's user `admin`."""
