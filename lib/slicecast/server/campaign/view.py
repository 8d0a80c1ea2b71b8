"""What the page `/campaign/` shows, worked out before any HTML."""

from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from slicecast.campaign.campaign import holds, is_blind, words_for
from slicecast.campaign.report import (
    agreements,
    calibration,
    calibration_words,
    draw_calibration,
    draw_learning_curve,
    draw_minutes,
    people,
    progress,
)
from slicecast.campaign.state import Case, Reading, ReadingTask, State, Status
from slicecast.errors import NotFound, SlicecastError, UnknownImage
from slicecast.inference.caller import Caller, current_caller
from slicecast.labelling.app import AppBehaviour
from slicecast.labelling.campaign.service import CampaignService
from slicecast.labelling.store.unusable import nested_volumes
from slicecast.volume import Reorientation, SliceAxis

ROWS = 25  # Cases on one page
QUEUE = 8  # Cases of the queue that are shown
LOW_CONFIDENCE = 0.7  # A bar below this is drawn in the warning colour; nothing else depends on it


def overview(app: AppBehaviour, *, status: str, find: str, page: int) -> dict[str, Any]:
    """Return the content of the first page."""
    service, caller = app.campaign_service, current_caller()
    service.sync()
    unusable, who, now_s = service.unusable(), service.who(), service.campaign.now_s()
    state = _without(service.campaign.state(), unusable)
    queue = service.queue(app.own_strategy())
    reasons = {choice.case: choice.reason for choice in queue}
    listed = [_row(service, case, now_s, reasons, who) for case in _found(state, status, find)]
    busy = [case for case in state.cases.values() if case.lease is not None and case.lease.live(now_s)]
    free = [choice for choice in queue if choice.case not in {case.name for case in busy}]
    return {
        **_who(caller, who),
        "progress": progress(state),
        "total": sum(progress(state).values()),
        "mine": [_row(service, case, now_s, reasons, who) for case in busy if case.lease and case.lease.who == who],
        "busy": [_row(service, case, now_s, reasons, who) for case in busy if case.lease and case.lease.who != who],
        "queue": [{**_row(service, state.case(choice.case), now_s, reasons, who)} for choice in free[:QUEUE]],
        "queued": len(free),
        "strategy": app.config.strategy,
        "unusable": unusable | nested_volumes(Path(app.studies)),
        "refused": service.dropped.refused,
        "changed": service.dropped.changed,
        "to_review": [_row(service, case, now_s, reasons, who) for case in waiting(state)][:QUEUE],
        "rows": listed[(page - 1) * ROWS : page * ROWS],
        "found": len(listed),
        "page": page,
        "pages": max(1, -(-len(listed) // ROWS)),
        "status": status,
        "find": find,
        "people": people(state),
        "tuning": app.fine_tuner.stats(),
        "may_train": caller.may("admin"),
        "agreements": _agreements(state, caller)[-12:],
        "curve": draw_learning_curve(state),
        "calibration": draw_calibration(state),
        "calibration_words": calibration_words(calibration(state)),
        "minutes": draw_minutes(state),
    }


def case_page(app: AppBehaviour, name: str) -> dict[str, Any]:
    """Return the content of a case's page; raises UnknownImage if there is no such case."""
    service = app.campaign_service
    service.sync()
    state = service.campaign.state()
    if name not in state.cases:
        raise UnknownImage(f"There is no case '{name}'. Go back to the list.")
    case, who, now_s = state.case(name), service.who(name), service.campaign.now_s()
    found = service.work.current(name, who)
    record = {} if found is None else found.record
    axis, asked = record.get("axis") or "auto", (case.asked or {}).get("slice")
    suggested = (record.get("next_slice") or {}).get("slice")
    counts = _viewer_numbers(app, record.get("image", name), axis)
    return {
        **_who(current_caller(), who),
        "case": _row(service, case, now_s, {}, who),
        "in_viewer": {number: counts(number) for number in (asked, suggested) if number is not None},
        "blind": is_blind(case, who),
        "mine": holds(case, who, now_s),
        "submit": _may_submit(service, name, who),
        "shown": record.get("when_s"),
        "mask": found is not None,
        "objects": {} if found is None else service.work.structures(found).objects(),
        "confidence": [{**bar, "viewer": counts(bar["slice"])} for bar in _bars(record, case)],
        "axis": axis,
        "mean_confidence": record.get("mean_confidence"),
        "calibrated": record.get("confidence_kind") == "calibrated",
        "next_slice": record.get("next_slice"),
        "good_enough": record.get("good_enough"),
        "asked": case.asked,
        **judging(service, case, who),
        "readings": [] if is_blind(case, who) or case.gold else [_reading(r) for r in case.readings],
        "agreements": []
        if is_blind(case, who)
        else [a for a in _agreements(state, current_caller()) if a["case"] == name],
        "ohif": ohif_link(service, name),
        "stamp": int(now_s),
    }


def waiting(state: State) -> list[Case]:
    """Return the cases that wait for a reviewer."""
    return [c for c in state.cases.values() if c.status in (Status.SUBMITTED, Status.FLAGGED) and not c.gold]


def judging(service: CampaignService, case: Case, who: str) -> dict[str, Any]:
    """Say how a case stands, which label can be approved or rejected, and whether it is the person's own."""
    reading = case.reading(ReadingTask.ANNOTATE)
    return {
        "status": _shown_status(case),
        "may_judge": case.status in (Status.SUBMITTED, Status.FLAGGED, Status.APPROVED) and not case.gold,
        "reviewer": current_caller().may("reviewer"),
        "label": service.mark(case.name),
        "own": reading is not None and reading.who == who,
    }


def ohif_link(service: CampaignService, name: str) -> str | None:
    """Return the address that opens a case in OHIF; None where the image belongs to no DICOM study."""
    study = service.study_uid(name)
    return f"/ohif/monai-label?{urlencode({'StudyInstanceUIDs': study})}" if study else None


def _viewer_numbers(app: AppBehaviour, image: str, axis: str) -> Callable[[int], int | None]:
    """Return what turns a slice's number into that which OHIF shows; None where OHIF cuts along other slices."""
    if axis.upper() not in SliceAxis.__members__:
        return lambda number: None
    try:
        turn = app.service.studies.open(app.image_path(image)).reorientation
    except SlicecastError:  # such as an image that was removed
        return lambda number: None
    return lambda number: viewer_number(turn, SliceAxis[axis.upper()], number)


def viewer_number(turn: Reorientation, axis: SliceAxis, number: int) -> int | None:
    """Return the number, from 1, that OHIF shows for a slice of a scan.

    OHIF counts from the head, from the patient's right and from the back, along the axes of the patient.

    Args:
        turn: of the scan.
        axis: along which slices are counted.
        number: as stored, from 0.

    Returns:
        None for an oblique scan, which OHIF cuts along other slices.
    """
    if not np.allclose(turn.geometry.direction_matrix, np.eye(3), atol=1e-3):
        return None
    place = turn.to_canonical_slice(axis, number)
    return place + 1 if axis is SliceAxis.SAGITTAL else turn.geometry.size_ijk[axis] - place


def status(state: State) -> dict[str, Any]:
    """Return progress, people and agreement as JSON values."""
    return {
        "events": state.number,
        "head": f"{state.number}:{state.digest}",
        "progress": progress(state),
        "people": [asdict(person) for person in people(state)],
        "agreement": _agreements(state, current_caller()),
    }


def _who(caller: Caller, who: str) -> dict[str, Any]:
    return {"who": who, "named": caller.called() is not None, "login": caller.user, "reviewer": caller.may("reviewer")}


def _without(state: State, unusable: Collection[str]) -> State:
    """Leave out cases that cannot be segmented, unless they have a label; they are listed apart."""
    return replace(state, cases={n: case for n, case in state.cases.items() if n not in unusable or case.readings})


def _found(state: State, status: str, find: str) -> list[Case]:
    cases = sorted(state.cases.values(), key=lambda case: case.name)
    return [c for c in cases if (not status or _shown_status(c) == status) and find.lower() in c.name.lower()]


def _row(service: CampaignService, case: Case, now_s: float, reasons: dict[str, str], who: str) -> dict[str, Any]:
    lease = case.lease if case.lease is not None and case.lease.live(now_s) else None
    reading = case.reading(ReadingTask.ANNOTATE)
    confidence = (case.prediction or {}).get("mean_confidence")
    return {
        "name": case.name,
        "title": service.title(case.name),
        "status": _shown_status(case),
        "reason": (lease.reason if lease else "") or reasons.get(case.name, ""),
        "holder": lease.who if lease else "",
        "left": words_for(lease.until_s - now_s) if lease else "",
        "confidence": None if is_blind(case, who) else confidence,
        "annotator": "" if is_blind(case, who) else reading.who if reading else "",
        "minutes": round(reading.active_s / 60, 1) if reading and not is_blind(case, who) else None,
        "note": case.note,
    }


def _shown_status(case: Case) -> str:
    """A gold case looks like any other."""
    return str(Status.SUBMITTED if case.gold and case.readings else case.status)


def _may_submit(service: CampaignService, name: str, who: str) -> bool:
    try:
        return service.work.to_submit(name, who) is not None
    except NotFound:
        return False


def _bars(record: dict[str, Any], case: Case) -> list[dict[str, Any]]:
    asked = (case.asked or {}).get("slice")
    return [
        {**entry, "low": entry["value"] < LOW_CONFIDENCE, "asked": entry["slice"] == asked}
        for entry in record.get("confidence") or ()
        if entry.get("value") is not None
    ]


def _reading(reading: Reading) -> dict[str, Any]:
    when = datetime.fromtimestamp(reading.when_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"who": reading.who, "when": when, "task": str(reading.task), "minutes": round(reading.active_s / 60, 1)}


def _agreements(state: State, caller: Caller) -> list[dict[str, Any]]:
    """Return second readings; those against gold only to a reviewer who has logged in."""
    gold = caller.roles is not None and caller.may("reviewer")
    against = (ReadingTask.SECOND, *((ReadingTask.GOLD,) if gold else ()))
    return [asdict(a) for a in agreements(state, against=against)]
