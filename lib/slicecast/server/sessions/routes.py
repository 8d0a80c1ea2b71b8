"""`/slicecast/sessions`: one annotator's work on one image, with undo, redo, and answers that stream.

Every change is on the disk before it is answered, so a server that is killed loses nothing that it acknowledged.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from fastapi.responses import StreamingResponse

from slicecast.engine.session_prompts import whole
from slicecast.inference.caller import Caller, current_caller
from slicecast.inference.sessions import Propagated, SessionState
from slicecast.prompts import MaskPrompt
from slicecast.server.dependencies import AnyUser, LabellingApp
from slicecast.server.errors import Forbidden, problems
from slicecast.server.security.limits import received
from slicecast.server.security.users import Role
from slicecast.server.sessions.models import (
    DraftChange,
    Drafted,
    Event,
    Index,
    Name,
    OpenSession,
    PromptList,
    Readings,
    SessionChange,
    SessionList,
    SessionView,
    Slices,
    SliceStrategyName,
    Stopping,
    rle_model,
    session_prompts,
    session_view,
)
from slicecast.server.sessions.propagation import NDJSON, SessionContext, propagation, stream_lines
from slicecast.server.threads import while_wanted
from slicecast.volume import read_volume, write_mask

router = APIRouter(prefix="/slicecast/sessions", tags=["Sessions"])

Revision = int | None

WHY = {
    403: "The session is another user's",
    404: "There is no such session, image, prompt or object",
    409: "The session was changed meanwhile, there is nothing to undo, or a propagation is under way",
    410: "The session has ended",
    413: "The request is too large",
    422: "The request cannot be used; the detail says why",
    429: "You hold as many sessions as one user may",
    499: "It was cancelled before it began",
    503: "The queue is full, or the weights are missing; `Retry-After` says when to come back",
}


KNOWN = problems(WHY, 403, 404, 410, 422)
EDIT = problems(WHY, 403, 404, 409, 410, 413, 422)
WORK = problems(WHY, 403, 404, 409, 410, 422, 499, 503)


def session_context(request: Request) -> SessionContext:
    """Return what the routes share."""
    context: SessionContext = request.app.state.sessions
    return context


def named_caller(user: AnyUser, client_id: str = "") -> Caller:
    """Return who sends a request; `client_id` in the address is what a client calls itself."""
    caller = current_caller()
    return replace(caller, name=caller.called(client_id))


def may_use(caller: Caller, state: SessionState) -> bool:
    """Tell whether the caller may work on a session: its owner, an admin, or anybody where there are no logins."""
    return caller.may(Role.admin.name) or state.owner == caller.user


ContextOf = Annotated[SessionContext, Depends(session_context)]
CallerOf = Annotated[Caller, Depends(named_caller)]


def own_session(session_id: str, context: ContextOf, caller: CallerOf) -> str:
    """Return the id of an open session that the caller may work on.

    Raises:
        UnknownSession: there is none.
        SessionClosed: it has ended.
        Forbidden: it is another user's.
    """
    state = context.sessions.state(session_id)
    if not may_use(caller, state):
        raise Forbidden(f"The session belongs to '{state.owner}'. Open one of your own.")
    return state.id


SessionOf = Annotated[str, Depends(own_session)]


class Lines(StreamingResponse):
    """Lines of JSON."""

    media_type = NDJSON


class VolumeFile(Response):
    """A volume's file."""

    media_type = "application/octet-stream"


@router.post("", status_code=201, summary="Open a session on an image", responses=problems(WHY, 404, 413, 422, 429))
def open_session(
    asked: OpenSession, http: Request, response: Response, app: LabellingApp, context: ContextOf, caller: CallerOf
) -> SessionView:
    """Open a session; it stays open, over restarts too, until it is closed."""
    owner = caller.named(asked.client_id)
    context.make_room(owner)
    path = app.image_path(asked.image)
    state = context.sessions.open(
        path, image_id=asked.image, axis=asked.axis, window=asked.window, model=asked.model, owner=owner
    )
    if asked.start == "current":
        masks = app.current_masks(asked.image, owner)
        state = context.sessions.add(state.id, lambda grid: [(name, whole(mask, grid)) for name, mask in masks])
    response.headers["Location"] = f"{http.url.path.rstrip('/')}/{state.id}"
    return session_view(state, propagating=False)


@router.get("", summary="List the open sessions")
def list_sessions(context: ContextOf, caller: CallerOf) -> SessionList:
    """List the open sessions that you may work on, oldest first."""
    return SessionList(sessions=[_view(context, state) for state in context.sessions.list() if may_use(caller, state)])


@router.get("/{session_id}", summary="See a session", responses=KNOWN)
def see_session(session_id: SessionOf, context: ContextOf) -> SessionView:
    """See a session as it stands."""
    return _view(context, context.sessions.state(session_id))


@router.patch("/{session_id}", summary="Let all slice axes weigh in, or one alone", responses=EDIT)
def change_session(
    session_id: SessionOf, change: SessionChange, context: ContextOf, expected_revision: Revision = None
) -> SessionView:
    """Let all slice axes weigh in on the session's masks, or its own alone, as one edit."""
    state = context.sessions.hear_all_axes(
        session_id, multi_axis=change.multi_axis, expected_revision=expected_revision
    )
    return _view(context, state)


@router.delete("/{session_id}", status_code=204, summary="Close a session", responses=KNOWN)
def close_session(session_id: SessionOf, context: ContextOf) -> None:
    """Close a session and stop its propagation; its log is kept, so that it can be replayed."""
    context.runs.stop(session_id)
    context.sessions.close(session_id)


@router.post("/{session_id}/prompts", summary="Add prompts", responses=EDIT)
def add_prompts(
    session_id: SessionOf, given: PromptList, context: ContextOf, expected_revision: Revision = None
) -> SessionView:
    """Add prompts, as one edit."""
    prompts = partial(session_prompts, given)
    return _view(context, context.sessions.add(session_id, prompts, expected_revision=expected_revision))


@router.put("/{session_id}/prompts", summary="Replace all prompts", responses=EDIT)
def replace_prompts(
    session_id: SessionOf, given: PromptList, context: ContextOf, expected_revision: Revision = None
) -> SessionView:
    """Make these the prompts that count, as one edit; those that were there already keep their ids."""
    prompts = partial(session_prompts, given)
    return _view(context, context.sessions.replace(session_id, prompts, expected_revision=expected_revision))


@router.delete("/{session_id}/prompts/{prompt_id}", summary="Remove one prompt", responses=EDIT)
def remove_prompt(
    session_id: SessionOf, prompt_id: str, context: ContextOf, expected_revision: Revision = None
) -> SessionView:
    """Remove any one prompt, not only the last."""
    return _view(context, context.sessions.remove(session_id, prompt_id, expected_revision=expected_revision))


@router.post("/{session_id}/masks", summary="Add painted slices from a file", responses=EDIT)
def add_mask_file(
    session_id: SessionOf,
    object: Annotated[Name, Form()],
    file: Annotated[UploadFile, File(description="NIfTI or NRRD on the image's grid; everything not zero is painted")],
    context: ContextOf,
    expected_revision: Revision = None,
) -> SessionView:
    """Add every slice of a file that is not empty as painted, as one edit."""
    with received(file) as path:
        volume = read_volume(str(path))
    mask = MaskPrompt(volume.array != 0, geometry=volume.geometry)
    return _view(context, context.sessions.add(session_id, [(object, mask)], expected_revision=expected_revision))


@router.post("/{session_id}/undo", summary="Take back the last edit", responses=EDIT)
def undo(session_id: SessionOf, context: ContextOf, expected_revision: Revision = None) -> SessionView:
    """Take back the last edit that counts; as often as there are edits."""
    return _view(context, context.sessions.undo(session_id, expected_revision=expected_revision))


@router.post("/{session_id}/redo", summary="Bring back an edit", responses=EDIT)
def redo(session_id: SessionOf, context: ContextOf, expected_revision: Revision = None) -> SessionView:
    """Bring back the edit that was taken back last."""
    return _view(context, context.sessions.redo(session_id, expected_revision=expected_revision))


@router.post("/{session_id}/accept", summary="Lock slices as they are", responses=EDIT | WORK)
async def accept(
    session_id: SessionOf,
    slices: Slices,
    http: Request,
    context: ContextOf,
    caller: CallerOf,
    expected_revision: Revision = None,
) -> SessionView:
    """Lock slices of a structure as the result shows them; nothing overwrites them until they are released."""

    def work(gone: Callable[[], bool]) -> SessionView:
        with context.run(session_id, caller.named(), gone=lambda: False):  # half a result must not be locked
            state = context.sessions.accept(
                session_id, slices.object, slices.slices, expected_revision=expected_revision
            )
        return _view(context, state)

    return await while_wanted(http, work, limiter=context.limiter)


@router.post("/{session_id}/release", summary="Unlock slices", responses=EDIT)
def release(
    session_id: SessionOf, slices: Slices, context: ContextOf, expected_revision: Revision = None
) -> SessionView:
    """Let slices of a structure change again."""
    state = context.sessions.release(session_id, slices.object, slices.slices, expected_revision=expected_revision)
    return _view(context, state)


@router.post(
    "/{session_id}/propagate",
    summary="Propagate the prompts through the volume",
    response_class=Lines,
    responses={**WORK, 200: {"model": Event, "description": "One event a line, the summary last"}},
)
async def propagate(
    session_id: SessionOf,
    http: Request,
    context: ContextOf,
    caller: CallerOf,
    slice_strategy: SliceStrategyName | None = None,
) -> StreamingResponse:
    """Stream one line for each structure on each slice, nearest to the prompts first, then a summary.

    Only what the last edits changed is computed. Break the connection, or call cancel, to stop; what is done is kept.
    """
    work = propagation(context, session_id, user=caller.named(), slice_strategy=slice_strategy or "")
    return await stream_lines(http, work, limiter=context.limiter)


@router.get("/{session_id}/readings", summary="See what else clicks or a box may mean", responses=KNOWN)
def readings(session_id: SessionOf, object: Name, slice: Index, context: ContextOf) -> Readings:
    """See what else the clicks or the box of a structure on a slice may mean: at most four masks, by their grey values.

    To choose one, add it as a mask prompt; it is then propagated like any painted slice.
    """
    return Readings(readings=[rle_model(mask) for mask in context.sessions.readings(session_id, object, slice)])


@router.post("/{session_id}/cancel", summary="Stop a propagation", status_code=202, responses=KNOWN)
def cancel(session_id: SessionOf, context: ContextOf) -> Stopping:
    """Stop the session's propagation after its present step; its stream ends with a summary of what is done."""
    return Stopping(cancelled=context.runs.stop(session_id))


@router.post("/{session_id}/draft", summary="Keep the result as the case's draft", responses=WORK)
async def keep_draft(
    session_id: SessionOf, asked: DraftChange, http: Request, app: LabellingApp, context: ContextOf, caller: CallerOf
) -> Drafted:
    """Add the session's structures to the caller's draft of the case, which the campaign page submits."""

    def work(gone: Callable[[], bool]) -> Drafted:
        state = context.sessions.state(session_id)
        if state.objects:
            with context.run(session_id, caller.named(), gone=lambda: False):  # half a result is no draft
                done = context.sessions.propagate(session_id)
            app.keep_draft(state.image_id, done, prompts=state.given(), client_id=state.owner)
        return Drafted(**app.change_draft(state.image_id, state.owner, without=asked.dropped))

    return await while_wanted(http, work, limiter=context.limiter)


@router.get("/{session_id}/result", summary="Get the mask of the volume", response_class=VolumeFile, responses=WORK)
async def result(
    session_id: SessionOf,
    http: Request,
    context: ContextOf,
    caller: CallerOf,
    format: Literal["nii.gz", "nrrd"] = "nii.gz",
) -> Response:
    """Get the mask on the image's grid, unsigned 8 bit; what is not computed yet is computed first.

    The headers `X-Slicecast-Revision` and `X-Slicecast-Labels` (JSON) say of which revision, and which value is whose.
    """

    def work(gone: Callable[[], bool]) -> Response:
        with context.run(session_id, caller.named(), gone=gone) as cancelled:
            done = context.sessions.propagate(session_id, cancelled=cancelled)
        return _file(done, context.sessions.state(session_id), format)

    return await while_wanted(http, work, limiter=context.limiter)


def _view(context: SessionContext, state: SessionState) -> SessionView:
    return session_view(state, propagating=state.id in context.runs)


def _file(done: Propagated, state: SessionState, ending: str) -> Response:
    with tempfile.TemporaryDirectory() as folder:
        path = write_mask(Path(folder) / f"mask.{ending}", done.result.mask, done.result.geometry)
        content = path.read_bytes()
    headers = {
        "Content-Disposition": f'attachment; filename="{state.id}.{ending}"',
        "X-Slicecast-Revision": str(done.revision),
        "X-Slicecast-Labels": json.dumps(done.result.labels),
        "X-Slicecast-Partial": str(done.result.partial).lower(),
    }
    return VolumeFile(content, headers=headers)
