"""The application that `slicecast serve` gives to uvicorn: MONAI Label's routes around the same app.

monailabel start_server --app apps/sam2 --studies DIR --uvicorn_app slicecast.server.app:app
"""

import logging
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import torch
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from monailabel import app as stock
from monailabel.config import settings
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

import slicecast
from slicecast.inference.caller import current_caller
from slicecast.inference.sessions import Sessions
from slicecast.inference.volumetric import Segmenter
from slicecast.models.devices import choose_device
from slicecast.server.annotate.routes import mount_annotate
from slicecast.server.campaign.routes import mount_campaign
from slicecast.server.dependencies import LabellingApp, labelling_app
from slicecast.server.errors import COMMON, HANDLERS, as_json
from slicecast.server.html import PAGES, render
from slicecast.server.metrics import CountRequests, Metrics
from slicecast.server.monai.infer import SPARE_THREADS, automatic_router, infer_router
from slicecast.server.monai.routes import (
    batch_router,
    dataset_router,
    datastore_routers,
    labels_router,
    logs_router,
    task_routers,
    train_router,
)
from slicecast.server.nninteractive.routes import mount_nninteractive
from slicecast.server.nninteractive.work import NnInteractiveService
from slicecast.server.ohif.dicomweb import dicomweb_router
from slicecast.server.ohif.proxy import proxy_lifespan
from slicecast.server.ohif.proxy import router as proxy_router
from slicecast.server.ohif.viewer import router as ohif_router
from slicecast.server.security.gate import secure
from slicecast.server.security.logins import router as login_router
from slicecast.server.sessions.propagation import SessionContext
from slicecast.server.sessions.routes import router as sessions_router
from slicecast.server.settings import server_settings

logger = logging.getLogger(__name__)

own = APIRouter()

MANUAL = Path(__file__).parent / "manual"  # the documentation as a site, where `make docs` has built it

DOCS_FILES = "/docs/files"

SESSIONS_FOLDER = "sessions"  # In the app's folder: the logs of sessions; see `slicecast.inference.sessions`


@own.get("/healthz", tags=["Others"])
async def healthz() -> dict[str, str]:
    """Say that the server is alive; never waits for work."""
    return {"status": "ok", "version": slicecast.__version__}


class Health(BaseModel):
    """How much room a server has, and what it accepts; sizes in MiB."""

    model: str
    device: str
    device_mb: int = Field(description="Free memory of the device; of the machine, where a processor computes")
    disk_mb: int = Field(description="Free where labels and sessions are kept; the lesser of the two")
    image_mb: int = Field(description="Largest image that may be uploaded")
    sessions_each: int = Field(description="Sessions that one user may have open")


@own.get(
    "/slicecast/health", tags=["Others"], summary="Say how much room there is, and what is accepted", responses=COMMON
)
def health(app: LabellingApp) -> Health:
    """Say how much room there is, and what is accepted."""
    device, limits = choose_device(app.config.device), server_settings()
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    places = [place for place in (app.studies, settings.MONAI_LABEL_APP_DIR) if Path(place).is_dir()]
    return Health(
        model=app.service.model_name,
        device=str(device),
        device_mb=free >> 20,
        disk_mb=min(shutil.disk_usage(place).free for place in places) >> 20,
        image_mb=limits.limits.upload_mb,
        sessions_each=limits.sessions.per_user,
    )


@own.get("/metrics", tags=["Others"], response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Show requests, queues, slices, cache and memory in Prometheus' text format."""
    text = generate_latest(request.app.state.metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@own.get("/", include_in_schema=False, response_class=HTMLResponse)
def landing(request: Request, app: LabellingApp) -> str:
    """Say what is served and where to go."""
    user, url = current_caller().user, str(request.base_url).rstrip("/")
    return render(
        "landing.html", info=app.info(), model=app.service.model_name, url=url, user=user, manual=MANUAL.is_dir()
    )


@own.get("/favicon.ico", include_in_schema=False)
def favicon() -> FileResponse:
    """Send MONAI Label's icon."""
    return FileResponse(Path(stock.static_dir) / "favicon.ico")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Build the MONAI Label app before the first request."""
    async with proxy_lifespan(app, server_settings().proxy):
        labelling = labelling_app()
        labelling.server_mode(True)
        labelling.on_init_complete()
        app.state.unlisted_series = labelling.unlisted_series
        app.state.service = labelling.service
        app.state.sessions = _session_context(app, labelling.volumetric)
        app.state.nninteractive = _nninteractive(app)
        logger.info("Slicecast %s is ready", slicecast.__version__)
        ranker, batch = labelling.background_ranker, labelling.batch_inference
        with (
            labelling.alone,
            labelling.service.running(prepare=app.state.prepare),
            ranker.running(),
            batch.running(),
            app.state.nninteractive.running(),
        ):
            yield
        labelling.service.close()


def _session_context(app: FastAPI, volumetric: Mapping[str, Segmenter]) -> SessionContext:
    limits, service, locate = server_settings(), app.state.service, labelling_app().image_path
    folder = Path(settings.MONAI_LABEL_APP_DIR) / SESSIONS_FOLDER
    threads = anyio.CapacityLimiter(limits.queue.jobs + limits.queue.waiting + SPARE_THREADS)
    return SessionContext(
        Sessions(service, folder, others=volumetric, locate=locate),
        service,
        limits.sessions,
        app.state.metrics,
        threads,
    )


def _nninteractive(app: FastAPI) -> NnInteractiveService:
    folder = Path(settings.MONAI_LABEL_APP_DIR) / "cache" / "nninteractive"
    chosen = server_settings().nninteractive
    return NnInteractiveService(app.state.sessions, folder, chosen, keep_draft=labelling_app().keep_draft)


def create_app(*, prepare: bool = False) -> FastAPI:
    """Build the application.

    Args:
        prepare: load the model when the server starts, not at the first click.
    """
    app = FastAPIOffline(  # FastAPI with the scripts of /docs from this server, because a hospital may be offline
        title="Slicecast",
        version=slicecast.__version__,
        lifespan=lifespan,
        exception_handlers=HANDLERS,
        static_url=DOCS_FILES,
    )
    describe = app.openapi
    app.openapi = lambda: as_json(describe())  # type: ignore[method-assign] # FastAPI's way
    app.state.service, app.state.prepare = None, prepare
    app.state.metrics = Metrics.of(lambda: app.state.service)
    secure(app, server_settings())
    app.add_middleware(CountRequests, metrics=app.state.metrics)
    app.mount("/assets", StaticFiles(directory=PAGES / "assets"), name="assets")
    app.mount("/static", StaticFiles(directory=stock.static_dir), name="static")
    app.include_router(own)
    app.include_router(login_router)
    app.include_router(sessions_router, responses=COMMON)
    if (MANUAL / "index.html").is_file():
        app.mount("/manual", StaticFiles(directory=MANUAL, html=True), name="manual")
    mount_campaign(app)
    mount_nninteractive(app)
    mount_annotate(app)
    for router in _monailabel_routers():
        app.include_router(router, prefix=settings.MONAI_LABEL_API_STR, responses=COMMON)
    return app


def _monailabel_routers() -> list[APIRouter]:
    return [
        infer_router(server_settings().queue),
        automatic_router,
        labels_router,
        dataset_router,
        *datastore_routers(),
        batch_router,
        train_router,
        logs_router,
        ohif_router,
        dicomweb_router(),
        proxy_router,
        *task_routers(),
    ]


app = create_app(prepare=True)
