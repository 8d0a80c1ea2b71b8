"""What a campaign's events add up to: a pure fold, so that the same events always give the same state.

Active time is counted from the events themselves: the seconds between two signs of life of one person at one
case, where a longer gap than `IDLE_GAP_S` counts as that much only.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from slicecast.campaign.events import GENESIS, OF_NO_CASE, Event, Kind

IDLE_GAP_S = 60.0  # A pause longer than this is not work


class Status(StrEnum):
    """Where a case stands."""

    OPEN = "open"
    FLAGGED = "needs review"
    SUBMITTED = "submitted"
    REJECTED = "rejected"
    APPROVED = "approved"


class ReadingTask(StrEnum):
    """What a lease is for."""

    ANNOTATE = "annotate"
    SECOND = "second"
    GOLD = "gold"


DONE = (Status.SUBMITTED, Status.APPROVED)  # A final label exists and need not be done again


@dataclass(frozen=True, slots=True)
class Lease:
    """A person's right to a case, until a time."""

    who: str
    until_s: float  # when it ends unless renewed, seconds since 1970
    task: ReadingTask
    reason: str = ""  # why this case, in words
    address: str = ""  # where the holder's request came from

    def live(self, now_s: float) -> bool:
        """Tell whether it still holds."""
        return now_s < self.until_s


@dataclass(frozen=True, slots=True)
class Reading:
    """A submitted label."""

    who: str
    when_s: float
    task: ReadingTask  # first annotation, second reading or gold
    tag: str  # under which the store keeps it
    active_s: float  # seconds of active time
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """SHA-256 of its file; "" where that is not known."""
        return str(self.data.get("sha256", ""))


@dataclass(frozen=True, slots=True)
class Case:
    """Everything known about one case."""

    name: str
    status: Status = Status.OPEN
    gold: bool = False
    lease: Lease | None = None
    readings: tuple[Reading, ...] = ()
    skipped_by: frozenset[str] = frozenset()
    note: str = ""
    asked: Mapping[str, Any] | None = None
    prediction: Mapping[str, Any] | None = None
    comparisons: tuple[Mapping[str, Any], ...] = ()
    active_s: Mapping[str, float] = field(default_factory=dict)
    seen_s: Mapping[str, float] = field(default_factory=dict)
    predictions: int = 0

    def reading(self, task: ReadingTask) -> Reading | None:
        """Return the latest reading of a task."""
        return next((reading for reading in reversed(self.readings) if reading.task is task), None)

    def read_by(self, who: str) -> bool:
        """Tell whether a person has submitted a label of this case."""
        return any(reading.who == who for reading in self.readings)


@dataclass(frozen=True, slots=True)
class State:
    """A campaign after its first `number` events."""

    number: int = 0
    digest: str = GENESIS
    when_s: float = 0.0
    cases: Mapping[str, Case] = field(default_factory=lambda: MappingProxyType({}))

    def case(self, name: str) -> Case:
        """Return a case; a new one where it has no events yet."""
        return self.cases.get(name) or Case(name)


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """Apply events to a state (default: the empty one) and return the next; the given one stays as it is."""
    state = state or State()
    cases = dict(state.cases)
    last = None
    for event in events:
        if event.kind not in OF_NO_CASE:
            cases[event.case] = apply(cases.get(event.case) or Case(event.case), event)
        last = event
    if last is None:
        return state
    return State(number=last.number, digest=last.digest, when_s=last.when_s, cases=MappingProxyType(cases))


def apply(case: Case, event: Event) -> Case:
    """Return a case after one more event."""
    return _EFFECTS[event.kind](_with_time(case, event), event)


def _with_time(case: Case, event: Event) -> Case:
    """Count the time since this person's last sign of life here."""
    if event.kind not in _SIGNS_OF_LIFE:
        return case
    before = None if event.kind is Kind.LEASED else case.seen_s.get(event.who)
    gap = 0.0 if before is None else min(max(event.when_s - before, 0.0), IDLE_GAP_S)
    return replace(
        case,
        seen_s={**case.seen_s, event.who: event.when_s},
        active_s={**case.active_s, event.who: case.active_s.get(event.who, 0.0) + gap},
    )


def _added(case: Case, event: Event) -> Case:
    return replace(case, status=Status.SUBMITTED) if event.data.get("labelled") else case


def _leased(case: Case, event: Event) -> Case:
    data = event.data
    task = ReadingTask(data.get("task", ReadingTask.ANNOTATE))
    lease = Lease(event.who, float(data["until"]), task, data.get("reason", ""), data.get("address", ""))
    return replace(case, lease=lease)


def _renewed(case: Case, event: Event) -> Case:
    lease = case.lease
    if lease is None or lease.who != event.who:
        return case
    return replace(case, lease=replace(lease, until_s=float(event.data["until"])))


def _without_lease(case: Case, who: str) -> Case:
    return replace(case, lease=None) if case.lease is not None and case.lease.who == who else case


def _predicted(case: Case, event: Event) -> Case:
    return replace(case, prediction={**event.data, "who": event.who}, predictions=case.predictions + 1, asked=None)


def _submitted(case: Case, event: Event) -> Case:
    task = ReadingTask(event.data.get("task", ReadingTask.ANNOTATE))
    active_s = event.data.get("active_s")
    counted = case.active_s.get(event.who, 0.0) if active_s is None else float(active_s)
    reading = Reading(event.who, event.when_s, task, event.data.get("tag", "final"), counted, event.data)
    case = replace(_without_lease(case, event.who), readings=(*case.readings, reading), asked=None)
    case = replace(case, active_s={**case.active_s, event.who: 0.0})
    return replace(case, status=Status.SUBMITTED, note="") if task is ReadingTask.ANNOTATE else case


def _skipped(case: Case, event: Event) -> Case:
    case = replace(_without_lease(case, event.who), skipped_by=case.skipped_by | {event.who})
    return replace(case, note=event.data.get("why", "") or case.note)


def _rejected(case: Case, event: Event) -> Case:
    """The reviewer may name the slice where it is to be done again."""
    asked = {key: event.data[key] for key in ("slice", "axis") if key in event.data}
    return replace(_judged(Status.REJECTED)(case, event), asked=asked or case.asked)


def _judged(status: Status) -> "Effect":
    def effect(case: Case, event: Event) -> Case:
        return replace(_without_lease(case, event.who), status=status, note=event.data.get("why", ""))

    return effect


def _compared(case: Case, event: Event) -> Case:
    return replace(case, comparisons=(*case.comparisons, {**event.data, "when_s": event.when_s}))


Effect = Callable[[Case, Event], Case]

_EFFECTS: dict[Kind, Effect] = {
    Kind.ADDED: _added,
    Kind.GOLD: lambda case, event: replace(case, gold=True),
    Kind.LEASED: _leased,
    Kind.RENEWED: _renewed,
    Kind.RELEASED: lambda case, event: _without_lease(case, event.who),
    Kind.PREDICTED: _predicted,
    Kind.SLICE_ASKED: lambda case, event: replace(case, asked=dict(event.data)),
    Kind.SUBMITTED: _submitted,
    Kind.SKIPPED: _skipped,
    Kind.FLAGGED: _judged(Status.FLAGGED),
    Kind.APPROVED: _judged(Status.APPROVED),
    Kind.REJECTED: _rejected,
    Kind.REOPENED: lambda case, event: replace(case, status=Status.OPEN, note="", readings=()),
    Kind.COMPARED: _compared,
}

_SIGNS_OF_LIFE = {
    Kind.LEASED,
    Kind.RENEWED,
    Kind.RELEASED,
    Kind.PREDICTED,
    Kind.SLICE_ASKED,
    Kind.SUBMITTED,
    Kind.SKIPPED,
    Kind.FLAGGED,
}
