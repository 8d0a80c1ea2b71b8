"""Work at a server: done once, its logs are kept in `recorded/`, and again by each run of the tests."""

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import SimpleITK as sitk
import yaml
from golden.product import CONFIGS, SAMPLES, copy_studies, run, serving

SESSION_SCAN, SESSION = "ct_abdomen_b", "/slicecast/sessions"
FIRST, SECOND, THIRD, FOURTH = "ct_abdomen_a", "ct_abdomen_b", "mr_brain_a", "mr_brain_b"
CLICKS = {FIRST: [86, 68, 35], SECOND: [54, 49, 22]}
LABEL = "liver"


def record_logs(files: Path, folder: Path) -> None:
    """Work at a server for a while, and keep what it leaves behind."""
    studies = copy_studies(folder / "studies")
    with serving(studies, folder / "app", configs=with_second_readers(folder / "configs")) as client:
        session, _ = work_in_session(client, folder)
        work_in_campaign(client, studies, folder)
    keep(folder / "app" / "sessions" / "sessions.sqlite", files / "sessions.sqlite", _without_paths)
    keep(studies / "campaign" / "campaign.db", files / "campaign.db")
    sessions, log = folder / "app" / "sessions", folder / "log.jsonl"
    written = run("replay", "--session", session, "--folder", sessions, "--log", log)
    assert written.code == 0, written
    lines = log.read_text(encoding="utf-8").replace(f"{studies}/", "")
    (files / "session.jsonl").write_text(lines, encoding="utf-8")
    live = {"session": session}
    (files / "live.json").write_text(json.dumps(live) + "\n", encoding="utf-8")


def keep(base: Path, copy: Path, change: Iterable[str] = ()) -> None:
    """Copy a database into one small file."""
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(base)) as opened:
        for statement in change:
            opened.execute(statement)
        opened.commit()
        opened.execute("VACUUM INTO ?", (str(copy),))


_without_paths = (f"UPDATE sessions SET image = '{SESSION_SCAN}.nii.gz'",)


def copy_sessions(files: Path, folder: Path, studies: Path) -> Path:
    """Copy the recorded sessions to where a server looks for them, and say where the scans lie now."""
    folder.mkdir(parents=True)
    file = Path(shutil.copy(files / "sessions.sqlite", folder))
    with closing(sqlite3.connect(file)) as base, base:
        base.execute("UPDATE sessions SET image = ? || '/' || image", (str(studies),))
    return folder


def copy_campaign(files: Path, studies: Path) -> Path:
    """Copy the recorded campaign to where a server looks for it."""
    (studies / "campaign").mkdir(parents=True)
    return Path(shutil.copy(files / "campaign.db", studies / "campaign"))


def work_in_session(client: httpx.Client, folder: Path) -> tuple[str, np.ndarray]:
    """Say everything that a session can be told; the session's id, left open, and its mask."""
    opened = _done(client.post(SESSION, json={"image": SESSION_SCAN, "client_id": "ann"})).json()
    path = f"{SESSION}/{opened['id']}"

    def post(action: str, body: Any = None) -> httpx.Response:
        return _done(client.post(f"{path}/{action}", json=body))

    def say(*prompts: dict[str, Any]) -> None:
        post("prompts", {"prompts": list(prompts)})

    say(_point("kidney", 98, 73, 11))
    say(
        {"kind": "box", "object": "liver", "low_ijk": [28, 31, 22], "high_ijk": [95, 80, 22]},
        {"kind": "absent", "object": "kidney", "slice": 25},
    )
    say(_point("kidney", 108, 66, 11, positive=False))
    post("undo")
    post("redo")
    painted = {"file": ("spleen.nii.gz", painted_spleen(folder).read_bytes())}
    _done(client.post(f"{path}/masks", data={"object": "spleen"}, files=painted))
    post("propagate")
    post("accept", {"object": "kidney", "slices": [11, 12]})
    post("accept", {"object": "spleen", "slices": [18]})
    post("release", {"object": "spleen", "slices": [18]})
    say(_point("kidney", 98, 73, 14))
    say(_point("kidney", 60, 60, 14))
    post("undo")
    negative = next(p for p in _done(client.get(path)).json()["prompts"] if p.get("positive") is False)
    _done(client.delete(f"{path}/prompts/{negative['id']}"))
    post("propagate")
    return str(opened["id"]), session_result(client, opened["id"])


def session_result(client: httpx.Client, session: str) -> np.ndarray:
    """Return a session's mask, uint8 [k, j, i]."""
    return read_array(_done(client.get(f"{SESSION}/{session}/result", params={"format": "nrrd"})).content, ".nrrd")


def _point(name: str, *ijk: int, positive: bool = True) -> dict[str, Any]:
    return {"kind": "point", "object": name, "ijk": ijk, "positive": positive}


def painted_spleen(folder: Path) -> Path:
    """Write the true spleen of one slice."""
    truth = sitk.ReadImage(str(SAMPLES / "truth" / f"{SESSION_SCAN}.nii.gz"))
    array = sitk.GetArrayFromImage(truth)
    array = np.where((np.arange(len(array)) == 16)[:, None, None] & (array == 2), 1, 0).astype(np.uint8)
    return _write(array, truth, folder / "spleen.nii.gz")


def work_in_campaign(client: httpx.Client, studies: Path, folder: Path) -> None:
    """Let people label, skip, flag, review and read again, until every kind of event was written."""
    _done(client.post("/activelearning/first", json={"client_id": "ann"}))
    _act(client, "ann", FIRST, "take")
    infer(client, FIRST, {"label": LABEL, "foreground": [CLICKS[FIRST]], "background": [], "client_id": "ann"})
    _act(client, "ann", FIRST, "slice", {"slice": 30, "axis": "axial"})
    _act(client, "ann", FIRST, "heartbeat")
    _submit(client, "ann", FIRST, folder)
    _act(client, "rita", FIRST, "approve")
    _act(client, "bob", SECOND, "take")
    infer(client, SECOND, {"label": LABEL, "foreground": [CLICKS[SECOND]], "background": [], "client_id": "bob"})
    _act(client, "bob", SECOND, "submit")
    _act(client, "rita", SECOND, "reject", {"why": "the tip is missing"})
    _act(client, "bob", SECOND, "take")
    _submit(client, "bob", SECOND, folder)
    _act(client, "cid", THIRD, "take")
    _act(client, "cid", THIRD, "skip", {"why": "not mine"})
    _act(client, "cid", THIRD, "take")
    _act(client, "cid", THIRD, "release")
    added = run("campaign", "add-gold", "--studies", studies, FOURTH, SAMPLES / "truth" / f"{FOURTH}.nii.gz")
    assert added.code == 0, added
    for who in ("dora", "dora", "eve", "eve"):  # the gold case, one of their own, the gold case, a second reading
        case = _done(client.post("/activelearning/first", json={"client_id": who})).json()["id"]
        _submit(client, who, case, folder)
    _act(client, "cid", THIRD, "flag", {"why": "odd scan"})
    _done(client.delete("/datastore/label", params={"id": SECOND, "tag": "final"}))
    client.get("/campaign/")


def _act(client: httpx.Client, who: str, case: str, action: str, body: dict[str, Any] | None = None) -> None:
    headers = {"X-Requested-With": "slicecast", "X-Slicecast-User": who}
    _done(client.post(f"/campaign/case/{case}/{action}", json=body or {}, headers=headers))


def _submit(client: httpx.Client, who: str, case: str, folder: Path) -> None:
    """Save the true label of a case as a person's own, as MONAI Label's client does."""
    truth = sitk.ReadImage(str(SAMPLES / "truth" / f"{case}.nii.gz"))
    array = sitk.GetArrayFromImage(truth)
    file = _write((array == array[array > 0].min()).astype(np.uint8), truth, folder / f"{who}-{case}.nii.gz")
    params = {"label_info": [{"name": LABEL, "idx": 1}], "client_id": who}
    _done(
        client.put(
            "/datastore/label",
            params={"image": case, "tag": "final"},
            data={"params": json.dumps(params)},
            files={"label": (file.name, file.read_bytes())},
        )
    )


def infer(client: httpx.Client, image: str, params: dict[str, Any], model: str = "sam2_single") -> np.ndarray:
    """Ask for a mask on MONAI Label's route; uint8 [k, j, i]."""
    query = {"image": image, "output": "image"}
    content = {**params, "result_extension": ".nrrd", "result_dtype": "uint8"}
    answer = _done(client.post(f"/infer/{model}", params=query, data={"params": json.dumps(content)}))
    return read_array(answer.content, ".nrrd")


def read_array(content: bytes, ending: str) -> np.ndarray:
    """Read a volume that came over HTTP, [k, j, i]."""
    with tempfile.NamedTemporaryFile(suffix=ending) as file:
        file.write(content)
        file.flush()
        return sitk.GetArrayFromImage(sitk.ReadImage(file.name))


def digest(mask: np.ndarray) -> str:
    """Return the SHA-256 of a mask's voxels."""
    return hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()


def _write(array: np.ndarray, like: sitk.Image, file: Path) -> Path:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(like)
    sitk.WriteImage(image, str(file))
    return file


def with_second_readers(folder: Path) -> Path:
    """Write settings with which every case is read twice, a gold case is certain to come, and nothing is done ahead."""
    shutil.copytree(CONFIGS, folder)
    _set(folder / "campaign.yaml", second_share=1.0, gold_share=1.0)
    _set(folder / "active.yaml", background=False)
    _set(folder / "engine.yaml", idle_encode=False)
    return folder


def _set(file: Path, **values: Any) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**content, **values}), encoding="utf-8")


def _done(response: httpx.Response) -> httpx.Response:
    assert response.is_success, f"{response.request.url}: {response.status_code} {response.text}"
    return response
