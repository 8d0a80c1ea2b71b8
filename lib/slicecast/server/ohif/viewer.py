"""OHIF, as MONAI Label's wheel brings it.

MONAI Label's own route sends the start page in place of every file in a folder, and leaves the panel's address field
at port 8000 of the host. Here files are found, nothing outside the viewer's folder is sent, and the panel starts with
this server's address. The start page also loads scripts of ours, which show what there is of a case already, and a
bar with the case above the viewer.
"""

import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from monailabel.endpoints import ohif as stock

from slicecast.errors import NotFound
from slicecast.server.campaign import view
from slicecast.server.dependencies import AnyUser, LabellingApp
from slicecast.server.security.limits import require_plain_text
from slicecast.volume.grid import onto_grid

SCRIPTS = {file.name: file for file in (Path(__file__).parent / "pages").glob("*.js")}
"""Of ours; the first to be loaded is `slicecast.js`."""
VIEWER = Path(stock.__file__).resolve().parent / "static" / "ohif"
ADDRESS_COOKIE = "MONAILABEL_SERVER_URL"
"""Where the panel keeps the address of the labelling server; browsers share it between the ports of a host."""

router = APIRouter(prefix="/ohif", tags=["Others"])


@router.get("/label/{series}", include_in_schema=False)
def current_label(series: str, app: LabellingApp, user: AnyUser) -> Response:
    """Send what there is of a case: uint8 voxels in the viewer's order, i fastest, and each name's value; else 204."""
    service = app.campaign_service
    case = service.case_of(series)
    found = service.work.current(case, service.who(case))
    if found is None:
        return Response(status_code=204)
    now = service.work.structures(found)
    shown = app.service.studies.open(app.image_path(series)).reorientation.source
    voxels = gzip.compress(onto_grid(now.mask, shown).array.tobytes(), compresslevel=1)
    headers = {
        "Content-Encoding": "gzip",
        "X-Slicecast-Labels": json.dumps(dict(now.values)),
        "Cache-Control": "no-store",
    }
    return Response(voxels, media_type="application/octet-stream", headers=headers)


@router.get("/case/{series}", include_in_schema=False)
def case(series: str, app: LabellingApp, user: AnyUser) -> dict[str, Any]:
    """Say what the bar above the viewer shows of a case; `next_slice` has the viewer's number too, where it has one."""
    known = view.case_page(app, app.campaign_service.case_of(series))
    suggested = known["next_slice"] or {}
    number = known["in_viewer"].get(suggested.get("slice"))
    return {
        "name": known["case"]["name"],
        "holder": "" if known["mine"] else known["case"]["holder"],
        "next_slice": {**suggested, "number": number} if number is not None else None,
        **{key: known[key] for key in ("objects", "submit", "shown", "good_enough", "mine")},
    }


@router.get("/open/{case}", include_in_schema=False)
def open_case(case: str, app: LabellingApp, user: AnyUser) -> Response:
    """Lead to a case in the viewer; where the viewer cannot open it, to its page."""
    service = app.campaign_service
    return RedirectResponse(view.ohif_link(service, case) or f"/campaign/case/{quote(case, safe='')}", status_code=303)


@router.get("/{path:path}", include_in_schema=False)
def viewer(path: str, request: Request, user: AnyUser) -> Response:
    """Send a file of the viewer, or its start page for one of the viewer's own addresses."""
    if path in SCRIPTS:
        return FileResponse(SCRIPTS[path], headers={"Cache-Control": "no-cache"})
    file = viewer_file(path)
    if file.name != "index.html":
        return FileResponse(file)
    address = f"{request.scope.get('root_path', '').rstrip('/')}/ohif/slicecast.js"
    script = f'<script type="module" src="{address}"></script>'
    answer = HTMLResponse(file.read_text(encoding="utf-8").replace("</head>", f"{script}</head>"))
    answer.set_cookie(ADDRESS_COOKIE, quote(str(request.base_url), safe=""), path="/ohif", samesite="strict")
    return answer


def is_from_viewer(request: Request) -> bool:
    """Tell whether a page of the viewer asks: a browser names the page to its own server."""
    before = request.scope.get("root_path", "").rstrip("/")
    return urlsplit(request.headers.get("referer", "")).path.startswith(f"{before}/ohif/")


def viewer_file(path: str) -> Path:
    """Return the file that an address below `/ohif/` means.

    Raises:
        NotFound: it means a file that is not there.
        InputError: no file could be called so.
    """
    require_plain_text(path, "path")
    file = (VIEWER / path).resolve()
    if file.is_relative_to(VIEWER) and file.is_file():
        return file
    start = VIEWER / "index.html"
    if Path(path).suffix[1:].isalpha() or not start.is_file():
        raise NotFound(f"The viewer has no file '{path}'.")
    return start
