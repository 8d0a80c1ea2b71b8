"""What can happen in a campaign, and the hash chain that shows later changes.

Each event's digest covers its own fields and the digest before it (SHA-256 of canonical JSON). Times are seconds
since 1970, UTC. An event is never changed; a mistake is answered by another event.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

GENESIS = "0" * 64
"""The digest before the first event."""


class Kind(StrEnum):
    """What an event says; `data` in brackets."""

    ADDED = "added"  # the case is part of the campaign (labelled: it had a final label before)
    GOLD = "gold"  # the case's truth is known and hidden (truth_sha256)
    LEASED = "leased"  # a person works on it (task, until, reason, strategy, address)
    RENEWED = "renewed"  # still at it (until)
    RELEASED = "released"  # handed back without a label
    PREDICTED = "predicted"  # a model answered (model, model_hash, prompts, confidence, next_slice)
    SLICE_ASKED = "slice-asked"  # a slice to annotate next was chosen by a person (slice, axis)
    SUBMITTED = "submitted"  # a label was saved (task, tag, version, sha256, model, model_hash, active_s)
    SKIPPED = "skipped"  # not by this person (why)
    FLAGGED = "flagged"  # needs a reviewer's look (why)
    APPROVED = "approved"  # by a reviewer
    REJECTED = "rejected"  # by a reviewer; to be done again (why)
    REOPENED = "reopened"  # its label was removed
    COMPARED = "compared"  # two labels of the case were compared (against, dice, nsd, hd95_mm, ...)
    PROMOTED = "promoted"  # of no case: fine-tuned weights are used (model, sha256, before, labels, verdict)
    ROLLED_BACK = "rolled-back"  # of no case: earlier weights are used again (model, sha256, before)


OF_NO_CASE = (Kind.PROMOTED, Kind.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before it has its place in the chain."""

    kind: Kind
    case: str  # to which image; "" for what concerns the campaign as a whole
    who: str  # the person, or `server`
    data: Mapping[str, Any] = field(default_factory=dict)  # details, as JSON values


@dataclass(frozen=True, slots=True)
class Event:
    """A link of the chain."""

    number: int  # its place, from 1
    when_s: float  # seconds since 1970
    kind: Kind
    case: str
    who: str
    data: Mapping[str, Any]
    previous: str  # digest of the event before, GENESIS for the first
    digest: str  # of all other fields


@dataclass(frozen=True, slots=True)
class Damage:
    """Where the chain is broken, and how."""

    number: int
    what: str


def chain(drafts: Iterable[Draft], *, number: int, previous: str, when_s: float) -> list[Event]:
    """Give drafts their places after event `number`, whose digest is `previous`."""
    events = []
    for place, draft in enumerate(drafts, start=number + 1):
        data = json.loads(json.dumps(dict(draft.data), allow_nan=False))
        fields = {
            "number": place,
            "when_s": when_s,
            "kind": draft.kind,
            "case": draft.case,
            "who": draft.who,
            "data": data,
        }
        digest = digest_of(fields, previous)
        events.append(Event(**fields, previous=previous, digest=digest))
        previous = digest
    return events


def digest_of(fields: Mapping[str, Any], previous: str) -> str:
    """Return the SHA-256 that binds an event's fields to the event before."""
    text = json.dumps({**fields, "previous": previous}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def find_damage(events: Iterable[Event]) -> Damage | None:
    """Check the chain; return the first place where it does not hold, or None."""
    expected, previous = 1, GENESIS
    for event in events:
        if event.number != expected:
            return Damage(expected, f"event {expected} is missing (the next one there is {event.number})")
        if event.previous != previous:
            return Damage(expected, f"event {expected} does not follow the one before it: removed or reordered")
        fields = {key: value for key, value in asdict(event).items() if key not in ("previous", "digest")}
        if digest_of(fields, previous) != event.digest:
            return Damage(expected, f"event {expected} was changed: its digest is not that of its content")
        expected, previous = expected + 1, event.digest
    return None
