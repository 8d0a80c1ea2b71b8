"""`kill -9` in the middle of everything that keeps something: nothing acknowledged is lost, nothing is there twice.

`KILLS` times each (3; `make test-durability`: 30). Afterwards every label has its event, and every event its label.
"""

import hashlib
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from clinic import SAMPLES, find_orthanc, running_orthanc
from dicomweb_client import DICOMwebClient
from killed_server import NOTHING, WAIT_S, Killed, Launcher
from labelserver import write_studies

from slicecast.dicom.seg import read_seg
from slicecast.volume import read_volume, write_mask
from slicecast_lab.generated.sample_data import DICOM_CASE

pytestmark = pytest.mark.slow

HEADERS = {"X-Requested-With": "slicecast", "X-Slicecast-User": "anna"}
CENTRE = [12, 10, 8]
POINT = {"kind": "point", "object": "ball"}


@pytest.fixture(scope="module")
def launcher():
    """Starts servers."""
    launcher = Launcher()
    yield launcher
    launcher.end()


@pytest.fixture
def server(launcher, tmp_path):
    """A server on two phantoms."""
    server = Killed(launcher, str(write_studies(tmp_path / "studies")), tmp_path)
    yield server
    server.end()


def labels_without_event(studies: Path, server: Killed) -> list[str]:
    """Return the images whose final label is not that of its last event, or of which a label or an event stands alone.

    A kill may leave a label among the versions twice (see `keep_version`), which is no other label.
    """
    wrong = []
    for case in sorted({event.case for event in server.events("submitted")}):
        told = [event.data["sha256"] for event in server.events("submitted") if event.case == case]
        current = _sha256(next((studies / "labels" / "final").glob(f"{case}.*")))
        kept = (studies / "labels" / "versions" / "final" / case).glob("*.nii.gz")
        wrong += [] if current == told[-1] and {current, *map(_sha256, kept)} == set(told) else [case]
    return wrong


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Labels:
    """Labels that are all different.

    Args:
        like: an image's file or folder, on whose grid they lie.
    """

    def __init__(self, like: Path, folder: Path) -> None:
        self._scan, self._folder, self._number = read_volume(like), folder, 0

    def another(self) -> bytes:
        self._number += 1
        mask = self._scan.array > self._scan.array.mean()
        mask.reshape(-1)[: self._number] ^= True
        return write_mask(self._folder / "label.nii.gz", mask, self._scan.geometry).read_bytes()


def save(server: Killed, label: bytes, image: str = "first") -> int:
    info = json.dumps({"label_info": [{"name": "ball", "idx": 1}], "client_id": "anna"})
    files = {"label": ("label.nii.gz", label), "params": (None, info)}
    return server.http.put("/datastore/label", params={"image": image}, files=files).raise_for_status().is_success


def press(server: Killed, action: str, **body: str) -> httpx.Response:
    return server.http.post(f"/campaign/case/first/{action}", json=body, headers=HEADERS)


def test_saving(server, tmp_path):
    labels, said = Labels(tmp_path / "studies" / "first.nii.gz", tmp_path), set()

    def act() -> int:
        label = labels.another()
        save(server, label)
        said.add(hashlib.sha256(label).hexdigest())
        return 1

    server.many_times(act, lambda: len(server.events("submitted")))
    assert server.counted == NOTHING and labels_without_event(tmp_path / "studies", server) == []
    assert said <= {event.data["sha256"] for event in server.events("submitted")}


def test_submitting_a_draft(server, tmp_path):
    clicks = iter(range(10**6))

    def act() -> int:
        i, j, k = CENTRE
        params = json.dumps({"ball": [[i + next(clicks) % 3, j, k]], "client_id": "anna"})
        server.http.post("/infer/sam2?image=first", data={"params": params}, headers=HEADERS).raise_for_status()
        return press(server, "submit").raise_for_status().is_success

    server.many_times(act, lambda: len(server.events("submitted")))
    assert server.counted == NOTHING and labels_without_event(tmp_path / "studies", server) == []


def test_reviewing(server, tmp_path):
    labels = Labels(tmp_path / "studies" / "first.nii.gz", tmp_path)

    def act() -> int:
        for action in ("approve", "reject"):
            if press(server, action, why="once more").is_success:
                return 1
        save(server, labels.another())
        return 0

    server.many_times(act, lambda: len(server.events("approved", "rejected")))
    assert server.counted == NOTHING and labels_without_event(tmp_path / "studies", server) == []


def opened(server: Killed) -> str:
    server.start()
    answer = server.http.post("/slicecast/sessions", json={"image": "first", "client_id": "anna"}, headers=HEADERS)
    server.end()
    return answer.headers["location"]


def add_click(server: Killed, session: str, number: int) -> int:
    i, j, k = CENTRE
    point = {**POINT, "ijk": [i + number % 5 - 2, j + number // 5 % 5 - 2, k + number // 25 % 5 - 2]}
    body = {"prompts": [{**point, "positive": True}]}
    return server.http.post(f"{session}/prompts", json=body, headers=HEADERS).raise_for_status().is_success


def prompts_of(server: Killed, session: str) -> list[list[int]]:
    state = server.http.get(session, headers=HEADERS).raise_for_status().json()
    return [prompt["ijk"] for prompt in state["prompts"]]


def test_editing_a_session(server):
    session, numbers = opened(server), iter(range(10**6))

    def act() -> int:
        number = next(numbers)
        if number % 20 == 19:  # so that prompts stay few
            body = {"prompts": [{**POINT, "ijk": CENTRE, "positive": True}]}
            server.http.put(f"{session}/prompts", json=body, headers=HEADERS).raise_for_status()
            return 1
        return add_click(server, session, number)

    def revision() -> int:
        return server.http.get(session, headers=HEADERS).raise_for_status().json()["revision"]

    server.many_times(act, revision)
    assert server.counted == NOTHING


def test_propagating_while_slices_stream(server):
    session, numbers = opened(server), iter(range(10**6))

    def act() -> int:
        done = add_click(server, session, next(numbers))
        with server.http.stream("POST", f"{session}/propagate", headers=HEADERS) as answer:
            assert sum(1 for _ in answer.iter_lines()) > 0
        return done

    server.many_times(act, lambda: len(prompts_of(server, session)))
    assert server.counted == NOTHING
    clicks, mask = prompts_of(server, session), server.http.get(f"{session}/result", headers=HEADERS).content
    again = server.http.post("/slicecast/sessions", json={"image": "first"}, headers=HEADERS).headers["location"]
    body = {"prompts": [{**POINT, "ijk": ijk, "positive": True} for ijk in clicks]}
    server.http.post(f"{again}/prompts", json=body, headers=HEADERS).raise_for_status()
    assert server.http.get(f"{again}/result", headers=HEADERS).content == mask


def test_delivering_to_a_pacs(launcher, tmp_path):
    program = find_orthanc()
    if program is None:
        pytest.skip("no Orthanc with its DICOMweb plugin; on Debian: apt-get install orthanc orthanc-dicomweb")
    scan = SAMPLES / "dicom" / DICOM_CASE
    labels = Labels(scan, tmp_path)
    with running_orthanc(program, scan.parent, tmp_path) as pacs:
        server = Killed(launcher, pacs, tmp_path)

        def act() -> int:
            (image,) = server.http.get("/datastore/?output=all").json()["objects"]
            return save(server, labels.another(), image)

        def segs(address: str) -> dict[str, str]:
            """Return the study of each SEG series that is listed."""
            found = httpx.get(f"{address}/series?Modality=SEG", timeout=WAIT_S).raise_for_status()
            rows = found.json() if found.content else []
            return {row["0020000E"]["Value"][0]: row["0020000D"]["Value"][0] for row in rows}

        try:
            server.many_times(act, lambda: len(server.events("submitted")))
            server.wait_until(lambda: not list(tmp_path.rglob("outbox/[0-9]*")))
            told, there = server.events("submitted"), segs(pacs)
            listed = segs(f"{server.http.base_url}/proxy/dicom/qido")
        finally:
            server.end()
        assert server.counted == NOTHING and len(there) <= len({event.data["sha256"] for event in told})
        ((series, study),) = listed.items()
        (seg,) = DICOMwebClient(pacs).retrieve_series(study, series)
        final = next(tmp_path.rglob("labels/final/*.nii.gz"))
        assert _sha256(final) == told[-1].data["sha256"]
        label = read_volume(final)
        assert np.array_equal(read_seg(seg, label.geometry)[0], label.array)
