"""What a session looks like from outside, and what may be said to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from slicecast.config import build
from slicecast.engine.options import EngineOptions, without_retired
from slicecast.engine.session import Grid, Item, Painted, Prompt, Session
from slicecast.errors import PromptError
from slicecast.inference.request import SegmentRequest
from slicecast.inference.results import SegmentResult
from slicecast.inference.session_store import SessionHeader
from slicecast.prompts import Absent, Box, MaskPrompt, Point, PromptSet
from slicecast.volume import Reorientation, SliceAxis


@dataclass(frozen=True, slots=True)
class Said:
    """One prompt of an object; unlike a PromptSet it may be a negative click alone."""

    object: str
    item: Point | Box | MaskPrompt | Painted | Absent


Given = PromptSet | Sequence[Said]


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as it stands.

    Args:
        id: names it.
        image_id: the image as clients know it.
        image: file or DICOM folder.
        model: the model that answers.
        axis: slices are counted along it, as stored.
        window: as asked for.
        owner: who opened it.
        revision: grows with every change.
        prompts: those that count, with their ids, in the order given.
        objects: names, in the order of their labels in a result; those without anything to start from have none.
        accepted: locked slices of each object.
        can_undo: whether there is an edit to take back.
        can_redo: whether there is one to bring back.
        created_at: UTC.
        used_at: UTC.
    """

    id: str
    image_id: str
    image: Path
    model: str
    axis: str
    window: str
    owner: str
    revision: int
    prompts: tuple[Prompt, ...]
    objects: tuple[str, ...]
    accepted: dict[str, tuple[int, ...]]
    can_undo: bool
    can_redo: bool
    created_at: datetime
    used_at: datetime


@dataclass(frozen=True, slots=True)
class Propagated:
    """What a session's log amounts to.

    Args:
        revision: of the log that was carried out.
        result: the mask and what belongs to it.
    """

    revision: int
    result: SegmentResult


def grid_of(reorientation: Reorientation, axis: str) -> Grid:
    """Return the stored grid as a session along a named axis sees it."""
    return Grid(reorientation.source.shape_kji, 2 - reorientation.permutation[SliceAxis[axis.upper()]])


def request_of(header: SessionHeader, prompts: PromptSet) -> SegmentRequest:
    """Return the request that carries out a session's prompts."""
    options = build(EngineOptions, without_retired(header.options), where=f"session {header.id}")
    return SegmentRequest(header.image, prompts, header.axis, None, header.window, options=options)


def check_said(items: Iterable[tuple[str, Item]], grid: Grid) -> None:
    """Raise PromptError for what no later check would see: objects that cannot start yet are not carried out."""
    size = grid.shape_kji[::-1]
    for name, item in items:
        if not name.strip():
            raise PromptError("An object has no name. Give it one, such as 'spleen'.")
        corners = {Point: ("ijk",), Box: ("low_ijk", "high_ijk")}.get(type(item), ())
        for ijk in (getattr(item, corner) for corner in corners):
            if not all(0 <= index < count for index, count in zip(ijk, size, strict=True)):
                raise PromptError(f"The voxel {ijk} of '{name}' lies outside the volume of {size} voxels.")
        if isinstance(item, Absent) and item.slice >= size[grid.place]:
            raise PromptError(f"There is no slice {item.slice}; slices run from 0 to {size[grid.place] - 1}.")


def state_of(header: SessionHeader, session: Session) -> SessionState:
    """Return a session as it stands."""
    content = session.content
    accepted: dict[str, list[int]] = {}
    for name, number in content.accepted:
        accepted.setdefault(name, []).append(number)
    return SessionState(
        id=header.id,
        image_id=header.image_id,
        image=header.image,
        model=header.model,
        axis=header.axis,
        window=header.window,
        owner=header.owner,
        revision=session.revision,
        prompts=tuple(content.prompts.values()),
        objects=content.objects,
        accepted={name: tuple(sorted(numbers)) for name, numbers in accepted.items()},
        can_undo=bool(session.applied),
        can_redo=bool(session.undone),
        created_at=header.created_at,
        used_at=header.used_at,
    )
