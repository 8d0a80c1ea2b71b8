"""The annotation page's own routes: its files, the scan as one file, and what is known of its case."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from slicecast.errors import NotFound
from slicecast.inference.caller import current_caller
from slicecast.labelling.strategies import Candidates
from slicecast.server.campaign import view
from slicecast.server.dependencies import AnyUser, LabellingApp
from slicecast.server.errors import COMMON
from slicecast.server.sessions.routes import session_context
from slicecast.volume import SliceAxis, Volume, choose_axis, read_volume, window_names, write_volume
from slicecast.volume.grid import onto_grid
from slicecast.volume.reading import without_folders

HERE = Path(__file__).parent
VIEWER = HERE / "node_modules" / "@niivue" / "niivue" / "dist" / "index.js"

NOT_KEPT = {"Cache-Control": "no-store"}
"""A browser writes nothing of it to its disk, and shows nothing of it after a log-out when somebody goes back."""

router = APIRouter(prefix="/annotate", tags=["Annotation page"])


def mount_annotate(app: FastAPI) -> None:
    """Add the page and its files."""
    app.include_router(router, responses=COMMON)
    app.mount("/annotate/page", StaticFiles(directory=HERE / "page"), name="annotate-page")


@router.get("/", include_in_schema=False)
def page(user: AnyUser) -> FileResponse:
    """Send the page; `?image=` names the image, without it the next case is taken."""
    return FileResponse(HERE / "page" / "index.html", headers=NOT_KEPT)


@router.get("", include_in_schema=False)
def page_without_slash(user: AnyUser) -> RedirectResponse:
    """Lead to the page."""
    return RedirectResponse("annotate/")


@router.get("/page/niivue.js", include_in_schema=False)
def viewer(user: AnyUser) -> FileResponse:
    """Send NiiVue, which npm put there at set-up."""
    if not VIEWER.is_file():
        raise NotFound(
            "The viewer NiiVue is not installed. Run `make install`, or `npm ci` in lib/slicecast/server/annotate."
        )
    return FileResponse(VIEWER, media_type="text/javascript", headers={"Cache-Control": "max-age=86400"})


@router.get("/next", summary="Say which case would probably come next")
def coming(app: LabellingApp, user: AnyUser) -> dict[str, str | None]:
    """Return the case that the campaign would choose now; it stays free, so that its scan can be loaded ahead."""
    service, strategy = app.campaign_service, app.own_strategy()
    service.sync()
    state, now_s = service.campaign.state(), service.campaign.now_s()
    held = {case.name for case in state.cases.values() if case.lease and case.lease.live(now_s)}
    free = [choice.case for choice in service.queue(strategy) if choice.case not in held]
    answer = strategy({}, Candidates(app.datastore(), free)) if free else None
    return {"image": answer and answer["id"]}


@router.get("/case", summary="Say what is known of an image's case")
def case(image: str, request: Request, app: LabellingApp, user: AnyUser) -> dict[str, Any]:
    """Return its name, why it was chosen, the slice and axis `asked` for by a person, the caller, and known labels.

    Also how it stands, what of it can be looked at (`masks`, along `axis`), whether the caller may judge it, the
    next case that waits for a reviewer, and what a session may be opened with (`choices`).
    """
    study = app.service.studies.open(app.image_path(image))
    service = app.campaign_service
    service.sync()
    name = service.case_of(image)
    state = service.campaign.state()
    known, who = state.case(name), service.who(name)
    masks = service.work.shown(name, who)
    axes = [found.record["axis"].lower() for found in masks.values() if found.record.get("axis")]

    def along(axis: str) -> str:
        return choose_axis(study.volume.geometry, axis).name.lower()

    return {
        "name": name,
        "title": service.title(name),
        "reason": known.note or (known.lease.reason if known.lease else ""),
        "asked": known.asked and {"slice": known.asked["slice"], "axis": along(known.asked.get("axis") or "auto")},
        "owner": current_caller().named(),
        "labels": list(app.config.labels),
        "choices": {
            "axis": [axis.name.lower() for axis in SliceAxis],
            "window": list(window_names()),
            "model": session_context(request).sessions.others,
        },
        "masks": list(masks),
        "axis": axes[0] if axes else along("auto"),
        **view.judging(service, known, who),
        "to_review": next((one.name for one in view.waiting(state) if one.name != name), None),
    }


@router.get("/mask.nii", summary="Get one mask of an image's case", response_class=Response)
def mask(image: str, title: str, app: LabellingApp, user: AnyUser) -> Response:
    """Get one of the case's `masks` on the image's grid.

    The header `X-Slicecast-Labels` (JSON) says which value is whose.

    Raises:
        NotFound: there is none of that title.
    """
    service, path = app.campaign_service, app.image_path(image)
    name = service.case_of(image)
    found = service.work.shown(name, service.who(name)).get(title)
    if found is None:
        raise NotFound(f"There is no '{title}' of '{name}', or not any more. Load the page again.")
    now = service.work.structures(found)
    there = onto_grid(now.mask, app.service.studies.open(path).reorientation.source)
    return _nifti(there, {"X-Slicecast-Labels": json.dumps(dict(now.values))})


@router.get("/scan.nii", summary="Get an image as one NIfTI file", response_class=Response)
def scan(image: str, app: LabellingApp, user: AnyUser) -> Response:
    """Get an image of the studies, a DICOM series too, on the grid on which prompts are counted."""
    path = app.image_path(image)
    with without_folders(path):
        return _nifti(read_volume(path))


def _nifti(volume: Volume, headers: Mapping[str, str] | None = None) -> Response:
    with tempfile.TemporaryDirectory() as folder:
        content = write_volume(Path(folder) / "scan.nii", volume).read_bytes()
    return Response(content, media_type="application/octet-stream", headers={**NOT_KEPT, **(headers or {})})
