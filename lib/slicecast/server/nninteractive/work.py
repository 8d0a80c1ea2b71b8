"""Leases, and what their holders work on: an image, a session, and the mask as the client has it.

Every prompt is an edit of a session as below `/slicecast/sessions`, so it is on the disk before it is answered, undo
goes back to the last reset, and a session that was interrupted goes on when its user sends the same image again.
Answers hold what differs from the mask that the client has.

A lease ends when its holder does nothing for `idle_s`, when its client gives no sign of life for `alive_s`, or when it
is given back. A lease that has ended is unknown, and every request with it is answered with 410.
"""

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.session import Add, Item
from slicecast.engine.session_prompts import Grid, painted
from slicecast.errors import Cancelled, Conflict, InputError, QueueFull, SessionClosed, SlicecastError
from slicecast.inference.sessions import Propagated, SessionState
from slicecast.prompts import MaskPrompt
from slicecast.server.errors import Forbidden
from slicecast.server.nninteractive.images import SentImage, Three, find_image, store_upload
from slicecast.server.nninteractive.prompts import pack, segmentation, starts, together
from slicecast.server.sessions.propagation import SessionContext
from slicecast.server.settings import NnInteractiveSettings
from slicecast.volume.metrics import dice

logger = logging.getLogger(__name__)

OBJECT = "object"  # What the protocol's one object is called, unless the address names it: it has no names
PREFIX = "nninteractive-"  # How the ids of these sessions begin
KEPT = 8  # Interrupted sessions of one user that wait for their image; older ones are closed
ANSWER_S = 50.0  # Clients wait for 60 s
WATCH_S = 15.0  # Between two looks at the leases
SAME = 0.9  # Dice of a client's mask and an interrupted session's, from which on they are the same object

Mask = NDArray[np.bool_]
Gone = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is told of the mask."""

    ran: bool  # the prompts were carried out
    # half-open along the client's axes, of what has changed; None where nothing has
    bounds: list[list[int]] | None = None
    crop: NDArray[np.uint8] | None = None  # uint8, the mask there

    def meta(self) -> str:
        """Return the header that goes with it."""
        shape = None if self.crop is None else list(self.crop.shape)
        return json.dumps({"ran_prediction": self.ran, "bbox": self.bounds, "dtype": "uint8", "shape": shape})

    def body(self) -> bytes:
        """Return the mask for the wire."""
        return b"" if self.crop is None else pack(self.crop)


NOTHING = Answer(False)


@dataclass(slots=True, eq=False)
class Annotation:
    """A client's work on one image."""

    session: str  # the id of the session that keeps the prompts
    label: str  # what the object is called
    image: SentImage  # what was sent
    # the client's mask, packed to bits
    shown: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    # the session's prompts are of an interrupted lease, and the client has not said yet whether it goes on
    resumes: bool = False
    # the client asked to reset them, as 3D Slicer does before it sends the mask that it goes on with
    reset_waits: bool = False

    @property
    def shape(self) -> Three:
        """Shape of the client's arrays."""
        return self.image.axes.shape

    @property
    def mask(self) -> Mask:
        """The client's mask."""
        count = int(np.prod(self.shape))
        return np.unpackbits(self.shown, count=count).reshape(self.shape).astype(bool)

    def show(self, mask: Mask | None) -> None:
        """Note what the client's mask is now; None for empty."""
        self.shown = np.packbits(np.zeros(self.shape, dtype=bool) if mask is None else mask, axis=None)

    def difference(self, mask: Mask) -> Answer:
        """Return what turns the client's mask into another one, and note that it has it then."""
        changed = mask != self.mask
        if not changed.any():
            return Answer(True)
        bounds = []
        for axis in range(3):
            there = np.flatnonzero(changed.any(axis=tuple({0, 1, 2} - {axis})))
            bounds.append([int(there[0]), int(there[-1]) + 1])
        return Answer(True, bounds, mask[tuple(slice(*bound) for bound in bounds)].astype(np.uint8))


@dataclass(slots=True, eq=False)
class ClientLease:
    """One place."""

    token: str  # names it; only its holder knows it
    user: str | None  # who has logged in; None where nobody does
    owner: str  # what to call the holder
    acted_s: float  # when the holder last did something
    alive_s: float  # when the client last gave a sign of life
    work: Annotation | None = None  # what the holder has here; None before there is an image
    # held while something is done with it, so that a client's requests follow each other
    guard: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0  # requests that are under way


class Leases:
    """The places of a server. Safe between threads.

    Args:
        most: places.
        idle_s: see the module.
        alive_s: see the module.
        ended: told of the work of every lease that has ended, and whether it was given back.
        clock: seconds.
    """

    def __init__(
        self,
        most: int,
        *,
        idle_s: float,
        alive_s: float,
        ended: Callable[[Annotation, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self.idle_s, self.alive_s = most, idle_s, alive_s
        self._ended = ended
        self._clock = clock
        self._guard = threading.Lock()
        self._held: dict[str, ClientLease] = {}

    def claim(self, user: str | None, owner: str) -> ClientLease:
        """Give a place; raises QueueFull if all are taken."""
        self.end_overdue()
        now = self._clock()
        lease = ClientLease(secrets.token_urlsafe(32), user, owner, now, now)
        with self._guard:
            if len(self._held) >= self._most:
                raise QueueFull(f"All {self._most} places for nnInteractive clients are taken. Try again later.")
            self._held[lease.token] = lease
        return lease

    @contextmanager
    def using(self, token: str, user: str | None, *, acting: bool = True) -> Iterator[ClientLease]:
        """Use a lease for as long as the block lasts; it does not end meanwhile.

        Args:
            acting: the holder does something, other than a sign of life.

        Raises:
            SessionClosed: it has ended.
            Forbidden: somebody else holds it.
        """
        self.end_overdue()
        with self._guard:
            lease = self._held.get(token)
            if lease is None:
                raise SessionClosed("This lease has ended or never was. Connect again; your prompts are kept.")
            if lease.user != user:
                raise Forbidden("This lease is somebody else's. Connect with your own API key.")
            lease.busy += 1
        try:
            yield lease
        finally:
            with self._guard:
                lease.busy -= 1
                lease.alive_s = self._clock()
                if acting:
                    lease.acted_s = lease.alive_s

    def left_s(self, lease: ClientLease) -> float:
        """Return the seconds until a lease ends if its holder does nothing."""
        return max(0.0, lease.acted_s + self.idle_s - self._clock())

    def release(self, lease: ClientLease) -> None:
        """Take a place back."""
        self._end([lease], returned=True)

    def end_overdue(self) -> None:
        """End the leases whose time is up."""
        now = self._clock()
        with self._guard:
            overdue = [
                lease
                for lease in self._held.values()
                if not lease.busy and (now - lease.acted_s >= self.idle_s or now - lease.alive_s >= self.alive_s)
            ]
        self._end(overdue, returned=False)

    def end_all(self) -> None:
        """End every lease: the server stops."""
        self._end(list(self._held.values()), returned=False)

    def works(self) -> list[Annotation]:
        """Return what all holders have here."""
        with self._guard:
            return [lease.work for lease in self._held.values() if lease.work is not None]

    def _end(self, leases: list[ClientLease], *, returned: bool) -> None:
        for lease in leases:
            with self._guard:
                known = self._held.pop(lease.token, None)
            if known is not None and lease.work is not None:
                self._ended(lease.work, returned)


class NnInteractiveService:
    """Carries out what clients ask for.

    Args:
        context: of the routes for sessions.
        folder: where uploads lie for as long as they are held.
        settings: limits.
        keep_draft: makes a session's result its user's draft of the case (`AppBehaviour.keep_draft`).
        clock: seconds.
    """

    def __init__(
        self,
        context: SessionContext,
        folder: Path,
        settings: NnInteractiveSettings,
        *,
        keep_draft: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._sessions = context.sessions
        self._folder = folder
        self.clock = clock
        self._keep_draft = keep_draft
        self._claims = threading.Lock()
        self._unkept: dict[str, tuple[SessionState, Propagated]] = {}
        self.drafts = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nninteractive-drafts")
        self.settings = settings
        self.limiter = context.limiter
        self.leases = Leases(
            settings.leases,
            idle_s=settings.idle_s,
            alive_s=settings.alive_s,
            ended=self._ended,
            clock=lambda: self.clock(),
        )
        for left in folder.glob("*") if folder.is_dir() else ():
            left.unlink()

    @contextmanager
    def running(self) -> Iterator[None]:
        """End leases in time, also while nobody asks; in the end, all."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(WATCH_S):
                self.leases.end_overdue()

        watcher = threading.Thread(target=watch, name="nninteractive-leases", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            self.leases.end_all()
            self.drafts.shutdown()

    def begin(
        self,
        lease: ClientLease,
        sent: NDArray,
        spacing_mm: Sequence[float],
        images: Iterable[tuple[str, Path]],
        *,
        model: str,
        label: str = OBJECT,
    ) -> SentImage:
        """Take an image: find it among the studies or keep it, and open a session or go on with an interrupted one.

        An interrupted one is of the same model, and its object has the same label.

        Raises:
            VolumeError: it cannot be segmented.
        """
        self._leave(lease)
        image = find_image(sent, spacing_mm, images, self._context.service.studies)
        image = image or store_upload(sent, spacing_mm, self._folder)
        with self._claims:  # a session that is open but not yet held looks interrupted to another client
            left = [
                state
                for state in self._interrupted(lease.owner, model)
                if state.image_id == image.image_id and {prompt.object for prompt in state.prompts} <= {label}
            ]
            state = (
                left[-1]
                if left
                else self._sessions.open(
                    image.path, image_id=image.image_id, owner=lease.owner, prefix=PREFIX, model=model
                )
            )
            lease.work = Annotation(state.id, label, image, resumes=bool(state.prompts))
            lease.work.show(None)
        return image

    def add(self, annotation: Annotation, make: Callable[[Grid], list[Item]]) -> None:
        """Add a prompt; raises PromptError if it does not fit."""
        self._decide(annotation, goes_on=not annotation.reset_waits)
        self._edit(annotation, lambda earlier, grid: together(earlier, make(grid), grid))

    def seed(self, annotation: Annotation, mask: Mask, *, gone: Gone) -> None:
        """Start from the client's mask [k, j, i]; that of an interrupted session stands for the session's prompts."""
        if annotation.resumes:
            found = self._result(annotation, gone, self.clock() + ANSWER_S)
            same = found is not None and dice(found, mask) >= SAME
            self._decide(annotation, goes_on=same)
            if found is not None and same:
                self._edit(annotation, lambda earlier, grid: _with_corrections(earlier, found, mask, grid))
                annotation.show(annotation.image.axes.to_client(mask))
                return
        self._edit(annotation, lambda earlier, grid: segmentation(mask, grid))
        annotation.show(annotation.image.axes.to_client(mask))

    def reset(self, annotation: Annotation) -> None:
        """Discard all prompts."""
        annotation.show(None)
        if annotation.resumes:
            annotation.reset_waits = True
        else:
            self._sessions.reset(annotation.session)

    def undo(self, annotation: Annotation, *, gone: Gone) -> Answer:
        """Take back the last prompt since the last reset."""
        self._decide(annotation, goes_on=not annotation.reset_waits)
        if not self._sessions.state(annotation.session).since_reset:
            return NOTHING
        self._sessions.undo(annotation.session)
        return self.predict(annotation, gone=gone)

    def predict(self, annotation: Annotation, *, gone: Gone) -> Answer:
        """Carry out all prompts; what is not done in time is left as the client has it, and done with the next call.

        Raises:
            Conflict: somebody else carries out the same session.
            QueueFull: there is no room to wait.
        """
        self._decide(annotation, goes_on=not annotation.reset_waits)
        found = self._result(annotation, gone, self.clock() + ANSWER_S)
        if found is None:
            return NOTHING
        mask = annotation.image.axes.to_client(found)
        answer = annotation.difference(mask)
        if not gone():  # an answer that nobody reads is sent again with the next one
            annotation.show(mask)
        return answer

    def _result(self, annotation: Annotation, gone: Gone, until: float) -> Mask | None:
        """Return the session's mask [k, j, i], slices that were not reached as the client has them; None: not begun."""
        state, axes = self._sessions.state(annotation.session), annotation.image.axes
        if not starts(prompt.item for prompt in state.prompts):
            return np.zeros(axes.shape_kji, dtype=bool)
        seen: set[int] = set()
        try:
            with self._context.run(
                annotation.session, state.owner, gone=lambda: gone() or self.clock() > until
            ) as cancelled:
                done = self._sessions.propagate(
                    annotation.session, on_slice=lambda update: seen.add(update.slice), cancelled=cancelled
                )
        except Cancelled:
            return None
        mask: Mask = done.result.mask == done.result.labels[annotation.label]
        if not done.result.partial and not annotation.image.uploaded:
            self._unkept[state.id] = state, done  # only the last one is written, where writing is slower
            self.drafts.submit(self._write_draft, state.id)
        if done.result.partial:
            logger.warning("%s: %d slices were done in time; the rest comes with the next answer", state.id, len(seen))
            along = self._sessions.grid(annotation.session).along
            unseen = sorted(set(range(mask.shape[along])) - seen)
            place = (slice(None),) * along + (unseen,)
            mask[place] = axes.to_stored(annotation.mask)[place]
        return mask

    def _write_draft(self, session: str) -> None:
        last = self._unkept.pop(session, None)
        if last is None:
            return
        state, done = last
        try:
            self._keep_draft(state.image_id, done, prompts=state.given(), client_id=state.owner)
        except Exception:  # a background thread's outermost boundary: the answer was sent, the prompts are kept
            logger.exception("The draft of %s was not kept", state.image_id)

    def _edit(self, annotation: Annotation, change: Callable[[Sequence[Add], Grid], list[Item]]) -> None:
        state = self._sessions.state(annotation.session)
        self._sessions.replace(
            annotation.session,
            lambda grid: [(annotation.label, item) for item in change(state.prompts, grid)],
            expected_revision=state.revision,
        )

    def _decide(self, annotation: Annotation, *, goes_on: bool) -> None:
        """Settle whether the prompts of an interrupted session count."""
        if annotation.resumes and not goes_on:
            self._sessions.reset(annotation.session)
        annotation.resumes = annotation.reset_waits = False

    def _interrupted(self, owner: str, model: str) -> list[SessionState]:
        """Return a user's sessions of a model that no lease holds, oldest first; those beyond KEPT are closed."""
        held = {annotation.session for annotation in self.leases.works()}
        found = [
            state
            for state in self._sessions.list()
            if state.id.startswith(PREFIX) and state.owner == owner and state.id not in held and state.model == model
        ]
        for state in found[:-KEPT]:
            self._sessions.close(state.id)
        return found[-KEPT:]

    def _leave(self, lease: ClientLease) -> None:
        if lease.work is not None:
            left, lease.work = lease.work, None
            self._ended(left, True)

    def _ended(self, annotation: Annotation, returned: bool) -> None:
        """Close the session of a lease that was given back; one that broke off waits for its image."""
        with suppress(SlicecastError):
            if returned or not self._sessions.state(annotation.session).prompts:
                self._sessions.close(annotation.session)
        others = [other.image.path for other in self.leases.works()]
        if annotation.image.uploaded and annotation.image.path not in others:
            annotation.image.path.unlink(missing_ok=True)


def annotation_of(lease: ClientLease) -> Annotation:
    """Return what a lease works on; raises Conflict if no image was sent yet."""
    if lease.work is None:
        raise Conflict("No image was sent with this lease yet. Send one to set_image first.")
    return lease.work


def require_shape(shape: Sequence[int], wanted: Sequence[int], what: str) -> None:
    """Raise InputError for an array of another shape than the image's."""
    if tuple(shape) != tuple(wanted):
        raise InputError(f"{what} is of shape {tuple(shape)}, but {tuple(wanted)} is wanted. Send it on that grid.")


def _with_corrections(earlier: Sequence[Add], found: Mask, mask: Mask, grid: Grid) -> list[Item]:
    """Return the session's prompts, and the slices that were painted over since as painted ones."""
    others = tuple(axis for axis in range(3) if axis != grid.along)
    changed = (found != mask).any(axis=others) & mask.any(axis=others)
    numbers = tuple(np.flatnonzero(changed).tolist())
    drawn = [painted(MaskPrompt(mask, slices=numbers), grid)] if numbers else []
    return [*(prompt.item for prompt in earlier), *drawn]
