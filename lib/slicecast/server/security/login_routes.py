"""Logging in: MONAI Label's `/auth/` for 3D Slicer and programs, and a page with a cookie for OHIF and the campaign."""

import math
import time
from html import escape
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User

from slicecast.server.problems import problems
from slicecast.server.security.addresses import is_this_machine
from slicecast.server.security.gate import COOKIE, Access, sent
from slicecast.server.security.logins import Identity

router = APIRouter(
    tags=["Auth"],
    responses=problems(
        {
            401: "The name, token or password is wrong, or nobody is logged in",
            403: "The page that you came from may not do this",
            422: "The request cannot be used; the detail says why",
            429: "Too many wrong logins; wait as long as `Retry-After` says",
        }
    ),
)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Slicecast: log in</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:22rem;margin:4rem auto;padding:0 1rem}}
label{{display:block;margin:.8rem 0 .2rem}}input{{width:100%;padding:.4rem;box-sizing:border-box}}
button{{margin-top:1.2rem;padding:.5rem 1rem}}.wrong{{color:#a00}}</style></head><body>
<h1>Slicecast</h1>{message}
<form method="post" action="login">
<label for="username">Name</label><input id="username" name="username" autocomplete="username" required autofocus>
<label for="password">Token or password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<input type="hidden" name="next" value="{wanted}">
<button>Log in</button></form></body></html>
"""

Word = Annotated[str, Form(max_length=4096)]


def the_access(request: Request) -> Access:
    """Return the application's rules of access."""
    access: Access = request.app.state.access
    return access


AccessOf = Annotated[Access, Depends(the_access)]


@router.get("/auth/", summary="Say whether logins are needed")
def auth_enabled(access: AccessOf) -> dict[str, Any]:
    """Answer as MONAI Label does; Slicer asks for a name and password where `enabled` is true."""
    auth = access.settings
    return {"enabled": access.closed, "client_id": auth.oidc_client_id, "realm": auth.oidc_issuer}


@router.post("/auth/token", summary="Log in and get a bearer token")
async def auth_token(request: Request, access: AccessOf, username: Word = "", password: Word = "") -> dict[str, Any]:
    """Return a token for the header `Authorization: Bearer`; it counts until it expires or the server restarts."""
    if not access.closed:
        return {"access_token": None, "token_type": None}
    identity = await _log_in(request, access, username, password)
    left = max(int(identity.expires - time.time()), 0)
    return {"access_token": access.logins.open(identity), "token_type": "bearer", "expires_in": left}


@router.get("/auth/token/valid", summary="Say who is logged in")
def valid_token(user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]) -> dict[str, Any]:
    """Return the user of the token that came with the request."""
    return user.model_dump()


@router.get("/login", include_in_schema=False, response_class=HTMLResponse)
def login_page(next: str = "/") -> str:
    """Ask for a name and token."""
    return _page(next)


@router.post("/login", include_in_schema=False)
async def login(
    request: Request, access: AccessOf, username: Word = "", password: Word = "", next: Word = "/"
) -> Response:
    """Set the cookie and go where the user wanted to go."""
    if not access.closed:
        return RedirectResponse(own_address(next, request), status_code=303)
    try:
        identity = await _log_in(request, access, username, password)
    except HTTPException as error:
        return HTMLResponse(_page(next, wrong=error.detail), error.status_code, headers=error.headers)
    answer = RedirectResponse(own_address(next, request), status_code=303)
    answer.set_cookie(
        COOKIE,
        access.logins.open(identity),
        max_age=max(int(identity.expires - time.time()), 0),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path=request.scope.get("root_path") or "/",
    )
    return answer


@router.post("/logout", include_in_schema=False)
def logout(request: Request, access: AccessOf) -> Response:
    """End the login."""
    access.logins.close(sent(request) or "")
    answer = RedirectResponse(f"{request.scope.get('root_path', '')}/login", status_code=303)
    answer.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/")
    return answer


def own_address(wanted: str, request: Request) -> str:
    """Return `wanted` if it is a path of this server, else the start page."""
    plain = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if plain else f"{request.scope.get('root_path', '')}/"


async def _log_in(request: Request, access: Access, name: str, password: str) -> Identity:
    """Return who logs in.

    Raises:
        HTTPException: 401, name and password do not belong together; 429, it was tried too often.
    """
    client = request.client.host if request.client else ""
    keys = (f"user {name[:200].lower()}", *(() if is_this_machine(client) else (f"address {client}",)))
    wait = access.throttle.wait_s(*keys)
    if wait > 0:
        detail = f"Too many wrong logins. Wait {math.ceil(wait)} seconds."
        raise HTTPException(429, detail=detail, headers={"Retry-After": str(math.ceil(wait))})
    identity = await anyio.to_thread.run_sync(access.log_in, name, password)
    if identity is None:
        access.throttle.failed(*keys)
        detail = "Name and token do not belong together, or the token has expired."
        raise HTTPException(401, detail=detail, headers={"WWW-Authenticate": "Bearer"})
    access.throttle.succeeded(keys[0])
    return identity


def _page(wanted: str, *, wrong: str = "") -> str:
    message = f'<p class="wrong">{escape(wrong)}</p>' if wrong else ""
    return PAGE.format(message=message, wanted=escape(wanted[:2000], quote=True))
