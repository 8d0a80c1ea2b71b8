"""DICOMweb over a folder: search (QIDO-RS), retrieve (WADO-RS and -URI) and store segmentations (STOW-RS).

So OHIF needs no DICOM server. It is answered where its configuration looks for one, below `/proxy/dicom/`, and every
other client at `/dicom-web`. Where `--studies` is a DICOM server itself, none of these routes match.
"""

import errno
import logging
from collections.abc import Callable, Coroutine, Sequence
from email.message import Message
from fnmatch import fnmatchcase
from io import BytesIO
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from monailabel.config import settings
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from requests_toolbelt.multipart import decoder
from starlette.routing import Match
from starlette.types import Scope

from slicecast.databases import is_disk_full
from slicecast.dicom import web
from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.series import Series
from slicecast.dicom.web import bulk_value, frame_type, header_json, read_frames, render
from slicecast.errors import InputError, NotFound, SlicecastError, TooLarge, VolumeError
from slicecast.labelling.store.stow import NO_ROOM
from slicecast.server.dependencies import Annotator, LabellingApp, Needs
from slicecast.server.errors import NotAcceptable
from slicecast.server.settings import server_settings
from slicecast.volume.dicom import DAMAGED

logger = logging.getLogger(__name__)

PREFIXES = ("/dicom-web", "/proxy/dicom/qido", "/proxy/dicom/wado", "/proxy/dicom/stow", "/proxy/dicom")
"""The first is for people; OHIF's configuration names the others."""

DICOM = "application/dicom"
BYTES = "application/octet-stream"


JSON = "application/json"
DICOM_JSON = "application/dicom+json"


class FolderRoute(APIRoute):
    """A route that exists only where the studies are a folder; it refuses to send what a client does not accept."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match nothing where the studies are a DICOM server: the proxy is to answer."""
        if settings.MONAI_LABEL_STUDIES.startswith(("http://", "https://")):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Refuse files that are damaged with a sentence; pydicom notices only when a value is looked at."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                found = await handler(request)
                if request.method == "GET":
                    require_accepted(request.headers.get("accept", ""), found.headers.get("content-type", ""))
                return found
            except SlicecastError:
                raise
            except DAMAGED as error:
                if is_disk_full(error):
                    raise
                logger.warning("An instance cannot be sent: it is damaged", exc_info=True)
                raise VolumeError("This instance is damaged and cannot be sent. Export its file again.") from error

        return answer


def require_accepted(accept: str, given: str) -> None:
    """Refuse to send what a client does not accept.

    Args:
        accept: the header; empty accepts everything, `application/json` DICOM JSON. A type inside multipart/related
            counts where it is named, but for `application/octet-stream`, with which viewers ask for frames of any kind.
        given: the answer's content type.

    Raises:
        NotAcceptable: nothing of it fits.
    """
    kind, named = _media(given)
    kinds = {kind, JSON} if kind == DICOM_JSON else {kind}
    for entry in filter(None, map(str.strip, accept.split(","))):
        wanted, inner = _media(entry)
        if not any(fnmatchcase(one, wanted) for one in kinds):
            continue
        if inner in ("", BYTES) or not named or fnmatchcase(named, inner):
            return
    if accept.strip():
        raise NotAcceptable(f"This is sent as {named or kind}, which 'Accept: {accept[:100]}' leaves out.")


def _media(text: str) -> tuple[str, str]:
    """Return a media type without parameters, and the type inside a message of parts, lower case."""
    message = Message()
    message["Content-Type"] = text
    inner = message.get_param("type")
    return text.partition(";")[0].strip().lower(), inner.lower() if isinstance(inner, str) else ""


def _catalogue(app: LabellingApp) -> Catalogue:
    return app.datastore().catalogue


Files = Annotated[Catalogue, Depends(_catalogue)]
SERIES = "/studies/{study}/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"

reading = APIRouter(route_class=FolderRoute, dependencies=[Depends(Needs(settings.MONAI_LABEL_AUTH_ROLE_USER))])


@reading.get("/studies", summary="Search studies")
def search_studies(request: Request, files: Files) -> Response:
    """Search studies (QIDO-RS)."""
    return _found(web.studies(files.all(), _root(request)), request)


@reading.get("/series", summary="Search series")
def search_all_series(request: Request, files: Files) -> Response:
    """Search the series of all studies (QIDO-RS)."""
    return _found(web.series_of(files.all(), _root(request)), request)


@reading.get("/studies/{study}/series", summary="Search the series of a study")
def search_series(study: str, request: Request, files: Files) -> Response:
    """Search the series of a study (QIDO-RS)."""
    return _found(web.series_of(files.of_study(study), _root(request)), request)


@reading.get("/studies/{study}/instances", summary="Search the instances of a study")
def search_study_instances(study: str, request: Request, files: Files) -> Response:
    """Search the instances of a study (QIDO-RS)."""
    return _found(list(web.instances_of(files.of_study(study), _root(request))), request)


@reading.get(SERIES + "/instances", summary="Search the instances of a series")
def search_instances(study: str, series: str, request: Request, files: Files) -> Response:
    """Search the instances of a series (QIDO-RS)."""
    return _found(list(web.instances_of([_series(files, study, series)], _root(request))), request)


@reading.get("/studies/{study}/metadata", summary="Headers of a study")
def study_metadata(study: str, request: Request, files: Files) -> Response:
    """Return the headers of a study's instances."""
    return _headers(files.of_study(study), request)


@reading.get(SERIES + "/metadata", summary="Headers of a series")
def series_metadata(study: str, series: str, request: Request, files: Files) -> Response:
    """Return the headers of a series' instances."""
    return _headers([_series(files, study, series)], request)


@reading.get(INSTANCE + "/metadata", summary="Header of an instance")
def instance_metadata(study: str, series: str, instance: str, request: Request, files: Files) -> Response:
    """Return an instance's header."""
    data = _instance(files, study, series, instance, pixels=False)
    return _json([header_json(data, f"{_root(request)}/studies/{study}/series/{series}/instances/{instance}")])


@reading.get("/studies/{study}", summary="All instances of a study")
def study_instances(study: str, files: Files) -> Response:
    """Return the instances of a study."""
    return _instances(files.of_study(study))


@reading.get(SERIES, summary="All instances of a series")
def series_instances(study: str, series: str, files: Files) -> Response:
    """Return the instances of a series."""
    return _instances([_series(files, study, series)])


@reading.get(INSTANCE, summary="One instance")
def one_instance(study: str, series: str, instance: str, files: Files) -> Response:
    """Return an instance."""
    data = _instance(files, study, series, instance)
    return related([(encoded(data), DICOM)], kind=DICOM)


@reading.get(INSTANCE + "/frames/{numbers}", summary="Frames of an instance")
def instance_frames(study: str, series: str, instance: str, numbers: str, files: Files) -> Response:
    """Return frames, counted from 1 and separated by commas, compressed as they are stored."""
    asked = numbers.split(",")
    if not all(number.isdecimal() and len(number) < 10 for number in asked):
        raise InputError(f"The frames '{numbers[:40]}' are no whole numbers separated by commas, such as 1,2.")
    if len(set(asked)) < len(asked):  # one frame, asked for until memory ends
        raise InputError(f"Of the frames '{numbers[:40]}' some are there twice. Ask for each once.")
    data = _instance(files, study, series, instance)
    kind = frame_type(data.file_meta.TransferSyntaxUID)
    parts = read_frames(data, [int(number) for number in asked])
    return related([(part, kind) for part in parts], kind=kind.partition(";")[0])


@reading.get(INSTANCE + "/bulkdata/{tag}", summary="A large value of an instance")
def bulk_data(study: str, series: str, instance: str, tag: str, files: Files) -> Response:
    """Return one value of bytes, named by its tag."""
    value = bulk_value(_instance(files, study, series, instance), tag)
    return related([(value, BYTES)], kind=BYTES)


@reading.get(INSTANCE + "/rendered", summary="A picture of an instance")
@reading.get(INSTANCE + "/thumbnail", summary="A small picture of an instance", include_in_schema=False)
def rendered(study: str, series: str, instance: str, files: Files) -> Response:
    """Return an instance's first frame as a JPEG picture, in its window."""
    return Response(render(_instance(files, study, series, instance)), media_type="image/jpeg")


@reading.get("", include_in_schema=False)
def wado_uri(request: Request, files: Files) -> Response:
    """Answer WADO-URI, the older way to ask for one instance."""
    asked = request.query_params
    if asked.get("requestType", "").upper() != "WADO":
        raise NotFound("Nothing is here but WADO-URI; ask for /studies.")
    if asked.get("contentType"):
        require_accepted(asked["contentType"], DICOM)
    data = _instance(files, asked.get("studyUID", ""), asked.get("seriesUID", ""), asked.get("objectUID", ""))
    return Response(encoded(data), media_type=DICOM)


storing = APIRouter(route_class=FolderRoute)


@storing.post("/studies", summary="Store segmentations")
@storing.post("/studies/{study}", summary="Store segmentations of a study", include_in_schema=False)
async def store(request: Request, user: Annotator, app: LabellingApp, study: str = "") -> Response:
    """Store DICOM SEG objects (STOW-RS); nothing is ever replaced."""
    limit, content = server_settings().proxy.body_mb << 20, bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise TooLarge(f"At most {limit >> 20} MiB are taken. Send fewer instances at a time.")
    parts = unpacked(bytes(content), request.headers.get("content-type", ""))
    outcome = await run_in_threadpool(app.store_segmentations, parts, study=study)
    if not outcome.stored and NO_ROOM in [reason for _, reason in outcome.refused]:
        raise OSError(errno.ENOSPC, "no room for a segmentation")
    status = 200 if not outcome.refused else 202 if outcome.stored else 409
    return _json(outcome.answer(_root(request)).to_json_dict(), status=status)


def dicomweb_router() -> APIRouter:
    """Return all routes, at every address where they are looked for."""
    whole = APIRouter(tags=["DICOM"])
    for prefix in PREFIXES:
        for part in (reading, storing):
            whole.include_router(part, prefix=prefix, include_in_schema=prefix == PREFIXES[0])
    return whole


def related(contents: Sequence[tuple[bytes, str]], *, kind: str) -> Response:
    """Pack parts, each with its content type; `kind` is the type of the whole."""
    boundary = uuid4().hex
    pieces = []
    for content, content_type in contents:
        head = f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
        pieces += [head.encode(), content, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return Response(
        b"".join(pieces), headers={"Content-Type": f'multipart/related; type="{kind}"; boundary={boundary}'}
    )


def unpacked(content: bytes, content_type: str) -> list[bytes]:
    """Unpack a message of parts; raises InputError if it is none, or holds no part."""
    if not content_type.lower().startswith("multipart/"):
        raise InputError(f"The content is '{content_type[:60]}'; send multipart/related with parts of {DICOM}.")
    try:
        found = [part.content for part in decoder.MultipartDecoder(content, content_type).parts]
    except (
        decoder.ImproperBodyPartContentException,
        decoder.NonMultipartContentTypeException,
        AttributeError,
    ) as error:
        raise InputError(f"The message cannot be split into its parts ({error}). Say its boundary.") from error
    if not found:
        raise InputError("The message has no part. Send at least one instance.")
    return found


def encoded(data: Dataset) -> bytes:
    """Write an instance as a DICOM file."""
    stream = BytesIO()
    dcmwrite(stream, data, write_like_original=False)
    return stream.getvalue()


def _found(found: list[Dataset], request: Request) -> Response:
    return _json([data.to_json_dict() for data in web.select(found, request.query_params.multi_items())])


def _headers(all_series: list[Series], request: Request) -> Response:
    root, found = _root(request), []
    for series in all_series:
        address = f"{root}/studies/{series.summary.StudyInstanceUID}/series/{series.uid}/instances"
        headers = ((uid, series.read(uid, pixels=False)) for uid in series.sop_uids)
        found += [header_json(data, f"{address}/{uid}") for uid, data in headers]
    return _json(found)


def _instances(all_series: list[Series]) -> Response:
    contents = (encoded(series.read(uid)) for series in all_series for uid in series.sop_uids)
    return related([(content, DICOM) for content in contents], kind=DICOM)


def _series(files: Catalogue, study: str, series: str) -> Series:
    found = files.find(series)
    if found.summary.StudyInstanceUID != study:
        raise NotFound(f"The study {study[:64]} has no series {series[:64]}.")
    return found


def _instance(files: Catalogue, study: str, series: str, instance: str, *, pixels: bool = True) -> Dataset:
    _series(files, study, series)
    found = files.instance(series, instance)
    return found.series.read(found.sop_uid, pixels=pixels)


def _root(request: Request) -> str:
    """Return the address under which this request's DICOMweb server answers."""
    before = settings.MONAI_LABEL_API_STR
    prefix = PREFIXES[0] if request.url.path.startswith(f"{before}{PREFIXES[0]}/") else "/proxy/dicom/wado"
    return f"{str(request.base_url).rstrip('/')}{before}{prefix}"


def _json(content: Any, *, status: int = 200) -> Response:
    return JSONResponse(content, status_code=status, media_type=DICOM_JSON)
