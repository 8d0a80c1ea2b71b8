"""One annotator's work on one volume: an append-only log, and what it amounts to.

The log is the truth. Nothing in it is ever changed: removing a prompt, taking an edit back and bringing it back are
records like any other. What counts (:class:`Content`) is a pure function of the log, so every state can be reached
again, after a restart too::

    log      Edit(add p1)  Edit(add p2)  Undo  Edit(add p3)  Undo  Redo
    applied  p1            p1 p2         p1    p1 p3         p1    p1 p3

An edit after an undo discards what could be redone. Slice numbers are counted as stored, along the session's axis.

Records are stored as JSON by `encode_record`. Logs outlive versions, so the aliases and validators below keep to the
format of the first one.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Base64Bytes,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    TypeAdapter,
    ValidationError,
    WrapSerializer,
)

from slicecast.errors import ConfigError, Conflict, NotFound
from slicecast.prompts import Absent, Box, Line, Point

LEVEL = 6  # Of zlib: fixed, because packed masks are compared by their bytes


@dataclass(frozen=True, slots=True)
class PackedMask:
    """A mask (H, W), one bit a pixel, compressed; equal masks are equal values."""

    shape_hw: tuple[int, int]  # rows and columns
    data: Annotated[Base64Bytes, Field(alias="bits")]  # the bits, row by row, as `numpy.packbits` and zlib leave them

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> "PackedMask":
        """Pack a mask, bool (H, W)."""
        rows, columns = mask.shape
        return cls((rows, columns), zlib.compress(np.packbits(mask, axis=None).tobytes(), LEVEL))

    def unpack(self) -> NDArray[np.bool_]:
        """Return the mask, bool (H, W)."""
        bits = np.frombuffer(zlib.decompress(self.data), dtype=np.uint8)
        rows, columns = self.shape_hw
        return np.unpackbits(bits, count=rows * columns).reshape(rows, columns).astype(bool)

    @property
    def empty(self) -> bool:
        """Whether no pixel is set."""
        return not any(zlib.decompress(self.data))


def _flat_slice(entry: tuple[int, PackedMask], content: SerializerFunctionWrapHandler) -> dict[str, Any]:
    number, mask = content(entry)
    return {"slice": number, **mask}


_FLAT_SLICE_IN = BeforeValidator(lambda entry: (entry.get("slice"), entry) if isinstance(entry, dict) else entry)
_FLAT_SLICE_OUT = WrapSerializer(_flat_slice)


@dataclass(frozen=True, slots=True)
class Painted:
    """Painted slices; an empty one marks the object as absent. A later painting of a slice replaces it."""

    # (slice number, mask in the stored slice's plane), ascending
    slices: tuple[Annotated[tuple[int, PackedMask], _FLAT_SLICE_IN, _FLAT_SLICE_OUT], ...]


_KINDS: dict[type, str] = {Point: "point", Line: "line", Box: "box", Painted: "painted", Absent: "absent"}

Item = Annotated[
    Annotated[Point, Tag("point")]
    | Annotated[Line, Tag("line")]
    | Annotated[Box, Tag("box")]
    | Annotated[Painted, Tag("painted")]
    | Annotated[Absent, Tag("absent")],
    Discriminator(lambda item: item.get("kind") if isinstance(item, dict) else _KINDS.get(type(item))),
    WrapSerializer(lambda item, content: {"kind": _KINDS[type(item)], **content(item)}),
]
"""What a prompt may be; stored with its kind first."""


@dataclass(frozen=True, slots=True)
class Add:
    """A prompt of an object; its id is never used again in the session."""

    id: Annotated[str, Field(alias="add")]
    object: str
    item: Item


@dataclass(frozen=True, slots=True)
class Remove:
    """The prompt of that id counts no more."""

    id: Annotated[str, Field(alias="remove")]


@dataclass(frozen=True, slots=True)
class Accept:
    """A slice of an object is right as it is; nothing overwrites it until it is released."""

    object: Annotated[str, Field(alias="accept")]
    slice: int
    mask: PackedMask


@dataclass(frozen=True, slots=True)
class Release:
    """A slice of an object may change again."""

    object: Annotated[str, Field(alias="release")]
    slice: int


@dataclass(frozen=True, slots=True)
class Reset:
    """No earlier prompt and no accepted slice counts."""

    reset: Literal[True] = True


@dataclass(frozen=True, slots=True)
class Axes:
    """From now on all slice axes weigh in on the masks, or the session's own alone."""

    multi_axis: Annotated[bool, Field(alias="axes")]


def _flat_mask(change: Accept, content: SerializerFunctionWrapHandler) -> dict[str, Any]:
    fields = content(change)
    mask = fields.pop("mask")
    return {**fields, **mask}


def _first_key(record: Any) -> str | None:
    """Return what tells stored changes and records apart: their first key, or their class."""
    return next(iter(record), None) if isinstance(record, dict) else type(record).__name__.lower()


Change = Annotated[
    Annotated[Add, Tag("add")]
    | Annotated[Remove, Tag("remove")]
    | Annotated[
        Accept,
        BeforeValidator(lambda fields: {**fields, "mask": fields} if isinstance(fields, dict) else fields),
        WrapSerializer(_flat_mask),
        Tag("accept"),
    ]
    | Annotated[Release, Tag("release")]
    | Annotated[Reset, Tag("reset")]
    | Annotated[Axes, Tag("axes")],
    Discriminator(_first_key),
]


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes that belong together: one step back undoes all of them."""

    changes: Annotated[tuple[Change, ...], Field(alias="edit")]


@dataclass(frozen=True, slots=True)
class Undo:
    """The last edit that counts is taken back."""

    undo: Literal[True] = True


@dataclass(frozen=True, slots=True)
class Redo:
    """The edit that was taken back last counts again."""

    redo: Literal[True] = True


Record = Annotated[
    Annotated[Edit, Tag("edit")] | Annotated[Undo, Tag("undo")] | Annotated[Redo, Tag("redo")],
    Discriminator(_first_key),
]

_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def encode_record(record: Record) -> str:
    """Return a record as JSON text, in the format of every version so far."""
    return json.dumps(_RECORD.dump_python(record, mode="json", by_alias=True))


def decode_record(text: str) -> Record:
    """Return the record of a JSON text; raises ConfigError if it is not one that this version knows."""
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"A session's log holds {text[:80]!r}, which this version cannot read. Update it.") from error


Entry = Add | Accept


@dataclass(frozen=True, slots=True)
class Content:
    """What counts now."""

    # in the order in which they were given: prompts by id, accepted slices by (object, slice)
    entries: Mapping[str | tuple[str, int], Entry] = field(default_factory=dict)
    multi_axis: bool | None = None  # whether all slice axes are heard; None: as the session was opened

    @property
    def prompts(self) -> dict[str, Add]:
        """The prompts by id."""
        return {entry.id: entry for entry in self.entries.values() if isinstance(entry, Add)}

    @property
    def accepted(self) -> dict[tuple[str, int], PackedMask]:
        """Masks by (object, slice)."""
        return {(e.object, e.slice): e.mask for e in self.entries.values() if isinstance(e, Accept)}

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects, in the order in which they first appear among the prompts, then among the rest."""
        names = [*(p.object for p in self.prompts.values()), *(name for name, _ in self.accepted)]
        return tuple(dict.fromkeys(names))

    def after(self, change: Change) -> "Content":
        """Return what counts after one more change; changes to what is not there change nothing."""
        match change:
            case Add(id=id):
                return replace(self, entries={**self.entries, id: change})
            case Remove(id=id):
                return replace(self, entries=self._without(id))
            case Accept(object=name, slice=number):
                if self.entries.get((name, number)) == change:
                    return self
                return replace(self, entries={**self._without((name, number)), (name, number): change})
            case Release(object=name, slice=number):
                return replace(self, entries=self._without((name, number)))
            case Reset():
                return Content(multi_axis=self.multi_axis)
            case Axes():
                return replace(self, multi_axis=change.multi_axis)

    def _without(self, key: str | tuple[str, int]) -> dict[str | tuple[str, int], Entry]:
        return {place: entry for place, entry in self.entries.items() if place != key}


@dataclass(frozen=True, slots=True)
class Session:
    """A log and what it amounts to; made with :meth:`replay`, or from an empty one with :meth:`then`."""

    log: tuple[Record, ...] = ()  # all records, oldest first
    applied: tuple[Edit, ...] = ()  # the edits that count, oldest first
    undone: tuple[Edit, ...] = ()  # the edits that can be brought back, the last undone first
    added: int = 0  # prompts ever added, also those that count no more

    @classmethod
    def replay(cls, records: Iterable[Record]) -> "Session":
        """Return the session that a log leads to; raises Conflict if the log undoes or redoes what is not there."""
        return reduce(cls.then, records, cls())

    @property
    def revision(self) -> int:
        """Number of records; grows with every change."""
        return len(self.log)

    @property
    def since_reset(self) -> int:
        """Number of edits that count since one that reset the session."""
        resets = (n for n, edit in enumerate(reversed(self.applied)) if any(isinstance(c, Reset) for c in edit.changes))
        return next(resets, len(self.applied))

    @property
    def content(self) -> Content:
        """What counts now."""
        return reduce(Content.after, (change for edit in self.applied for change in edit.changes), Content())

    def then(self, record: Record) -> "Session":
        """Return the session after one more record; raises Conflict if there is nothing to undo or redo."""
        log = (*self.log, record)
        match record:
            case Edit():
                added = sum(isinstance(change, Add) for change in record.changes)
                return Session(log, (*self.applied, record), (), self.added + added)
            case Undo():
                if not self.applied:
                    raise Conflict("There is nothing to undo: no change of this session counts any more.")
                return Session(log, self.applied[:-1], (self.applied[-1], *self.undone), self.added)
            case Redo():
                if not self.undone:
                    raise Conflict("There is nothing to redo: the last change was not an undo.")
                return Session(log, (*self.applied, self.undone[0]), self.undone[1:], self.added)

    def adding(self, given: Iterable[tuple[str, Item]]) -> Edit:
        """Return the edit that adds (object, item) prompts, with ids that were never used here."""
        return Edit(tuple(Add(f"p{n}", name, item) for n, (name, item) in enumerate(given, start=self.added + 1)))

    def removing(self, prompt_id: str) -> Edit:
        """Return the edit that removes one prompt; raises NotFound if no prompt of that id counts now."""
        if prompt_id not in self.content.prompts:
            raise NotFound(f"There is no prompt '{prompt_id}' in this session now. Ask for the session's state.")
        return Edit((Remove(prompt_id),))

    def replacing(self, given: Sequence[tuple[str, Item]]) -> Edit:
        """Return the edit that leaves exactly these (object, item) prompts; what is there already stays as it is."""
        wanted = Counter(given)
        removed = []
        for prompt in self.content.prompts.values():
            same = prompt.object, prompt.item
            if wanted[same]:
                wanted[same] -= 1
            else:
                removed.append(Remove(prompt.id))
        return Edit((*removed, *self.adding(wanted.elements()).changes))

    def releasing(self, name: str, slices: Iterable[int]) -> Edit:
        """Return the edit that unlocks slices of an object; raises NotFound if one of them is not accepted."""
        numbers = sorted(set(slices))
        for number in numbers:
            if (name, number) not in self.content.accepted:
                raise NotFound(f"Slice {number} of '{name}' is not accepted, so it cannot be released.")
        return Edit(tuple(Release(name, number) for number in numbers))
