"""The campaign: what people may do, decided under a lock and written as events, and which case a person gets next.

Every method sees the newest events before it decides. Errors: `Conflict` (409) where another person holds the
case, with their name and the time left; `NotFound` for an unknown case.

The order of open cases comes from outside as a `Ranking`: scores are computed in the background. Before them come
rejected cases, then hidden gold cases and second readings, as often as the settings ask.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from slicecast.campaign.events import Damage, Draft, Event, EventStore, Kind
from slicecast.campaign.settings import DATABASE, FOLDER, CampaignSettings, campaign_settings
from slicecast.campaign.state import DONE, Case, Lease, ReadingTask, State, Status, fold
from slicecast.errors import Conflict, InputError, UnknownImage


@dataclass(frozen=True, slots=True)
class Choice:
    """A case, and why."""

    case: str
    reason: str
    score: float | None = None  # the strategy's, if it has one
    task: ReadingTask = ReadingTask.ANNOTATE


Ranking = Callable[[Sequence[str]], Sequence[Choice]]
"""Gets the names of the candidates, sorted; returns some or all of them, best first. Must not compute for long."""


def read_twice(case: str, rules: CampaignSettings) -> bool:
    """Tell whether a case is among those read twice: by a hash of its name, neither foreseeable nor changeable."""
    digest = hashlib.sha256(f"{rules.seed}/{case}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < rules.second_share * 2**64


def choose_next(
    state: State,
    who: str,
    *,
    available: Sequence[str],
    ranking: Ranking,
    rules: CampaignSettings,
    rng: random.Random,
    now_s: float,
    avoid: str | None = None,
) -> Choice | None:
    """Choose a person's next case; None when there is nothing left for them.

    Args:
        available: names of the images that there are.
        avoid: the case just handed back; given again only when there is no other.
    """
    free = [case for case in map(state.case, available) if _free(case, who, now_s)]
    gold = _gold(free, who, rules=rules, rng=rng)
    for cases in (free if avoid is None else [case for case in free if case.name != avoid], free):
        choice = (
            _again(cases, who, skipped=False)
            or gold
            or _first(cases, who, ranking, skipped=False)
            or _second(cases, who, rules)
            or _again(cases, who, skipped=True)
            or _first(cases, who, ranking, skipped=True)
        )
        if choice is not None:
            return choice
    return None


def _free(case: Case, who: str, now_s: float) -> bool:
    return case.lease is None or not case.lease.live(now_s) or case.lease.who == who


def _again(cases: Sequence[Case], who: str, *, skipped: bool) -> Choice | None:
    rejected = [case for case in cases if case.status is Status.REJECTED and (who in case.skipped_by) is skipped]
    first = min(rejected, key=lambda case: not case.read_by(who), default=None)  # one's own before the others
    return None if first is None else Choice(first.name, f"rejected in review: {first.note or 'no reason given'}")


def _gold(cases: Sequence[Case], who: str, *, rules: CampaignSettings, rng: random.Random) -> Choice | None:
    """The reason gives nothing away: an annotator must not know."""
    gold = [case for case in cases if case.gold and not case.read_by(who) and who not in case.skipped_by]
    if not gold or rng.random() >= rules.gold_share:
        return None
    return Choice(rng.choice(gold).name, "picked at random", task=ReadingTask.GOLD)


def _first(cases: Sequence[Case], who: str, ranking: Ranking, *, skipped: bool) -> Choice | None:
    names = sorted(
        case.name
        for case in cases
        if case.status is Status.OPEN and not case.gold and (who in case.skipped_by) is skipped
    )
    ranked = ranking(names) if names else ()
    if not ranked:
        return None
    best = ranked[0]
    return Choice(best.case, f"you skipped it before; {best.reason}", best.score) if skipped else best


def _second(cases: Sequence[Case], who: str, rules: CampaignSettings) -> Choice | None:
    for case in cases:
        if _wants_second(case, rules) and not case.read_by(who) and who not in case.skipped_by:
            return Choice(case.name, "to be read by a second person", task=ReadingTask.SECOND)
    return None


def _wants_second(case: Case, rules: CampaignSettings) -> bool:
    read_once = case.reading(ReadingTask.ANNOTATE) is not None and case.reading(ReadingTask.SECOND) is None
    return read_once and case.status in DONE and read_twice(case.name, rules)


SERVER = "server"  # The author of events that no person caused
MAX_TEXT = 500  # Characters of a typed reason

Decision = Callable[[State, float], Sequence[Draft]]


class Campaign:
    """One campaign; many processes may hold one each on the same store.

    Args:
        rng: for gold cases and nothing else.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        rules: CampaignSettings | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.rules = rules or CampaignSettings()
        self._rng = rng or random.Random()
        self._clock = clock
        self._state = State()
        self._guard = threading.Lock()

    def now_s(self) -> float:
        """Return the campaign's time."""
        return self._clock()

    def state(self) -> State:
        """Return the newest state."""
        with self._guard:
            self._state = fold(self.store.read(after=self._state.number), self._state)
            return self._state

    def verify(self) -> Damage | None:
        """Check the chain of events."""
        return self.store.verify()

    def add(self, cases: Mapping[str, bool]) -> int:
        """Make cases known that are not yet (name -> has a final label already); return how many were new."""
        known = self._state.cases
        if all(name in known for name in cases):
            return 0

        def decide(state: State, now_s: float) -> list[Draft]:
            new = [name for name in sorted(cases) if name not in state.cases]
            return [Draft(Kind.ADDED, name, SERVER, {"labelled": bool(cases[name])}) for name in new]

        return len(self._decide(decide))

    def reopen(self, unlabelled: Collection[str]) -> int:
        """Open the cases again that count as done although they have no label; return how many."""
        lost = [name for name in unlabelled if self._is_done(self._state, name)]

        def decide(state: State, now_s: float) -> list[Draft]:
            return [Draft(Kind.REOPENED, name, SERVER) for name in sorted(lost) if self._is_done(state, name)]

        return len(self._decide(decide)) if lost else 0

    @staticmethod
    def _is_done(state: State, name: str) -> bool:
        return name in state.cases and state.cases[name].status in DONE

    def next_case(
        self, who: str, *, available: Sequence[str], ranking: Ranking, strategy: str = "", address: str = ""
    ) -> Choice | None:
        """Give a person the next case, leased to them; what they held is handed back.

        Args:
            available: names of the images that there are.
            ranking: the order of the candidates.
            strategy: the ranking's name, for the record.
            address: where the request came from.
        """
        chosen: list[Choice] = []

        def decide(state: State, now_s: float) -> list[Draft]:
            held = [case for case in state.cases.values() if holds(case, who, now_s)]
            choice = choose_next(
                state,
                who,
                available=available,
                ranking=ranking,
                rules=self.rules,
                rng=self._rng,
                now_s=now_s,
                avoid=held[0].name if held else None,
            )
            drafts = [Draft(Kind.RELEASED, case.name, who) for case in held]
            if choice is None:
                return drafts
            chosen.append(choice)
            return [*drafts, self._lease(choice, who, now_s=now_s, strategy=strategy, address=address)]

        self._decide(decide)
        return chosen[0] if chosen else None

    def take(self, case: str, who: str, *, address: str = "") -> Lease:
        """Lease one case, or renew one's lease of it; raises Conflict if another person holds it."""

        def decide(state: State, now_s: float) -> list[Draft]:
            known = _known(state, case)
            self._refuse_others(known, who, now_s)
            if holds(known, who, now_s):
                return [Draft(Kind.RENEWED, case, who, {"until": now_s + self.rules.lease_s})]
            anew = known.gold or known.status is Status.REJECTED  # whatever their last lease was for
            task = _task(replace(known, lease=None) if anew else known, who)
            choice = Choice(case, "opened by hand", task=task)
            return [self._lease(choice, who, now_s=now_s, strategy="", address=address)]

        self._decide(decide)
        lease = self._state.case(case).lease
        if lease is None:  # only where the store was changed from outside meanwhile
            raise Conflict(f"'{case}' could not be leased. Try again.")
        return lease

    def heartbeat(self, case: str, who: str) -> Lease:
        """Prolong the lease of a person who is still working on the case.

        Raises:
            Conflict: the lease is over, or another's.
        """
        held = self.state().case(case)
        if not holds(held, who, self._clock()):
            self._refuse_others(held, who, self._clock())
            raise Conflict(f"Your lease of '{case}' is over. Ask for it again; your draft is kept.")
        return self.take(case, who)

    def release(self, case: str, who: str) -> None:
        """Hand a case back without a label."""
        self._write(Kind.RELEASED, case, who)

    def skip(self, case: str, who: str, *, why: str = "") -> None:
        """Leave a case to others; one gets it again only when nothing else is left."""
        self._write(Kind.SKIPPED, case, who, {"why": _text(why)})

    def flag(self, case: str, who: str, *, why: str = "") -> None:
        """Put a case before a reviewer instead of submitting it.

        Raises:
            Conflict: another person holds the case, or its label is approved.
        """
        _refuse_approved(self.state().case(case), ReadingTask.ANNOTATE)
        self._write(Kind.FLAGGED, case, who, {"why": _text(why)})

    def ask_slice(self, case: str, who: str, *, number: int, axis: str) -> None:
        """Record the slice that a person wants annotated next."""
        self._write(Kind.SLICE_ASKED, case, who, {"slice": int(number), "axis": axis})

    def predicted(self, case: str, who: str, data: Mapping[str, Any]) -> None:
        """Record a model's answer; it also prolongs the holder's lease."""

        def decide(state: State, now_s: float) -> list[Draft]:
            drafts = [Draft(Kind.PREDICTED, case, who, data)]
            lease = state.case(case).lease
            renew = holds(state.case(case), who, now_s) and lease and lease.until_s - now_s < self.rules.lease_s / 2
            until = {"until": now_s + self.rules.lease_s}
            return [*drafts, Draft(Kind.RENEWED, case, who, until)] if renew else drafts

        self._decide(decide)

    def task_of(self, case: str, who: str, *, anyones: bool = False) -> ReadingTask:
        """Return what a label of this case by this person would be.

        Args:
            anyones: they may label a case that another person holds.

        Raises:
            Conflict: another person holds the case, or its label is approved.
        """
        known = self.state().case(case)
        if not anyones:
            self._refuse_others(known, who, self._clock())
        task = _task(known, who)
        _refuse_approved(known, task)
        return task

    def submitted(
        self,
        case: str,
        who: str,
        data: Mapping[str, Any],
        *,
        task: ReadingTask = ReadingTask.ANNOTATE,
        anyones: bool = False,
    ) -> None:
        """Record a saved label; ends the person's lease.

        Args:
            data: tag, version, sha256, model, model_hash, active_s, as far as known.
            task: what the label is for.
            anyones: they may label a case that another person holds.

        Raises:
            Conflict: another person holds the case, or its label is approved.
        """

        def decide(state: State, now_s: float) -> list[Draft]:
            known = _known(state, case)
            if not anyones:
                self._refuse_others(known, who, now_s)
            _refuse_approved(known, task)
            return [Draft(Kind.SUBMITTED, case, who, {**data, "task": str(task)})]

        self._decide(decide)

    def approve(self, case: str, who: str, *, why: str = "", asked: Mapping[str, Any] | None = None) -> None:
        """Accept a case's label, with a note (`why`) on a slice (`asked`: `slice`, `axis`) or without.

        Raises:
            Conflict: there is no label, or it is the reviewer's own.
        """
        self._judge(Kind.APPROVED, case, who, {"why": _text(why), **(asked or {})} if why else {})

    def reject(self, case: str, who: str, *, why: str, asked: Mapping[str, Any] | None = None) -> None:
        """Send a case back to be done again, at the slice `asked` (`slice`, `axis`), if the reviewer names one.

        Raises:
            Conflict: there is no label.
            InputError: its label is approved, and no reason is given.
        """
        self._judge(Kind.REJECTED, case, who, {"why": _text(why), **(asked or {})})

    def compared(self, case: str, data: Mapping[str, Any]) -> None:
        """Record how alike two labels of a case are: `against` (second, gold, draft), dice, nsd, hd95_mm and more."""
        self._decide(lambda state, now_s: [Draft(Kind.COMPARED, _known(state, case).name, SERVER, data)])

    def weights_changed(self, kind: Kind, who: str, data: Mapping[str, Any]) -> None:
        """Record that other weights of the model are used from now on: promoted or rolled back."""
        self._decide(lambda state, now_s: [Draft(kind, "", who, data)])

    def require(self, case: str) -> Case:
        """Return a case; raises UnknownImage if there is none of that name."""
        return _known(self.state(), case)

    def add_gold(self, case: str, who: str, *, truth_sha256: str) -> None:
        """Make a case a hidden gold one."""
        self._decide(lambda state, now_s: [Draft(Kind.GOLD, case, who, {"truth_sha256": truth_sha256})])

    def _judge(self, kind: Kind, case: str, who: str, data: Mapping[str, Any]) -> None:
        def decide(state: State, now_s: float) -> list[Draft]:
            known = _known(state, case)
            first = known.reading(ReadingTask.ANNOTATE)
            if known.status not in (Status.SUBMITTED, Status.FLAGGED, Status.APPROVED):
                raise Conflict(f"'{case}' is {known.status}: there is no label to judge. Submit one first.")
            if kind is Kind.APPROVED and known.status is Status.FLAGGED and first is None:
                raise Conflict(f"'{case}' has no label yet. Label it, or reject it with a reason.")
            if kind is Kind.APPROVED and first is not None and first.who == who:
                raise Conflict(f"You labelled '{case}' yourself. Another person must approve it.")
            if kind is Kind.REJECTED and known.status is Status.APPROVED and not data["why"]:
                raise InputError(f"The label of '{case}' is approved. Give the reason ('why') to open it again.")
            return [Draft(kind, case, who, data)]

        self._decide(decide)

    def _write(self, kind: Kind, case: str, who: str, data: Mapping[str, Any] | None = None) -> None:
        def decide(state: State, now_s: float) -> list[Draft]:
            self._refuse_others(_known(state, case), who, now_s)
            return [Draft(kind, case, who, data or {})]

        self._decide(decide)

    def _decide(self, decision: Decision) -> list[Event]:
        def decide(seen: list[Event]) -> tuple[Sequence[Draft], float]:
            self._state = fold(seen, self._state)
            now_s = max(self._clock(), self._state.when_s)  # time never runs back in the list
            return decision(self._state, now_s), now_s

        with self._guard:
            _, written = self.store.append(decide, after=self._state.number)
            self._state = fold(written, self._state)
            return written

    def _lease(self, choice: Choice, who: str, *, now_s: float, strategy: str, address: str) -> Draft:
        data = {
            "task": str(choice.task),
            "until": now_s + self.rules.lease_s,
            "reason": choice.reason,
            "strategy": strategy,
            "address": address,
        }
        return Draft(Kind.LEASED, choice.case, who, data if choice.score is None else {**data, "score": choice.score})

    @staticmethod
    def _refuse_others(case: Case, who: str, now_s: float) -> None:
        lease = case.lease
        if lease is not None and lease.who != who and lease.live(now_s):
            left = words_for(lease.until_s - now_s)
            raise Conflict(f"'{case.name}' is with {lease.who} for another {left}. Take another case, or ask them.")


def open_campaign(studies: Path) -> Campaign:
    """Open the campaign of a folder of studies, or begin it."""
    settings, folder = campaign_settings(), studies / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return Campaign(EventStore(settings.url(folder)), rules=settings, clock=steady_clock())


def steady_clock(
    wall: Callable[[], float] = time.time, passed: Callable[[], float] | None = None
) -> Callable[[], float]:
    """Return a clock that begins with the time of day and then counts what passes, so that leases end when they should.

    Args:
        wall: seconds since 1970, which somebody may set.
        passed: seconds since any moment, those of a sleeping computer too where the system counts them.
    """
    if passed is None:
        passed = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
    begun_s = wall() - passed()
    return lambda: begun_s + passed()


def existing_campaign(studies: Path) -> Campaign | None:
    """Open the campaign of a folder of studies; None where none was begun."""
    begun = campaign_settings().database or (studies / FOLDER / DATABASE).is_file()
    return open_campaign(studies) if begun else None


def holds(case: Case, who: str, now_s: float) -> bool:
    """Tell whether a person holds a live lease of a case."""
    return case.lease is not None and case.lease.who == who and case.lease.live(now_s)


def is_blind(case: Case, who: str) -> bool:
    """Tell whether a person reads this case as the second one, and must not see the first one's label."""
    return case.lease is not None and case.lease.who == who and case.lease.task is not ReadingTask.ANNOTATE


def hidden(case: Case) -> Case:
    """Return a case as an annotator may see it: without its being gold."""
    lease = None if case.lease is None else replace(case.lease, task=ReadingTask.ANNOTATE)
    return replace(case, gold=False, lease=lease, comparisons=())


def words_for(seconds: float) -> str:
    """Put a time into words."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _known(state: State, case: str) -> Case:
    if case not in state.cases:
        raise UnknownImage(f"There is no case '{case}' in the campaign. Ask for the list of images again.")
    return state.cases[case]


def _task(case: Case, who: str) -> ReadingTask:
    if case.lease is not None and case.lease.who == who:
        return case.lease.task
    if case.gold:
        return ReadingTask.GOLD
    last = next((reading for reading in reversed(case.readings) if reading.who == who), None)
    if last is not None and case.status is not Status.REJECTED:  # a second reading once more corrects that one
        return last.task
    return ReadingTask.ANNOTATE


def _refuse_approved(case: Case, task: ReadingTask) -> None:
    if case.status is Status.APPROVED and task is ReadingTask.ANNOTATE:
        raise Conflict(
            f"The label of '{case.name}' is approved. To change it, let a reviewer reject it, with a reason."
        )


def _text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise InputError(f"The reason has {len(text)} characters; at most {MAX_TEXT} are kept. Shorten it.")
    return text.strip()
