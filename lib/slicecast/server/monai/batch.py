"""`/batch/infer`: MONAI Label's batch inference, in this process."""

from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Body

from slicecast.errors import NotFound
from slicecast.labelling.batch import BatchRequest
from slicecast.server.dependencies import Admin, AnyUser, LabellingApp
from slicecast.server.monai.stock import check_model

batch_router = APIRouter(prefix="/batch", tags=["Infer"])


class ImageChoice(StrEnum):
    """Which images to answer."""

    all = "all"
    labeled = "labeled"
    unlabeled = "unlabeled"


@batch_router.get("/infer/", include_in_schema=False)
@batch_router.get("/infer", summary="See how far batch inference is")
def batch_state(user: AnyUser, app: LabellingApp, all: bool = False, check_if_running: bool = False) -> Any:
    """Return the latest batch, or all; with `check_if_running` only one that runs."""
    batches = app.batch_inference.batches()
    if check_if_running:
        batches = tuple(batch for batch in batches if batch.status == "RUNNING")
    if not batches:
        raise NotFound("No batch inference is running." if check_if_running else "There was no batch inference yet.")
    return [batch.described() for batch in batches] if all else batches[-1].described()


@batch_router.post("/infer/{model}", summary="Pre-annotate many images")
def run_batch(
    model: str,
    user: Admin,
    app: LabellingApp,
    images: ImageChoice = ImageChoice.all,
    params: Annotated[dict[str, Any] | None, Body()] = None,
    run_sync: bool = False,
) -> dict[str, Any]:
    """Begin a batch, or, with `run_sync`, do it before the answer. Images that have a label already are skipped."""
    check_model({"model": model})
    asked = BatchRequest.parse(model, images.value, params or {})
    batch = app.batch_inference.run(asked) if run_sync else app.batch_inference.start(asked)
    return batch.described()


@batch_router.delete("/infer/", include_in_schema=False)
@batch_router.delete("/infer", summary="Stop batch inference")
def stop_batch(user: Admin, app: LabellingApp) -> dict[str, Any] | None:
    """Stop the batch that runs, at its next step, and return it; null when there is none."""
    batch = app.batch_inference.stop()
    return None if batch is None else batch.described()
