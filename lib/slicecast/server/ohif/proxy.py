"""`/proxy/dicom/...`: passes OHIF's requests on to the DICOM server.

MONAI Label's own proxy blocks the server, drops the query, and holds whole studies in memory. This one streams both
ways, keeps the query, passes only the headers that matter, and answers errors with a sentence. Labels that were
replaced are left out of lists of series and instances.
"""

import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import anyio
import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from monailabel.config import settings

from slicecast.errors import InputError, NotFound, QueueFull, TooLarge
from slicecast.server.dependencies import AnyUser
from slicecast.server.errors import DicomServerFailed, DicomServerSilent, problems
from slicecast.server.settings import ProxySettings

logger = logging.getLogger(__name__)

SENT = ("accept", "accept-encoding", "content-type", "content-length", "range", "if-none-match", "if-modified-since")
"""Headers that go to the DICOM server; a user's cookies and tokens are not its business."""

RETURNED = (
    *("content-type", "content-length", "content-encoding", "content-disposition", "content-range", "content-location"),
    *(
        "accept-ranges",
        "etag",
        "last-modified",
        "cache-control",
        "expires",
        "vary",
        "warning",
        "location",
        "retry-after",
    ),
)
"""Headers that come back."""

SAFE = "/:@!$&'()*+,;=~"  # Characters of a path that stay as they are

LISTS = re.compile(r"(^|/)(series|instances)/?$")
"""Paths of lists."""
SERIES_UID = "0020000E"

router = APIRouter(prefix="/proxy", tags=["DICOM"])


@asynccontextmanager
async def proxy_lifespan(app: FastAPI, limits: ProxySettings) -> AsyncIterator[None]:
    """Hold the connections to the DICOM server for as long as the application runs."""
    async with httpx.AsyncClient(
        timeout=settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT,
        limits=httpx.Limits(max_connections=limits.connections),
        auth=_basic_auth(),
    ) as client:
        app.state.dicom_client, app.state.dicom_body_bytes = client, limits.body_mb << 20
        app.state.unlisted_series = frozenset
        yield


RESPONSES = problems(
    {
        404: "The studies are no DICOM server",
        413: "The request is larger than is passed on",
        422: "The path leads out of the DICOM server's",
        502: "The DICOM server cannot be reached, or refused our credentials",
        503: "All connections to it are in use",
        504: "It did not answer in time",
    }
)


@router.get("/dicom/{path:path}", summary="Ask the DICOM server", responses=RESPONSES, response_class=Response)
@router.post("/dicom/{path:path}", summary="Store on the DICOM server", responses=RESPONSES, response_class=Response)
async def proxy(path: str, request: Request, user: AnyUser) -> Response:
    """Stream to and from the DICOM server that `--studies` names.

    Paths begin with `qido/`, `wado/` or `stow/`, which MONAI Label's prefixes replace, or are taken as they are.
    """
    client: httpx.AsyncClient = request.app.state.dicom_client
    target = target_url(settings.MONAI_LABEL_STUDIES, path, query=request.url.query)
    headers = {name: request.headers[name] for name in SENT if name in request.headers}
    headers.setdefault("accept-encoding", "identity")  # httpx would ask for more than the browser can read
    hidden = request.app.state.unlisted_series() if LISTS.search(path) else frozenset()
    if hidden:
        headers["accept-encoding"] = "identity"  # the list is read here, where not all is decoded that browsers decode
    body = _body(request, limit=request.app.state.dicom_body_bytes) if request.method == "POST" else None
    message = client.build_request(request.method, target, headers=headers, content=body)
    answer = await _send(client, message)
    if hidden and answer.status_code == 200 and "json" in answer.headers.get("content-type", ""):
        return await _listed(answer, hidden)
    kept = {name: value for name, value in answer.headers.items() if name in RETURNED}
    return StreamingResponse(_chunks(answer), answer.status_code, headers={**kept, "X-Accel-Buffering": "no"})


def target_url(studies: str, path: str, *, query: str) -> httpx.URL:
    """Return the address on the DICOM server.

    Raises:
        NotFound: the studies are no DICOM server.
        InputError: the path leads out of it.
    """
    if not studies.startswith(("http://", "https://")):
        raise NotFound("The studies are a folder; only those of a DICOMweb server can be passed on.")
    if {".", ".."} & set(path.split("/")):
        raise InputError(f"The path '{path}' holds '.' or '..'. Write it out.")
    address = f"{studies.rstrip('/')}/{quote(_prefixed(path), safe=SAFE)}"
    return httpx.URL(address, query=query.encode()) if query else httpx.URL(address)


def _prefixed(path: str) -> str:
    """Replace qido, wado or stow by the prefix that is set for it."""
    prefixes = {
        "qido": settings.MONAI_LABEL_QIDO_PREFIX,
        "wado": settings.MONAI_LABEL_WADO_PREFIX,
        "stow": settings.MONAI_LABEL_STOW_PREFIX,
    }
    word, slash, rest = path.partition("/")
    if not slash or word not in prefixes:
        return path
    word = "wado" if rest.endswith("metadata") and word == "qido" else word  # some versions of OHIF mean that
    return f"{prefixes[word].strip('/')}/{rest}" if prefixes[word] else rest


async def _send(client: httpx.AsyncClient, message: httpx.Request) -> httpx.Response:
    host = message.url.host
    try:
        answer = await client.send(message, stream=True)
    except httpx.PoolTimeout as error:
        raise QueueFull("All connections to the DICOM server are in use. Try again in a few seconds.") from error
    except httpx.TimeoutException as error:
        remedy = f"See whether it is busy, or raise {TIMEOUT_SETTING}."
        raise DicomServerSilent(f"The DICOM server {host} did not answer in time. {remedy}") from error
    except httpx.HTTPError as error:
        remedy = "See whether it runs and --studies is right."
        raise DicomServerFailed(f"The DICOM server {host} cannot be reached ({error}). {remedy}") from error
    if answer.status_code == 401:
        await answer.aclose()
        raise DicomServerFailed(f"The DICOM server {host} refused our credentials. Set {LOGIN_SETTINGS}.")
    return answer


TIMEOUT_SETTING = "MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT"
LOGIN_SETTINGS = "MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD"


async def _listed(answer: httpx.Response, hidden: frozenset[str]) -> Response:
    """Return a list of series or instances without those of some series.

    Raises:
        DicomServerFailed: it is no list that can be read.
    """
    try:
        rows = json.loads(await answer.aread() or "[]")
        shown = [row for row in rows if not hidden.intersection(row.get(SERIES_UID, {}).get("Value") or ())]
    except (httpx.HTTPError, ValueError, TypeError, AttributeError) as error:
        logger.warning("The DICOM server's list cannot be read", exc_info=True)
        raise DicomServerFailed(
            f"The DICOM server {answer.url.host} sent a list that cannot be read ({error}). See its log."
        ) from error
    finally:
        await answer.aclose()
    return Response(json.dumps(shown), media_type="application/dicom+json")


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the answer as it comes; breaking off in the middle tells the browser that it is not whole."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.HTTPError as error:
        logger.warning("The DICOM server broke off an answer: %s", error or type(error).__name__)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await answer.aclose()


async def _body(request: Request, *, limit: int) -> AsyncIterator[bytes]:
    """Yield the request as it comes; raises TooLarge if it is larger than accepted."""
    claimed, sent = request.headers.get("content-length", ""), 0
    async for chunk in request.stream():
        sent += len(chunk)
        if sent > limit or (claimed.isdecimal() and int(claimed) > limit):
            raise TooLarge(f"At most {limit >> 20} MiB are passed on. Send fewer instances at a time.")
        yield chunk


def _basic_auth() -> httpx.BasicAuth | None:
    name, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    return httpx.BasicAuth(name, password) if name and password else None
