"""A disk that is really full: every route that writes says so, nothing is half there, and all goes on afterwards.

Studies, app and temporary files lie on a small disk of their own, which needs root on Linux.
"""

import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import blosc2  # noqa: F401 # before the disk is full
import numpy as np
import pytest
from builders import phantom
from httpx import Response
from labelserver import TestClient, label_bytes, serving, write_studies

from slicecast.dicom.seg import SegNames, write_seg
from slicecast.server.campaign.routes import ACTIONS
from slicecast.server.dependencies import labelling_app
from slicecast.server.errors import DISK_FULL
from slicecast.server.nninteractive.prompts import pack
from slicecast.volume import read_volume

MB = 24
ANN, BOB = ({"X-Requested-With": "slicecast", "X-Slicecast-User": who} for who in ("ann", "bob"))
LABEL = label_bytes()
CENTRE = [12, 10, 8]


@dataclass
class Place:
    """A server on a small disk."""

    disk: Path
    client: TestClient
    sessions: dict[str, str] = field(default_factory=dict)
    lease: str = ""
    scan: bytes = b""
    seg: bytes = b""

    def fill(self) -> None:
        """Leave no room, not even in what databases have taken already."""
        self.top_up()
        numbers = iter(range(10**6))
        while press(self, "drafted", "slice", slice=next(numbers) % 16).is_success:
            pass
        while click(self, [next(numbers) % 16, 3, 3]).is_success:
            pass

    def top_up(self) -> None:
        """Take the room that a database gave back, as it does when it writes its log into itself."""
        with (self.disk / "ballast").open("ab", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(b"x" * 4096)

    def free(self) -> None:
        """Make room again."""
        (self.disk / "ballast").unlink()

    def work(self) -> dict[str, str]:
        """Return the hash of each file that holds somebody's work."""
        files = (path for path in self.disk.rglob("*") if path.is_file())
        kept = (file for file in files if not (LEFT_OUT & set(file.relative_to(self.disk).parts)))
        return {
            str(file.relative_to(self.disk)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in kept
            if not file.name.endswith((".lock", "-wal", "-shm", ".db", ".sqlite"))
        }


ATTEMPTS = 3
LEFT_OUT = {"ballast", "tmp", "logs", "scores", "outbox"}
"""Temporary files, logs, and what is computed anew."""


def done(answer: Response) -> Response:
    assert answer.is_success, answer.text
    return answer


def press(place: Place, case: str, action: str, **body: object):
    who = BOB if action in ("approve", "reject", "reopen") else ANN
    return place.client.post(f"/campaign/case/{case}/{action}", json={"why": "once more", **body}, headers=who)


def prompts(ijk: list[int]) -> dict[str, object]:
    return {"prompts": [{"kind": "point", "object": "liver", "ijk": ijk, "positive": True}]}


def click(place: Place, ijk: list[int], kind: str = "main"):
    return place.client.post(f"{place.sessions[kind]}/prompts", json=prompts(ijk), headers=ANN)


def save(place: Place, image: str, tag: str = "final"):
    files = {"label": ("label.nii.gz", LABEL)}
    return place.client.put("/datastore/label", params={"image": image, "tag": tag}, files=files, headers=ANN)


def infer(place: Place, address: str, **more: object):
    params = json.dumps({"liver": [CENTRE], **more})
    return place.client.post(address, data={"params": params}, headers=ANN)


def seg_of_open() -> bytes:
    store = labelling_app().datastore()
    series = store.catalogue.of_image("open")
    volume, stream = read_volume(series.scan_path()), BytesIO()
    write_seg((volume.array > 70).astype(np.uint8), volume.geometry, series, SegNames({"a": 1}, "1", "1.2.3")).save_as(
        stream
    )
    return stream.getvalue()


def store_seg(place: Place):
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + place.seg + b"\r\n--x--\r\n"
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'}
    return place.client.post("/dicom-web/studies", content=body, headers={**kind, **ANN})


def claim(place: Place) -> str:
    return done(place.client.post("/nninteractive/claim")).json()["lease_token"]


def nninteractive(place: Place, name: str, array: np.ndarray | None = None, *, lease: str = "", **asked: object):
    token, address = {"X-Lease-Token": lease or place.lease}, f"/nninteractive/{name}"
    if array is None:
        return place.client.post(address, json=asked, headers=token)
    return place.client.post(address, content=pack(array), headers={**token, "X-Meta": json.dumps(asked)})


def of_session(place: Place, kind: str, way: str, method: str = "POST", **more: object):
    return place.client.request(method, f"{place.sessions[kind]}{way}", headers=ANN, **more)


def propagated(place: Place):
    """Propagate; the status is that of the last line, where there are lines before it."""
    answer = of_session(place, "main", "/propagate")
    last = json.loads(answer.text.splitlines()[-1])
    answer.status_code = last.get("status", answer.status_code)
    answer._content = json.dumps({"detail": last.get("detail")}).encode()
    return answer


def with_mask(place: Place, kind: str):
    mask = {"file": ("mask.nii.gz", LABEL)}
    return of_session(place, kind, "/masks", data={"object": "liver"}, files=mask)


def accepted(place: Place, kind: str = "main"):
    return of_session(place, kind, "/accept", json={"object": "liver", "slices": [8]})


SCAN = phantom().volume.array
PAINTED = (SCAN.transpose(2, 1, 0) > 70).astype(np.uint8)
STROKE = np.zeros_like(PAINTED)
STROKE[8:14, 10, 8] = 1

Write = Callable[[Place], Response]

WRITES: dict[str, Write] = {
    "PUT /datastore/label": lambda p: save(p, "labelled"),
    "PUT /datastore/label as draft": lambda p: save(p, "labelled", tag="mine"),
    "PUT /datastore/image": lambda p: p.client.put(
        "/datastore/image?image=new", files={"file": ("new.nii.gz", p.scan)}
    ),
    "PUT /datastore/image/info": lambda p: p.client.put("/datastore/image/info?image=open", data={"info": '{"a": 1}'}),
    "PUT /datastore/label/info": lambda p: p.client.put(
        "/datastore/label/info?label=labelled&tag=final", data={"info": '{"a": 1}'}, headers=ANN
    ),
    "DELETE /datastore/label": lambda p: p.client.delete("/datastore/label?id=removed&tag=final", headers=ANN),
    "PUT /session/": lambda p: p.client.put("/session/", files={"files": ("new.nii.gz", p.scan)}),
    "POST /dicom-web/studies": store_seg,
    "POST /infer/{model}": lambda p: infer(p, "/infer/sam2?image=inferred"),
    "POST /infer/{model} with save_label": lambda p: infer(
        p, "/infer/sam2?image=inferred", save_label=True, label_tag="final"
    ),
    "POST /infer/": lambda p: p.client.post("/infer/?image=open"),
    "POST /campaign/case/{name}/heartbeat": lambda p: press(p, "drafted", "heartbeat"),
    "POST /campaign/case/{name}/slice": lambda p: press(p, "drafted", "slice", slice=3),
    "POST /campaign/case/{name}/drop": lambda p: press(p, "drafted", "drop", name="liver"),
    "POST /campaign/case/{name}/back": lambda p: press(p, "drafted", "back"),
    "POST /campaign/case/{name}/submit": lambda p: press(p, "drafted", "submit"),
    "POST /campaign/case/{name}/release": lambda p: press(p, "held", "release"),
    "POST /campaign/case/{name}/skip": lambda p: press(p, "skipped", "skip"),
    "POST /campaign/case/{name}/flag": lambda p: press(p, "flagged", "flag"),
    "POST /campaign/case/{name}/approve": lambda p: press(p, "labelled", "approve"),
    "POST /campaign/case/{name}/reject": lambda p: press(p, "rejected", "reject"),
    "POST /campaign/case/{name}/reopen": lambda p: press(p, "approved", "reopen"),
    "POST /slicecast/sessions": lambda p: p.client.post("/slicecast/sessions", json={"image": "open"}, headers=ANN),
    "POST /slicecast/sessions/{session_id}/prompts": lambda p: click(p, [3, 4, 5]),
    "PUT /slicecast/sessions/{session_id}/prompts": lambda p: of_session(
        p, "main", "/prompts", "PUT", json=prompts([13, 10, 8])
    ),
    "POST /slicecast/sessions/{session_id}/redo": lambda p: of_session(p, "undone", "/redo"),
    "DELETE /slicecast/sessions/{session_id}/prompts/{prompt_id}": lambda p: of_session(
        p, "undone", "/prompts/p1", "DELETE"
    ),
    "POST /slicecast/sessions/{session_id}/undo": lambda p: of_session(p, "main", "/undo"),
    "POST /slicecast/sessions/{session_id}/masks": lambda p: with_mask(p, "main"),
    "POST /slicecast/sessions/{session_id}/propagate": propagated,
    "POST /slicecast/sessions/{session_id}/accept": lambda p: accepted(p),
    "POST /slicecast/sessions/{session_id}/release": lambda p: of_session(
        p, "accepted", "/release", json={"object": "liver", "slices": [8]}
    ),
    "POST /slicecast/sessions/{session_id}/draft": lambda p: of_session(p, "main", "/draft", json={}),
    "PATCH /slicecast/sessions/{session_id}": lambda p: of_session(p, "main", "", "PATCH", json={"multi_axis": True}),
    "DELETE /slicecast/sessions/{session_id}": lambda p: of_session(p, "undone", "", "DELETE"),
    "POST /nninteractive/add_point_interaction": lambda p: nninteractive(
        p, "add_point_interaction", coordinates=CENTRE
    ),
    "POST /nninteractive/add_bbox_interaction": lambda p: nninteractive(
        p, "add_bbox_interaction", bbox_coords=[[5, 9], [5, 9], [8, 9]]
    ),
    "POST /nninteractive/add_scribble_interaction": lambda p: nninteractive(p, "add_scribble_interaction", STROKE),
    "POST /nninteractive/add_lasso_interaction": lambda p: nninteractive(p, "add_lasso_interaction", STROKE),
    "POST /nninteractive/add_initial_seg_interaction": lambda p: nninteractive(
        p, "add_initial_seg_interaction", PAINTED
    ),
    "POST /nninteractive/undo": lambda p: nninteractive(p, "undo"),
    "POST /nninteractive/reset_interactions": lambda p: nninteractive(p, "reset_interactions"),
    "POST /nninteractive/set_image": lambda p: nninteractive(
        p, "set_image", SCAN.transpose(2, 1, 0)[None] + 1, lease=claim(p)
    ),
    "POST /activelearning/{strategy}": lambda p: p.client.post("/activelearning/first", json={}, headers=ANN),
    "POST /campaign/next": lambda p: p.client.post("/campaign/next", headers=ANN),
    "POST /campaign/case/{name}/take": lambda p: press(p, "open", "take"),
}
"""What each route that writes is asked, in an order in which all of it can be done."""

OTHERS = {
    "POST /auth/token": "in memory",
    "POST /proxy/dicom/{path}": "only where the studies are on a PACS, whose answer it passes on",
    "DELETE /datastore/image": "frees room",
    "DELETE /session/{session_id}": "frees room",
    "POST /slicecast/sessions/{session_id}/cancel": "in memory",
    "POST /batch/infer/{model}": "says for each image what became of it",
    "DELETE /batch/infer": "in memory",
    "POST /train/{model}": "in the background; its state says why it failed",
    "DELETE /train/": "in memory",
    "POST /nninteractive/claim": "in memory",
    "POST /nninteractive/heartbeat": "in memory",
    "POST /nninteractive/release": "frees room",
    "POST /nninteractive/predict": "carries out what is kept already",
    "POST /nninteractive/set_do_autozoom": "of no effect",
    "POST /nninteractive/set_target_buffer": "in memory",
}
"""Routes that change something but need no room on a disk, and why."""

READS = (
    "/datastore/?output=all",
    "/datastore/image?image=open",
    "/campaign/",
    "/campaign/case/drafted",
    "/campaign/status",
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of its own."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={MB}m", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a disk of its own cannot be mounted here: that needs root, on Linux")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


CASES = ("open", "inferred", "drafted", "held", "skipped", "flagged", "labelled", "removed", "rejected", "approved")


@pytest.fixture(scope="module")
def place(disk: Path) -> Iterator[Place]:
    """A server on it, with something to do for every route; then the disk is full."""
    (disk / "tmp").mkdir()
    studies, before = write_studies(disk / "studies", CASES), tempfile.tempdir
    conf = {"labels": "spleen,liver,kidney", "preannotate": "false", "device": "cpu"}
    try:
        tempfile.tempdir = str(disk / "tmp")
        with serving(disk / "app", studies, conf) as client:
            place = Place(disk, client)
            prepare(place)
            place.fill()
            yield place
    finally:
        tempfile.tempdir = before


def prepare(place: Place) -> None:
    place.scan = place.client.get("/datastore/image?image=open").content
    for case in ("labelled", "removed", "rejected", "approved"):
        done(save(place, case))
    done(press(place, "approved", "approve"))
    for case in ("drafted", "held", "skipped", "flagged"):
        done(press(place, case, "take"))
    for kind, image in (("main", "drafted"), ("undone", "open"), ("accepted", "open")):
        opened = place.client.post("/slicecast/sessions", json={"image": image}, headers=ANN)
        place.sessions[kind] = done(opened).headers["location"]
        done(click(place, CENTRE, kind))
    done(click(place, [1, 2, 3], "undone"))
    done(of_session(place, "undone", "/undo"))
    done(accepted(place, "accepted"))
    for clicks in ({"liver": [CENTRE]}, {"spleen": [[3, 3, 3]]}):
        done(place.client.post("/infer/sam2?image=drafted", data={"params": json.dumps(clicks)}, headers=ANN))
    place.seg = seg_of_open()
    place.lease = claim(place)
    done(nninteractive(place, "set_image", SCAN.transpose(2, 1, 0)[None]))
    done(nninteractive(place, "add_point_interaction", coordinates=CENTRE))
    for address in READS:
        done(place.client.get(address))
    labelling_app().campaign_service.wait()
    while labelling_app().datastore().deliveries.waiting():
        time.sleep(0.02)


def test_every_route_that_changes_something_is_looked_at(place):
    described = place.client.get("/openapi.json").json()["paths"]
    reading = ("get", "head")
    changing = {f"{way.upper()} {path}" for path, ways in described.items() for way in ways if way not in reading}
    asked = {name.partition(" as ")[0].partition(" with ")[0] for name in WRITES}
    pressed = {name.rpartition("/")[2] for name in asked if "/case/{name}/" in name}
    asked = {name for name in asked if "/case/{name}/" not in name} | {"POST /campaign/case/{name}/{action}"}
    assert asked | set(OTHERS) == changing and pressed == set(ACTIONS)


@pytest.mark.parametrize("name", WRITES)
def test_it_says_that_the_disk_is_full_and_changes_nothing(place, name):
    for _ in range(ATTEMPTS):  # a database may give room back just before it is asked
        place.top_up()
        before = place.work()
        refused = WRITES[name](place)
        if not refused.is_success:
            break
    assert (refused.status_code, refused.json()["detail"]) == (507, DISK_FULL), refused.text
    assert place.work() == before


def test_who_reads_is_not_hindered(place):
    answers = {address: place.client.get(address).status_code for address in (*READS, place.sessions["main"])}
    assert set(answers.values()) == {200}, answers


def test_all_goes_on_once_there_is_room(place):
    place.free()
    answers = {name: write(place) for name, write in WRITES.items()}
    assert {name: answer.text for name, answer in answers.items() if not answer.is_success} == {}
    place.client.get("/campaign/status")
    labelling_app().campaign_service.wait()
    empty = [file.name for file in (place.disk / "studies").rglob("*") if file.is_file() and not file.stat().st_size]
    assert [name for name in empty if not name.endswith((".lock", "-wal"))] == []
