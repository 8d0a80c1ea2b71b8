"""The routes of nnInteractive's protocol: the server address that its plugins are given is `http://HOST:8000/nninteractive`.

JSON comes as JSON. An array is the body, and what goes with it JSON in the header `X-Meta`, in requests and in answers.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from slicecast.engine.session import Item
from slicecast.engine.session_prompts import Grid
from slicecast.errors import InputError, UnknownModel
from slicecast.inference.caller import Caller, current_caller
from slicecast.labelling.app import AppBehaviour
from slicecast.models.registry import load_registry
from slicecast.server.dependencies import LabellingApp
from slicecast.server.errors import problems
from slicecast.server.nninteractive import prompts
from slicecast.server.nninteractive.images import checked_spacing
from slicecast.server.nninteractive.prompts import announced, unpack
from slicecast.server.nninteractive.work import (
    NOTHING,
    OBJECT,
    Annotation,
    Answer,
    ClientLease,
    Gone,
    NnInteractiveService,
    annotation_of,
    require_shape,
)
from slicecast.server.security.limits import json_object, require_plain_text
from slicecast.server.threads import while_wanted
from slicecast.volume.headers import MAX_VOXELS

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

ROOT = "/nninteractive"
META = "X-Meta"
VERSION = "2"  # Of the session's Python interface that a client imitates

WHY = {
    403: "The lease is another user's",
    409: "No image was sent yet, or the session is carried out elsewhere",
    410: "The lease has ended; claim another one and send the image again",
    413: "The array is too large",
    422: "The request cannot be used; the detail says why",
    503: "All places are taken, or the queue is full",
}

router = APIRouter(tags=["nnInteractive"], responses=problems(WHY))

Index = Annotated[float, Field(ge=-(1 << 31), lt=1 << 31)]


class Asked(BaseModel):
    """What most prompts have in common; keys of later clients are passed over."""

    include_interaction: bool = Field(True, description="On the object, or off it")
    run_prediction: bool = Field(True, description="Answer with the mask, not only when /predict asks for it")


class PointAsked(Asked):
    """A click, along the axes of the image as it was sent."""

    coordinates: tuple[Index, Index, Index]


class BoxAsked(Asked):
    """A box, half-open, along the axes of the image as it was sent."""

    bbox_coords: tuple[tuple[Index, Index], tuple[Index, Index], tuple[Index, Index]]


class MaskAsked(Asked):
    """What goes with a scribble, lasso or initial segmentation: the bounds that its array fills, or None for all."""

    interaction_bbox: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None


class SeedAsked(BaseModel):
    """What goes with an initial segmentation."""

    run_prediction: bool = False


class ImageAsked(BaseModel):
    """What goes with an image."""

    image_properties: dict[str, Any] = {}


class BufferAsked(BaseModel):
    """The array in which a client keeps the mask."""

    shape: list[int] = Field(max_length=4)


class Claimed(BaseModel):
    """A lease."""

    lease_token: str = Field(description="Send it as X-Lease-Token")
    idle_timeout_seconds: float
    liveness_timeout_seconds: float
    max_sessions: int


class LeaseLeft(BaseModel):
    """How long a lease lasts if its holder does nothing."""

    remaining_seconds: float
    idle_timeout_seconds: float


class ImageTaken(BaseModel):
    """An image that was sent."""

    original_image_shape: list[int]
    image: str | None = Field(description="Its id, where it is one of the studies")


class Capabilities(BaseModel):
    """What the plugins may offer; they grey out what is false."""

    supported_interactions: dict[str, bool]
    channel_mapping: dict[str, list[int]]
    num_interaction_channels: int
    supports_initial_label: bool
    supports_zero_shot_label_refinement: bool
    preferred_scribble_thickness: list[int]
    interaction_decay: float
    inference_session_version: str
    license: str
    supports_undo: bool
    do_autozoom: bool


def the_service(request: Request) -> NnInteractiveService:
    """Return what carries out the requests."""
    service: NnInteractiveService = request.app.state.nninteractive
    return service


def running_model(request: Request, app: LabellingApp) -> str:
    """Return the model that the address names, else the server's own; raises UnknownModel if it runs no such one."""
    own = app.service.model_name
    asked: str = request.path_params.get("model", own)
    if asked != own and asked not in app.volumetric:
        runs = ", ".join((own, *app.volumetric))
        raise UnknownModel(f"This server runs {runs}, not '{asked[:100]}'. Use {ROOT} or {ROOT}/{own}.")
    return asked


def asked_label(request: Request) -> str:
    """Return what the address calls the object; raises InputError for what cannot be a name."""
    label: str = request.path_params.get("label", OBJECT)
    require_plain_text(label, "label")
    return label


def sent_meta(meta: Annotated[str, Header(alias=META, max_length=100_000)] = "{}") -> str:
    """Return what goes with an array."""
    return meta


ServiceOf = Annotated[NnInteractiveService, Depends(the_service)]
ModelOf = Annotated[str, Depends(running_model)]
LabelOf = Annotated[str, Depends(asked_label)]
CallerOf = Annotated[Caller, Depends(current_caller)]
Token = Annotated[str, Header(alias="X-Lease-Token", max_length=200)]
Meta = Annotated[str, Depends(sent_meta)]


@router.get("/healthz", summary="Say that the server is there")
def healthz() -> dict[str, str]:
    """Answer to everybody who may use the server."""
    return {"status": "ok"}


@router.get("/capabilities", summary="Say what is offered")
def capabilities(model: ModelOf) -> Capabilities:
    """Everything but a choice of zoom, which the engine makes itself."""
    spec = load_registry().get(model)
    kinds = ("points", "bbox2d", "bbox3d", "scribble", "lasso")
    return Capabilities(
        supported_interactions=dict.fromkeys(kinds, True),
        channel_mapping={kind: [2 * n + 1, 2 * n + 2] for n, kind in enumerate(kinds)} | {"prev_seg": [0, 0]},
        num_interaction_channels=2 * len(kinds) + 1,
        supports_initial_label=True,
        supports_zero_shot_label_refinement=True,
        preferred_scribble_thickness=[2, 2, 2],
        interaction_decay=1.0,
        inference_session_version=VERSION,
        license=f"{model}: {spec.licence if spec else 'see its source'}",
        supports_undo=True,
        do_autozoom=True,
    )


@router.post("/claim", summary="Take a place")
def claim(service: ServiceOf, caller: CallerOf) -> Claimed:
    """Take one of the server's places; /release gives it back."""
    lease = service.leases.claim(caller.user, caller.named())
    return Claimed(
        lease_token=lease.token,
        idle_timeout_seconds=service.settings.idle_s,
        liveness_timeout_seconds=service.settings.alive_s,
        max_sessions=service.settings.leases,
    )


@dataclass(frozen=True, slots=True)
class LeasedRequest:
    """A request of somebody who holds a lease."""

    http: Request
    service: ServiceOf
    caller: CallerOf
    token: Token

    def lease(self, *, acting: bool = True) -> AbstractContextManager[ClientLease]:
        """Use the lease for as long as the block lasts; see `Leases.using`."""
        return self.service.leases.using(self.token, self.caller.user, acting=acting)

    def left(self) -> LeaseLeft:
        """Say how long the lease lasts."""
        with self.lease(acting=False) as lease:
            seconds = self.service.leases.left_s(lease)
        return LeaseLeft(remaining_seconds=seconds, idle_timeout_seconds=self.service.settings.idle_s)

    async def run(self, work: Callable[[ClientLease, Gone], T]) -> T:
        """Run work in a thread while the lease is held, one request of a lease at a time."""
        await self.http.body()  # before the connection is watched

        def held(gone: Gone) -> T:
            with self.lease() as lease, lease.guard:
                return work(lease, gone)

        return await while_wanted(self.http, held, limiter=self.service.limiter)

    async def answered(self, work: Callable[[Annotation, Gone], Answer]) -> Response:
        """Run work on the lease's image, and send what it changed."""

        def packed(lease: ClientLease, gone: Gone) -> Response:
            answer = work(annotation_of(lease), gone)
            return Response(answer.body(), media_type="application/octet-stream", headers={META: answer.meta()})

        return await self.run(packed)

    async def prompted(self, asked: Asked, make: Callable[[Annotation, Grid], list[Item]]) -> Response:
        """Add a prompt, and send what it changed if that is asked for."""

        def work(annotation: Annotation, gone: Gone) -> Answer:
            self.service.add(annotation, lambda grid: make(annotation, grid))
            return self.service.predict(annotation, gone=gone) if asked.run_prediction else NOTHING

        return await self.answered(work)

    async def drawn(self, meta: str, *, filled: bool) -> Response:
        """Add a scribble or, `filled`, a lasso."""
        body, asked = await self.http.body(), _checked(meta, MaskAsked)

        def make(annotation: Annotation, grid: Grid) -> list[Item]:
            bounds = asked.interaction_bbox or tuple((0, size) for size in annotation.shape)
            if any(not 0 <= low < high <= size for (low, high), size in zip(bounds, annotation.shape, strict=True)):
                raise InputError(f"The bounds {bounds} do not lie within the image of shape {annotation.shape}.")
            mask = _mask(body, tuple(high - low for low, high in bounds))
            axes = annotation.image.axes
            return prompts.region(
                axes.to_stored(mask), axes.range_kji(bounds), grid, positive=asked.include_interaction, filled=filled
            )

        return await self.prompted(asked, make)


ClientOf = Annotated[LeasedRequest, Depends()]


@router.post("/release", summary="Give the place back")
def release(client: ClientOf) -> dict[str, str]:
    """End the lease; an upload is removed, the session closed, its log kept."""
    with client.lease() as lease, lease.guard:
        client.service.leases.release(lease)
    return {"status": "released"}


@router.post("/heartbeat", summary="Give a sign of life")
def heartbeat(client: ClientOf) -> LeaseLeft:
    """Keep the lease from ending as that of a client that is gone; it still ends when nothing is done."""
    return client.left()


@router.get("/lease_status", summary="Say how long the lease lasts")
def lease_status(client: ClientOf) -> LeaseLeft:
    """Say it without making it longer."""
    return client.left()


@router.post("/set_image", summary="Send the image")
async def set_image(client: ClientOf, app: LabellingApp, model: ModelOf, label: LabelOf, meta: Meta) -> ImageTaken:
    """Take an array [channel, x, y, z] of one channel; the studies are searched for it."""
    body, service = await client.http.body(), client.service

    def work(lease: ClientLease, gone: Gone) -> ImageTaken:
        asked = _checked(meta, ImageAsked)
        array = _image(body, service.settings.unpacked_mb << 20)
        spacing = checked_spacing(asked.image_properties.get("spacing"))
        image = service.begin(lease, array, spacing, _images(app), model=model, label=label)
        return ImageTaken(original_image_shape=[1, *array.shape], image=None if image.uploaded else image.image_id)

    return await client.run(work)


@router.post("/set_target_buffer", summary="Say how the mask is kept")
async def set_target_buffer(asked: BufferAsked, client: ClientOf) -> dict[str, str]:
    """Begin with an empty mask of the image's shape."""

    def work(lease: ClientLease, gone: Gone) -> dict[str, str]:
        annotation = annotation_of(lease)
        require_shape(asked.shape, annotation.shape, "The target buffer")
        annotation.show(None)
        return {"status": "ok"}

    return await client.run(work)


@router.post("/set_do_autozoom", summary="Is of no effect")
def set_do_autozoom(client: ClientOf) -> dict[str, str]:
    """Accept what the plugins always send; the engine chooses its own window (decision 4)."""
    with client.lease():
        return {"status": "ok"}


@router.post("/reset_interactions", summary="Discard all prompts")
async def reset_interactions(client: ClientOf) -> dict[str, str]:
    """Begin the next object, or this one again."""

    def work(lease: ClientLease, gone: Gone) -> dict[str, str]:
        client.service.reset(annotation_of(lease))
        return {"status": "ok"}

    return await client.run(work)


@router.post("/undo", summary="Take back the last prompt", response_class=Response)
async def undo(client: ClientOf) -> Response:
    """As often as there are prompts since the last reset."""
    return await client.answered(lambda annotation, gone: client.service.undo(annotation, gone=gone))


@router.post("/predict", summary="Carry out the prompts that wait", response_class=Response)
async def predict(client: ClientOf) -> Response:
    """Carry out all prompts, and what an earlier answer had no time for."""
    return await client.answered(lambda annotation, gone: client.service.predict(annotation, gone=gone))


@router.post("/add_point_interaction", summary="Click", response_class=Response)
async def add_point(asked: PointAsked, client: ClientOf) -> Response:
    """Click on the object or off it."""

    def make(annotation: Annotation, grid: Grid) -> list[Item]:
        places, shape = [round(value) for value in asked.coordinates], annotation.shape
        if any(not 0 <= place < size for place, size in zip(places, shape, strict=True)):
            raise InputError(f"The point {places} lies outside the image of shape {shape}. Click inside it.")
        k, j, i = (low for low, _ in annotation.image.axes.range_kji([(place, place + 1) for place in places]))
        return prompts.point((i, j, k), positive=asked.include_interaction)

    return await client.prompted(asked, make)


@router.post("/add_bbox_interaction", summary="Draw a box", response_class=Response)
async def add_bbox(asked: BoxAsked, client: ClientOf) -> Response:
    """Draw a box on a slice or in space."""

    def make(annotation: Annotation, grid: Grid) -> list[Item]:
        bounds = annotation.image.axes.range_kji(_bounds(asked.bbox_coords, annotation.shape))
        return prompts.box(bounds, grid, positive=asked.include_interaction)

    return await client.prompted(asked, make)


@router.post("/add_scribble_interaction", summary="Scribble", response_class=Response)
async def add_scribble(client: ClientOf, meta: Meta) -> Response:
    """Scribble on the object or off it."""
    return await client.drawn(meta, filled=False)


@router.post("/add_lasso_interaction", summary="Draw a lasso", response_class=Response)
async def add_lasso(client: ClientOf, meta: Meta) -> Response:
    """Draw around the object, or around what is not part of it."""
    return await client.drawn(meta, filled=True)


@router.post("/add_initial_seg_interaction", summary="Start from a mask", response_class=Response)
async def add_initial_seg(client: ClientOf, meta: Meta) -> Response:
    """Start from a mask of the whole image: its slices stand until a prompt near them frees them."""
    body, service = await client.http.body(), client.service

    def work(annotation: Annotation, gone: Gone) -> Answer:
        asked = _checked(meta, SeedAsked)
        mask = _mask(body, annotation.shape)
        service.seed(annotation, annotation.image.axes.to_stored(mask), gone=gone)
        return service.predict(annotation, gone=gone) if asked.run_prediction else NOTHING

    return await client.answered(work)


def mount_nninteractive(app: FastAPI) -> None:
    """Add the routes, also below a model's name, and below that and a label's."""
    needs = [Depends(running_model), Depends(asked_label)]
    app.include_router(router, prefix=ROOT, dependencies=needs)
    for named in ("{model}", "{model}/{label}"):
        app.include_router(router, prefix=f"{ROOT}/{named}", dependencies=needs, include_in_schema=False)


def _images(app: AppBehaviour) -> Iterator[tuple[str, Path]]:
    """Yield the images of the studies that lie on this machine."""
    store = app.datastore()
    for image_id in store.at_hand():
        yield image_id, Path(store.scan_path(image_id))


def _image(body: bytes, most_bytes: int) -> NDArray:
    """Return the volume of a sent image."""
    shape = announced(body).shape
    if len(shape) != 4 or shape[0] != 1:
        raise InputError(f"An image of shape {shape} was sent. Send one channel, as [1, x, y, z].")
    if np.prod(shape, dtype=object) > MAX_VOXELS:
        most_bytes = 0
    array: NDArray = unpack(body, most_bytes=most_bytes)[0]
    return array


def _mask(body: bytes, wanted: tuple[int, ...]) -> NDArray[np.bool_]:
    head = announced(body)
    require_shape(head.shape, wanted, "The mask")
    return unpack(body, most_bytes=head.nbytes) != 0


def _bounds(asked: tuple[tuple[float, float], ...], shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return a box's half-open bounds, clipped to the image."""
    found = []
    for (start, stop), size in zip(asked, shape, strict=True):
        low, high = sorted((round(start), round(stop)))
        low, high = max(low, 0), min(max(high, low + 1), size)
        if low >= high:
            raise InputError(f"The box {asked} lies outside the image of shape {shape}. Draw it on the image.")
        found.append((low, high))
    return found


def _checked(meta: str, model: type[Model]) -> Model:
    """Read the header that goes with an array."""
    try:
        return model.model_validate(json_object(meta, META))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"The header {META} does not fit: {place}: {first['msg']}. See /docs.") from error
