"""The page `/campaign/`: what OHIF has no place for (a queue with reasons, Submit, Skip, review), and its buttons.

Server-rendered; nothing is loaded from elsewhere. A button sends a header that no other web site can send without
being asked first, so that a foreign page cannot press it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import APIRouter, Body, FastAPI, Header, HTTPException
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from monailabel.interfaces.utils.app import app_instance

from slicecast.campaign.state import Status
from slicecast.errors import SlicecastError
from slicecast.inference.caller import current_caller
from slicecast.inference.status import http_status
from slicecast.inference.strip import draw_strip
from slicecast.server.campaign import view
from slicecast.server.problems import COMMON, problems
from slicecast.volume import read_volume

PAGES = Path(__file__).parent / "pages"
OURS = "slicecast"
"""Value of the header X-Requested-With."""

CONFLICT = problems({409: "Somebody else holds the case, or it is not in a state for this"})

router = APIRouter(prefix="/campaign", tags=["Campaign"])


def mount_campaign(app: FastAPI) -> None:
    """Add the page, its buttons and its files."""
    app.mount("/campaign/assets", StaticFiles(directory=PAGES / "assets"), name="campaign-assets")
    app.include_router(router, responses=COMMON | CONFLICT)


@router.get("/", include_in_schema=False, response_class=HTMLResponse)
def overview(status: str = "", find: str = "", page: int = 1) -> str:
    """Show progress, queue, people, agreement and curves."""
    app = app_instance()
    return _render("overview.html", **view.overview(app, status=status, find=find, page=max(page, 1)))


@router.get("/case/{name}", include_in_schema=False, response_class=HTMLResponse)
def case(name: str) -> str:
    """Show one case."""
    with_errors = _answering(lambda: view.case_page(app_instance(), name))
    return _render("case.html", **with_errors)


@router.get("/case/{name}/strip.png", include_in_schema=False)
def strip(name: str) -> Response:
    """Draw the case's current result."""
    app = app_instance()

    def draw() -> bytes:
        mask, record = view.current_mask(app.campaign_service, name, app.campaign_service.who(name))
        image = app.image_path(record.get("image", name))
        shown = None if mask is None else read_volume(mask)
        return draw_strip(app.service.studies.open(image), shown)

    return Response(_answering(draw), media_type="image/png", headers={"Cache-Control": "no-store"})


@router.get("/status", summary="Progress, people and agreement as JSON")
def status_json() -> dict[str, Any]:
    """Say how far the campaign is."""
    return view.status(app_instance().campaign_service.campaign.state())


@router.post("/next", summary="Lease the next case to whoever asks")
def next_case(x_requested_with: Annotated[str, Header()] = "") -> dict[str, Any]:
    """Choose by the campaign's own strategy."""
    _require(x_requested_with, "annotator")
    app = app_instance()
    return app.next_sample({"client_id": app.campaign_service.who()}) or {}


@router.post("/case/{name}/{action}", summary="Press a button of a case")
def act(
    name: str,
    action: str,
    body: Annotated[dict[str, Any] | None, Body()] = None,
    x_requested_with: Annotated[str, Header()] = "",
) -> dict[str, Any]:
    """Take, release, heartbeat, submit, skip, flag, approve, reject, or ask for a slice; 409 if another holds it."""
    if action not in ACTIONS:
        raise HTTPException(404, detail=f"There is no action '{action}'. Known: {', '.join(ACTIONS)}.")
    role, work = ACTIONS[action]
    _require(x_requested_with, role)
    desk = app_instance().campaign_service
    return _answering(lambda: work(desk, name, desk.who(name), body or {})) or {}


def _take(desk: Any, case: str, who: str, body: dict[str, Any]) -> dict[str, Any]:
    desk.adopt(case, who)
    lease = desk.campaign.take(case, who, address=current_caller().address)
    return {"holder": lease.who, "until_s": lease.until_s}


def _heartbeat(desk: Any, case: str, who: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"until_s": desk.campaign.heartbeat(case, who).until_s}


def _ask_slice(desk: Any, case: str, who: str, body: dict[str, Any]) -> None:
    number = body.get("slice")
    if not isinstance(number, int) or number < 0:
        raise HTTPException(422, detail=f"'slice' is {json.dumps(number)}; give a whole number from 0.")
    desk.campaign.ask_slice(case, who, number=number, axis=str(body.get("axis") or "auto"))


Action = Callable[[Any, str, str, dict[str, Any]], dict[str, Any] | None]

ACTIONS: dict[str, tuple[str, Action]] = {
    "take": ("annotator", _take),
    "heartbeat": ("annotator", _heartbeat),
    "release": ("annotator", lambda desk, case, who, body: desk.campaign.release(case, who)),
    "submit": ("annotator", lambda desk, case, who, body: desk.submit_draft(case, who)),
    "skip": ("annotator", lambda desk, case, who, body: desk.campaign.skip(case, who, why=_why(body))),
    "flag": ("annotator", lambda desk, case, who, body: desk.campaign.flag(case, who, why=_why(body))),
    "slice": ("annotator", _ask_slice),
    "approve": ("reviewer", lambda desk, case, who, body: desk.campaign.approve(case, who)),
    "reject": ("reviewer", lambda desk, case, who, body: desk.campaign.reject(case, who, why=_why(body))),
}
"""What a button does, and which role may press it."""


def _why(body: dict[str, Any]) -> str:
    return str(body.get("why") or "")


def _require(requested_with: str, role: str) -> None:
    """Let only our own page and programs press, and only those who may."""
    if requested_with != OURS:
        raise HTTPException(403, detail=f"Send the header X-Requested-With: {OURS}.")
    if not current_caller().may(role):
        raise HTTPException(403, detail=f"This needs the role '{role}'. Ask an admin for it.")


def _answering(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except SlicecastError as error:
        raise HTTPException(http_status(error), detail=str(error)) from error


def _render(template: str, **content: Any) -> str:
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGES), autoescape=True, undefined=jinja2.StrictUndefined)
    return pages.get_template(template).render(statuses=[str(s) for s in Status], **content)
