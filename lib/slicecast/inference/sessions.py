"""Sessions: logs of prompts on images, kept on the disk, and the masks that they lead to.

Every call reads a session's log, adds to it or computes its mask. Memory holds nothing of a session that cannot be
computed again, and a call that changes a session returns once its record is on the disk.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from slicecast.config import build
from slicecast.engine.options import EngineOptions, from_stored
from slicecast.engine.readings import other_readings
from slicecast.engine.session import (
    Accept,
    Add,
    Axes,
    Content,
    Edit,
    Item,
    PackedMask,
    Painted,
    Record,
    Redo,
    Reset,
    Session,
    Undo,
)
from slicecast.engine.session_prompts import Grid, items_of, painted, prompt_set, told
from slicecast.engine.tracks import Progress
from slicecast.errors import Conflict, NotFound, PromptError, SessionClosed
from slicecast.inference.results import OnSlice, SegmentResult
from slicecast.inference.segment import SegmentRequest
from slicecast.inference.session_store import SessionHeader, SessionLocks, SessionLog, SessionStore
from slicecast.inference.settings import require_few_points
from slicecast.inference.studies import Study
from slicecast.inference.volumetric import Segmenter
from slicecast.models.versions import without_version
from slicecast.prompts import Absent, Box, Line, MaskPrompt, Point, PromptSet, SlicePrompt, to_slice_prompts
from slicecast.prompts.model import IJK
from slicecast.volume import SliceAxis, choose_axis

Items = list[tuple[str, Item]]  # Prompts of objects, as a log keeps them: (object, item)

Pairs = Sequence[tuple[str, Item | MaskPrompt]]
Given = PromptSet | Pairs | Callable[[Grid], Pairs]
"""Prompts to add. Unlike a PromptSet, (object, item) pairs may be negative clicks alone, which wait for a start.

A function is called with the session's grid, for prompts that can only be made with it."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as it stands."""

    id: str  # names it
    image_id: str  # the image as clients know it
    image: Path  # file or DICOM folder
    model: str  # the model that answers
    axis: str  # slices are counted along it, as stored
    window: str  # as asked for
    multi_axis: bool  # whether all slice axes are heard
    owner: str  # who opened it
    revision: int  # grows with every change
    prompts: tuple[Add, ...]  # those that count, with their ids, in the order given
    # names, in the order of their labels in a result; those without anything to start from have none
    objects: tuple[str, ...]
    accepted: dict[str, tuple[int, ...]]  # locked slices of each object
    can_undo: bool  # whether there is an edit to take back
    can_redo: bool  # whether there is one to bring back
    since_reset: int  # edits that can be taken back before one that reset the session
    created_at: datetime  # UTC
    used_at: datetime  # UTC

    def given(self) -> dict[str, dict[str, list[Any]]]:
        """Return by kind, then object: clicks inside and outside, lines, boxes; slices painted, absent and locked."""
        found: dict[str, dict[str, list[Any]]] = {}
        for prompt in self.prompts:
            kind, entries = told(prompt.item)
            found.setdefault(kind, {}).setdefault(prompt.object, []).extend(entries)
        locked = {name: list(slices) for name, slices in self.accepted.items() if slices}
        return {**found, "locked": locked} if locked else found


@dataclass(frozen=True, slots=True)
class Propagated:
    """What a session's log amounts to."""

    revision: int  # of the log that led to the result
    result: SegmentResult  # the mask and what belongs to it
    weights: str  # fingerprint of those that answered


class Sessions:
    """The sessions of a server; safe between threads.

    Args:
        service: carries out those that name no other model.
        others: services of other models, by name; they share its images.
        folder: where they are kept.
        locate: see `SessionStore`.
        clock: the time now, UTC.
        new_id: a new session's id.
    """

    def __init__(
        self,
        service: Segmenter,
        folder: Path,
        *,
        others: Mapping[str, Segmenter] = MappingProxyType({}),
        locate: Callable[[str], Path] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._service, self._others = service, others
        self._store = SessionStore(folder, locate=locate)
        self._clock, self._new_id = clock, new_id
        self._locks = SessionLocks()

    @property
    def others(self) -> list[str]:
        """The models that sessions may be opened with beside the server's own."""
        return list(self._others)

    def open(
        self,
        image: Path,
        *,
        image_id: str,
        axis: str = "auto",
        window: str = "auto",
        model: str | None = None,
        options: EngineOptions | None = None,
        owner: str = "",
        prefix: str = "",
    ) -> SessionState:
        """Open a session on an image.

        Args:
            prefix: how its id begins.

        Raises:
            VolumeError: the image cannot be used.
            ConfigError: unknown axis or window.
            Conflict: no service of this server runs that model.
        """
        study = self._service.studies.open(image)
        study.window(window)
        now = self._clock()
        header = SessionHeader(
            id=prefix + self._new_id(),
            image_id=image_id,
            image=image,
            model=self._named(model).model_for(model),
            axis=choose_axis(study.volume.geometry, axis).name.lower(),
            window=window,
            options=asdict(options or self._service.settings.propagation),
            owner=owner,
            created_at=now,
            used_at=now,
        )
        self._store.create(header)
        return _state_of(header, Session())

    def state(self, session_id: str) -> SessionState:
        """Return a session as it stands.

        Raises:
            UnknownSession: there is none of that id.
            SessionClosed: it has ended.
        """
        return _state_of(*self._read(session_id))

    def list(self) -> tuple[SessionState, ...]:
        """Return the sessions that are open, oldest first."""
        return tuple(_state_of(header, self._session(header.id)) for header in self._store.open_headers())

    def grid(self, session_id: str) -> Grid:
        """Return a session's grid."""
        return self._image(self._read(session_id)[0]).grid

    def close(self, session_id: str) -> None:
        """End a session; its log is kept for replay."""
        with self._locks.of(session_id):
            self._read(session_id)
            self._store.close(session_id, self._clock())

    def hear_all_axes(self, session_id: str, *, multi_axis: bool, expected_revision: int | None = None) -> SessionState:
        """Let the other two slice axes weigh in on the session's masks, or no longer, as one edit."""
        return self._edit(session_id, lambda s, image: Edit((Axes(multi_axis),)), expected_revision)

    def add(self, session_id: str, prompts: Given, *, expected_revision: int | None = None) -> SessionState:
        """Add prompts, in one edit.

        Raises:
            PromptError: they do not fit the image, or contradict earlier ones.
            Conflict: the session is not at the expected revision.
        """
        return self._edit(session_id, lambda s, image: s.adding(image.items(prompts)), expected_revision)

    def replace(self, session_id: str, prompts: Given, *, expected_revision: int | None = None) -> SessionState:
        """Make these the prompts that count, in one edit; those that are there already keep their ids and places."""
        return self._edit(session_id, lambda s, image: s.replacing(image.items(prompts)), expected_revision)

    def remove(self, session_id: str, prompt_id: str, *, expected_revision: int | None = None) -> SessionState:
        """Remove one prompt; raises NotFound if no prompt of that id counts now."""
        return self._edit(session_id, lambda s, image: s.removing(prompt_id), expected_revision)

    def undo(self, session_id: str, *, expected_revision: int | None = None) -> SessionState:
        """Take back the last edit that counts; raises Conflict if there is none."""
        return self._edit(session_id, lambda s, image: Undo(), expected_revision)

    def redo(self, session_id: str, *, expected_revision: int | None = None) -> SessionState:
        """Bring back the edit that was taken back last; raises Conflict if there is none."""
        return self._edit(session_id, lambda s, image: Redo(), expected_revision)

    def reset(self, session_id: str) -> SessionState:
        """Discard all prompts and accepted slices; an edit like any other."""
        return self._edit(session_id, lambda s, image: Edit((Reset(),)), None)

    def accept(
        self, session_id: str, object: str, slices: Iterable[int], *, expected_revision: int | None = None
    ) -> SessionState:
        """Lock slices of an object as the session's result shows them now; nothing overwrites them.

        Raises:
            NotFound: the session has no such object.
            PromptError: there are no such slices.
        """
        header, session = self._read(session_id)
        image = self._image(header)
        done = self._propagate(header, session, image)
        if object not in done.result.labels:
            raise NotFound(f"There is no object '{object}' in this session's result, so it cannot be accepted.")
        mask, grid = done.result.mask == done.result.labels[object], image.grid
        count = grid.shape_kji[grid.along]
        numbers = sorted(set(slices))
        for number in numbers:
            if not 0 <= number < count:
                raise PromptError(f"There is no slice {number} to accept; slices run from 0 to {count - 1}.")
        locked = Edit(tuple(Accept(object, n, PackedMask.of(grid.slice(mask, n))) for n in numbers))
        expected = done.revision if expected_revision is None else expected_revision
        return self._edit(session_id, lambda s, image: locked, expected, image=image)

    def release(
        self, session_id: str, object: str, slices: Iterable[int], *, expected_revision: int | None = None
    ) -> SessionState:
        """Unlock slices of an object; raises NotFound if one of them is not accepted."""
        return self._edit(session_id, lambda s, image: s.releasing(object, slices), expected_revision)

    def readings(self, session_id: str, object: str, number: int) -> Sequence[NDArray[np.bool_]]:
        """Return what else an object's clicks or box on a slice may mean: masks (H, W) of the stored slice.

        Raises:
            NotFound: it has neither there.
        """
        header, session = self._read(session_id)
        image = self._image(header)
        # What was painted over a click, such as a reading that was chosen, leaves its other readings as they were.
        said = session.content.prompts
        unpainted = Content({id: prompt for id, prompt in said.items() if not isinstance(prompt.item, Painted)})
        study, axis, prompts = image.study, image.axis, prompt_set(unpainted, image.grid)
        given = to_slice_prompts(prompts, study.reorientation, axis).get(object, ()) if prompts else ()
        for prompt in given:
            if study.reorientation.to_source_slice(axis, prompt.slice) == number and _is_clicked_or_boxed(prompt):
                picture = study.frames(axis, study.window(header.window)).read(prompt.slice)
                found = other_readings(picture, prompt)
                return [study.reorientation.to_source_plane(axis, mask) for mask in found]
        raise NotFound(f"'{object}' has no click and no box on slice {number}. Click on it there, or box it.")

    def propagate(
        self,
        session_id: str,
        *,
        on_slice: OnSlice | None = None,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        slice_strategy: str = "",
    ) -> Propagated:
        """Compute the session's mask; only what changed since earlier requests is computed anew.

        Args:
            on_slice: called with every slice as soon as it is known, nearest to the prompted ones first.
            cancelled: checked before each step; what was done by then is returned as a partial result.
            slice_strategy: which slice is suggested next; empty for the server's own.

        Raises:
            PromptError: no prompt to start from.
        """
        header, session = self._read(session_id)
        return self._propagate(
            header,
            session,
            self._image(header),
            slice_strategy=slice_strategy,
            on_slice=on_slice,
            progress=progress,
            cancelled=cancelled,
        )

    def _propagate(
        self, header: SessionHeader, session: Session, image: "_Image", *, slice_strategy: str = "", **callbacks: Any
    ) -> Propagated:
        prompts = prompt_set(session.content, image.grid)
        if prompts is None:
            raise PromptError("Nothing counts in this session to start from. Click on the object, box it or paint it.")
        service = self._named(header.model)
        request = replace(_request_of(header, session.content, prompts), slice_strategy=slice_strategy)
        result = service.segment(request, study=image.study, keep_partial=True, **callbacks)
        self._store.touch(header.id, self._clock())
        return Propagated(session.revision, result, service.fingerprint_of(header.model))

    def _edit(
        self,
        session_id: str,
        make: Callable[[Session, "_Image"], Record],
        expected: int | None,
        *,
        image: "_Image | None" = None,
    ) -> SessionState:
        """Add a record, unless the session would then not fit its image."""
        with self._locks.of(session_id):
            header, session = self._read(session_id)
            if expected is not None and expected != session.revision:
                raise Conflict(
                    f"The session is at revision {session.revision}, not {expected}: it was changed meanwhile. "
                    "Read its state and try again."
                )
            image = image or self._image(header)
            record = make(session, image)
            if isinstance(record, Edit) and not record.changes:
                return _state_of(header, session)
            changed = session.then(record)
            image.check(changed.content)
            now = self._clock()
            self._store.append(session_id, record, number=session.revision, at=now)
        return _state_of(replace(header, used_at=now), changed)

    def _read(self, session_id: str) -> tuple[SessionHeader, Session]:
        header = self._store.header(session_id)
        if header.closed_at is not None:
            raise SessionClosed(f"Session '{session_id}' was closed on {header.closed_at:%Y-%m-%d}. Open a new one.")
        return header, self._session(session_id)

    def _session(self, session_id: str) -> Session:
        return Session.replay(self._store.records(session_id))

    def _image(self, header: SessionHeader) -> "_Image":
        return _Image(self._service.studies.open(header.image), SliceAxis[header.axis.upper()])

    def _named(self, name: str | None) -> Segmenter:
        """Return the service for a model or version that is asked for; the server's own unless another runs it."""
        return self._others.get(without_version(name or ""), self._service)


def replay(log: SessionLog, service: Segmenter, *, image: Path | None = None) -> SegmentResult:
    """Compute the mask that a log leads to.

    Args:
        image: where the image lies now. Default: where it lay.

    Raises:
        Conflict: the service runs another model.
        PromptError: nothing counts to start from.
    """
    header = replace(log.header, image=image or log.header.image)
    opened = _Image(service.studies.open(header.image), SliceAxis[header.axis.upper()])
    content = Session.replay(log.records).content
    prompts = prompt_set(content, opened.grid)
    if prompts is None:
        raise PromptError("Nothing counts in this session to start from, so there is no mask to replay.")
    return service.segment(_request_of(header, content, prompts), study=opened.study)


def _request_of(header: SessionHeader, content: Content, prompts: PromptSet) -> SegmentRequest:
    """Return the request that computes a session's mask."""
    options = _options(header, content)
    return SegmentRequest(header.image, prompts, header.axis, None, header.window, options=options, model=header.model)


def _options(header: SessionHeader, content: Content) -> EngineOptions:
    options = build(EngineOptions, from_stored(header.options), where=f"session {header.id}")
    return options if content.multi_axis is None else replace(options, multi_axis=content.multi_axis)


@dataclass(frozen=True, slots=True)
class _Image:
    """A session's image, opened once for a call, and the axis of the session's slices."""

    study: Study
    axis: SliceAxis

    @property
    def grid(self) -> Grid:
        """The stored grid, with the array axis of the session's slices."""
        turn = self.study.reorientation
        return Grid(turn.source.shape_kji, 2 - turn.permutation[self.axis])

    def items(self, given: Given) -> Items:
        """Return prompts as a log keeps them.

        Raises:
            PromptError: one does not fit the grid. Objects without a start get no later check than this.
        """
        if isinstance(given, PromptSet):
            given.check(self.study.reorientation.source)
            return items_of(given, self.grid)
        grid = self.grid
        pairs = given(grid) if callable(given) else given
        items = [(name, painted(item, grid) if isinstance(item, MaskPrompt) else item) for name, item in pairs]
        for name, item in items:
            _check_item(name, item, grid)
        return items

    def check(self, content: Content) -> None:
        """Raise PromptError where prompts do not fit the image or contradict each other, TooLarge for too many."""
        items = [prompt.item for prompt in content.prompts.values()]
        lines = sum(item.voxels for item in items if isinstance(item, Line))
        require_few_points(lines + sum(isinstance(item, Point) for item in items))
        prompts = prompt_set(content, self.grid)
        if prompts is not None:
            to_slice_prompts(prompts, self.study.reorientation, self.axis)


def _is_clicked_or_boxed(prompt: SlicePrompt) -> bool:
    return prompt.box_xyxy is not None or bool((prompt.labels == 1).any())


def _check_item(name: str, item: Item, grid: Grid) -> None:
    size = grid.shape_kji[::-1]
    if not name.strip():
        raise PromptError("An object has no name. Give it one, such as 'spleen'.")
    for ijk in _voxels(item):
        if not all(0 <= index < count for index, count in zip(ijk, size, strict=True)):
            raise PromptError(f"The voxel {ijk} of '{name}' lies outside the volume of {size} voxels.")
    if isinstance(item, Absent) and item.slice >= size[grid.place]:
        raise PromptError(f"There is no slice {item.slice}; slices run from 0 to {size[grid.place] - 1}.")


def _voxels(item: Item) -> tuple[IJK, ...]:
    match item:
        case Point():
            return (item.ijk,)
        case Line():
            return item.vertices
        case Box():
            return item.low_ijk, item.high_ijk
    return ()


def _state_of(header: SessionHeader, session: Session) -> SessionState:
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
        multi_axis=_options(header, content).multi_axis,
        owner=header.owner,
        revision=session.revision,
        prompts=tuple(content.prompts.values()),
        objects=content.objects,
        accepted={name: tuple(sorted(numbers)) for name, numbers in accepted.items()},
        can_undo=bool(session.applied),
        can_redo=bool(session.undone),
        since_reset=session.since_reset,
        created_at=header.created_at,
        used_at=header.used_at,
    )
