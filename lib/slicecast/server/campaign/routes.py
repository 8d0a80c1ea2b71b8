"""The page `/campaign/`: what OHIF has no place for (a queue with reasons, Submit, Skip, review), and its buttons.

Server-rendered; nothing is loaded from elsewhere. A button sends a header that no other web site can send without
being asked first, so that a foreign page cannot press it.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Header
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from slicecast.campaign.state import Status
from slicecast.errors import InputError, NotFound
from slicecast.inference.caller import current_caller
from slicecast.inference.pictures import draw_montage
from slicecast.labelling.app import AppBehaviour
from slicecast.labelling.campaign.service import CampaignService
from slicecast.server.campaign import view
from slicecast.server.dependencies import LabellingApp
from slicecast.server.errors import COMMON, Forbidden, problems
from slicecast.server.html import CAMPAIGN_PAGES, render
from slicecast.volume import choose_axis, read_volume

OURS = "slicecast"  # Value of the header X-Requested-With

CONFLICT = problems({409: "Another user holds the case, or its state does not allow this"})

router = APIRouter(prefix="/campaign", tags=["Campaign"])


class CaseAction(BaseModel):
    """What goes with a button."""

    model_config = ConfigDict(strict=True)

    shown: float | None = Field(default=None, description="submit: that of the draft looked at; refuses a newer one")
    label: str | None = Field(default=None, description="approve, reject, reopen: the label looked at, likewise")
    name: str | None = Field(default=None, description="drop: the structure")
    why: str | None = Field(default=None, description="The reason, or a reviewer's note")
    slice: int | None = Field(default=None, ge=0, description="slice: which one; of a reviewer: where the note belongs")
    axis: str | None = Field(default=None, description="Along which that is counted")

    def judgement(self) -> dict[str, Any]:
        """Return a reviewer's words as the campaign takes them."""
        asked = None if self.slice is None else {"slice": self.slice, "axis": self.axis or "auto"}
        return {"why": self.why or "", "asked": asked, "shown": self.label}


def mount_campaign(app: FastAPI) -> None:
    """Add the page, its buttons and its files."""
    app.mount("/campaign/assets", StaticFiles(directory=CAMPAIGN_PAGES / "assets"), name="campaign-assets")
    app.include_router(router, responses=COMMON | CONFLICT)


@router.get("/", include_in_schema=False, response_class=HTMLResponse)
def overview(app: LabellingApp, status: str = "", find: str = "", page: int = 1) -> str:
    """Show progress, queue, people, agreement and curves."""
    return _render("overview.html", **view.overview(app, status=status, find=find, page=max(page, 1)))


@router.get("/case/{name}", include_in_schema=False, response_class=HTMLResponse)
def case(name: str, app: LabellingApp) -> str:
    """Show one case."""
    return _render("case.html", **view.case_page(app, name))


@router.get("/case/{name}/strip.png", include_in_schema=False)
def montage(name: str, app: LabellingApp) -> Response:
    """Draw slices of the case with its current result."""
    found = app.campaign_service.work.current(name, app.campaign_service.who(name))
    scan = app.service.studies.open(app.image_path(found.record["image"] if found else name))
    picture = draw_montage(scan, None if found is None else read_volume(found.file))
    return Response(picture, media_type="image/png", headers={"Cache-Control": "no-store"})


@router.get("/status", summary="Progress, people and agreement as JSON")
def status_json(app: LabellingApp) -> dict[str, Any]:
    """Say how far the campaign is."""
    return view.status(app.campaign_service.campaign.state())


@router.post("/next", summary="Lease the next case")
def next_case(
    app: LabellingApp,
    body: Annotated[dict[str, Any] | None, Body()] = None,
    x_requested_with: Annotated[str, Header()] = "",
) -> dict[str, Any]:
    """Choose by the campaign's own strategy; `ahead`, a case that it chose before, is taken if it is still free."""
    _require(x_requested_with, "annotator")
    return app.next_sample({"client_id": app.campaign_service.who(), "ahead": (body or {}).get("ahead")})


@router.post("/case/{name}/{action}", summary="Press a button of a case")
def act(
    name: str,
    action: str,
    app: LabellingApp,
    body: CaseAction | None = None,
    x_requested_with: Annotated[str, Header()] = "",
) -> dict[str, Any]:
    """Take, release, heartbeat, submit, drop, back, skip, flag, slice, approve, reject or reopen.

    `back` takes back the last change of your draft; 409 where another holds the case.
    """
    if action not in ACTIONS:
        raise NotFound(f"There is no action '{action}'. Known: {', '.join(ACTIONS)}.")
    role, work = ACTIONS[action]
    _require(x_requested_with, role)
    said = body or CaseAction()
    if said.slice is not None:
        _require_slice(app, name, said.slice, said.axis or "auto")
    return work(app.campaign_service, name, app.campaign_service.who(name), said) or {}


def _require_slice(app: AppBehaviour, case: str, number: int, axis_name: str) -> None:
    turn = app.service.studies.open(app.image_path(case)).reorientation
    axis = choose_axis(turn.geometry, axis_name)
    count = turn.geometry.size_ijk[axis]
    if number >= count:
        raise InputError(
            f"There is no slice {number} in '{case}': its {axis.name.lower()} slices run from 0 to {count - 1}. "
            "Give one of them."
        )


def _take(service: CampaignService, case: str, who: str, said: CaseAction) -> dict[str, Any]:
    service.adopt(case, who)
    lease = service.campaign.take(case, who, address=current_caller().address)
    return {"holder": lease.who, "until_s": lease.until_s}


def _heartbeat(service: CampaignService, case: str, who: str, said: CaseAction) -> dict[str, Any]:
    return {"until_s": service.campaign.heartbeat(case, who).until_s}


def _ask_slice(service: CampaignService, case: str, who: str, said: CaseAction) -> None:
    if said.slice is None:
        raise InputError("'slice' is missing; give its number, a whole one from 0.")
    service.campaign.ask_slice(case, who, number=said.slice, axis=said.axis or "auto")


def _send_back(service: CampaignService, case: str, who: str, said: CaseAction, *, approved: bool = False) -> None:
    service.send_back(case, who, approved=approved, **said.judgement())


Action = Callable[[CampaignService, str, str, CaseAction], dict[str, Any] | None]

ACTIONS: dict[str, tuple[str, Action]] = {
    "take": ("annotator", _take),
    "heartbeat": ("annotator", _heartbeat),
    "release": ("annotator", lambda service, case, who, said: service.campaign.release(case, who)),
    "submit": ("annotator", lambda service, case, who, said: service.submit_draft(case, who, shown=said.shown)),
    "drop": ("annotator", lambda service, case, who, said: service.work.drop(case, who, said.name or "")),
    "back": ("annotator", lambda service, case, who, said: service.work.back(case, who)),
    "skip": ("annotator", lambda service, case, who, said: service.campaign.skip(case, who, why=said.why or "")),
    "flag": ("annotator", lambda service, case, who, said: service.campaign.flag(case, who, why=said.why or "")),
    "slice": ("annotator", _ask_slice),
    "approve": ("reviewer", lambda service, case, who, said: service.approve(case, who, **said.judgement())),
    "reject": ("reviewer", _send_back),
    "reopen": ("reviewer", partial(_send_back, approved=True)),
}
"""What a button does, and which role may press it."""


def _require(requested_with: str, role: str) -> None:
    """Let only our own page and programs press, and only those who may."""
    if requested_with != OURS:
        raise Forbidden(f"Send the header X-Requested-With: {OURS}.")
    if not current_caller().may(role):
        raise Forbidden(f"This needs the role '{role}'. Ask an admin for it.")


def _render(template: str, **content: Any) -> str:
    return render(template, statuses=[str(status) for status in Status], **content)
