"""`/train/`: fine-tuning in a process of its own, with MONAI Label's routes."""

from typing import Annotated, Any

from fastapi import APIRouter, Body

from slicecast.errors import NotFound
from slicecast.labelling.finetuning.task import NAME
from slicecast.server.dependencies import Admin, AnyUser, LabellingApp

train_router = APIRouter(prefix="/train", tags=["Train"])


@train_router.get("/", summary="See how far fine-tuning is")
def train_state(user: AnyUser, app: LabellingApp, all: bool = False, check_if_running: bool = False) -> Any:
    """Return the last round, or all; with `check_if_running` only one that runs."""
    tuner = app.fine_tuner
    rounds = tuner.rounds.all()
    if check_if_running:
        rounds = [found] if (found := tuner.running()) else []
    if not rounds:
        raise NotFound("No fine-tuning is running." if check_if_running else "There was no fine-tuning yet.")
    return [tuner.described(known) for known in rounds] if all else tuner.described(rounds[-1])


@train_router.post("/", summary="Fine-tune the model", include_in_schema=False)
def train_all(
    user: Admin, app: LabellingApp, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, dict[str, Any]]:
    """Begin a round for the only model that is trained; OHIF asks so."""
    return {NAME: {"result": train_model(NAME, user, app, params), "detail": None}}


@train_router.post("/{model}", summary="Fine-tune the model")
def train_model(
    model: str, user: Admin, app: LabellingApp, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, Any]:
    """Begin a round on the submitted labels, or go on with one that was stopped; `params` change nothing."""
    if model != NAME:
        raise NotFound(f"There is no trainer '{model[:100]}'. Known: {NAME}.")
    return app.fine_tuner.described(app.fine_tuner.start())


@train_router.delete("/", summary="Stop fine-tuning")
def stop_training(user: Admin, app: LabellingApp) -> dict[str, Any] | None:
    """Stop the round that runs and return it; null when none does."""
    found = app.fine_tuner.stop()
    return None if found is None else app.fine_tuner.described(found)
