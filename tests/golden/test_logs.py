"""Logs of earlier versions: they replay and verify, and today's work leaves the same kind of log."""

import csv
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
from golden.product import SAMPLES, Call, Done, run, run_all
from golden.work import SESSION, SESSION_SCAN, copy_campaign, copy_sessions, digest, session_result

SCAN = SAMPLES / "studies" / f"{SESSION_SCAN}.nii.gz"
WHEN = ("id", "image", "created_at", "used_at", "closed_at")


@pytest.fixture(scope="module")
def live(files: Path) -> dict[str, str]:
    """The recorded session's id."""
    return json.loads((files / "live.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def replayed(files: Path, live: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the masks and the log that `replay` makes of the recorded session."""
    folder = tmp_path_factory.mktemp("replay")
    copy_sessions(files, folder / "sessions", SCAN.parent)
    stored = ("--session", live["session"], "--folder", str(folder / "sessions"), "--log", str(folder / "again.jsonl"))
    log = (str(files / "session.jsonl"), "--image", str(SCAN))
    calls = [(*stored, "-o", "stored.nrrd"), (*log, "-o", "log.nrrd"), (*log, "--revision", "2", "-o", "early.nrrd")]
    words = [("replay", *call[:-1], str(folder / call[-1]), "--device", "cpu") for call in calls]
    for done in run_all([Call(each) for each in words], heavy=["torch"]):
        assert done.code == 0, done
    return folder


def mask_hash(file: Path) -> str:
    return digest(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))


@pytest.mark.parametrize("name", ["stored", "log"])
def test_an_old_session_replays_to_one_mask(name, replayed, golden):
    golden("old_session_mask", mask_hash(replayed / f"{name}.nrrd"))


def test_an_old_session_replays_to_an_earlier_revision(replayed, golden):
    golden("early", mask_hash(replayed / "early.nrrd"))


def test_an_old_log_is_written_again_as_it_is(replayed, files):
    (header, *records), (old, *expected) = lines(replayed / "again.jsonl"), lines(files / "session.jsonl")
    assert records == expected
    assert {**header, "image": old["image"]} == old


def test_a_server_goes_on_with_an_old_session(place, live, golden):
    state = place.client.get(f"{SESSION}/{live['session']}").raise_for_status().json()
    golden("session", {key: value for key, value in state.items() if key != "used_at"})
    golden("old_session_mask", digest(session_result(place.client, live["session"])))


def test_the_same_work_gives_the_same_log(place, files, golden, tmp_path):
    """But for the masks that it accepted: those are of the weights of their day, and so is what follows from them."""
    golden("live_mask", digest(place.mask))
    done = run("replay", "--session", place.session, "--folder", place.sessions, "--log", tmp_path / "new.jsonl")
    assert done.code == 0, done
    (header, *records), (old, *expected) = lines(tmp_path / "new.jsonl"), lines(files / "session.jsonl")
    assert without_accepted_bits(records) == without_accepted_bits(expected)
    kept = header["options"].keys() & old["options"].keys()  # an option may come or go
    assert {name: header["options"][name] for name in kept} == {name: old["options"][name] for name in kept}
    for content in (header, old):
        for key in (*WHEN, "options"):
            content.pop(key)
    assert header == old


def without_accepted_bits(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records without the masks of accepted slices."""

    def bare(entry: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in entry.items() if key != "bits" or "accept" not in entry}

    return [record | {"edit": [bare(e) for e in record["edit"]]} if "edit" in record else record for record in records]


def lines(log: Path) -> list[dict[str, Any]]:
    """Read lines of JSON."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def campaign(files: Path, tmp_path: Path) -> Path:
    """A folder of studies with the recorded campaign."""
    copy_campaign(files, tmp_path / "studies")
    return tmp_path / "studies"


def on(studies: Path, action: str, *words: object) -> Done:
    return run("campaign", action, "--studies", studies, *words)


def events(base: Path) -> list[tuple[Any, ...]]:
    """Return number, kind, case, person and data of each event."""
    with closing(sqlite3.connect(base)) as opened:
        rows = opened.execute("SELECT number, kind, case_name, who, data FROM slicecast_events ORDER BY number")
        return [(*row[:4], json.loads(row[4])) for row in rows]


def test_an_old_chain_of_events_holds_and_means_the_same(campaign, golden, tmp_path):
    table = tmp_path / "cases.csv"
    calls = (("verify",), ("status", "--json"), ("export", "--format", "csv", "-o", str(table)))
    words = [("campaign", call[0], "--studies", str(campaign), *call[1:]) for call in calls]
    verified, status, exported = run_all([Call(each) for each in words])
    assert (verified.code, status.code, exported.code) == (0, 0, 0), (verified, status, exported)
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    golden("campaign", {"verify": verified.output.strip(), "status": json.loads(status.output), "table": rows})


def test_an_old_chain_goes_on(campaign, files):
    head = json.loads((files / "campaign.json").read_text(encoding="utf-8"))["status"]["head"]
    before = events(campaign / "campaign" / "campaign.db")
    truth = SAMPLES / "truth" / "mr_brain_a.nii.gz"
    for done in (on(campaign, "add-gold", "mr_brain_a", truth), on(campaign, "verify", "--head", head)):
        assert done.code == 0, done
    after = events(campaign / "campaign" / "campaign.db")
    assert after[:-1] == before and after[-1][1:3] == ("gold", "mr_brain_a")


def test_a_changed_event_is_found(campaign):
    with closing(sqlite3.connect(campaign / "campaign" / "campaign.db")) as base, base:
        base.execute("UPDATE slicecast_events SET who = 'eve' WHERE number = 10")
    done = on(campaign, "verify")
    assert done.code != 0 and "event 10" in done.output.lower(), done


def test_the_same_work_gives_the_same_kinds_of_events(place, files, tmp_path):
    base = Path(shutil.copytree(place.studies / "campaign", tmp_path / "campaign")) / "campaign.db"
    assert kinds(events(base)) == kinds(events(files / "campaign.db"))


def kinds(found: list[tuple[Any, ...]]) -> dict[str, list[str]]:
    """Return, of each kind of event, the keys of its data."""
    keys: dict[str, set[str]] = {}
    for _, kind, _, _, data in found:
        keys.setdefault(kind, set()).update(data)
    return {kind: sorted(names) for kind, names in keys.items()}
