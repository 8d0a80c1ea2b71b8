"""The routes for sessions, as a program sees them."""

import json
import threading
import time
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import SimpleITK as sitk
from builders import phantom
from labelserver import read_mask
from monailabel.endpoints.user.auth import User

from slicecast.active.slices import STRATEGIES
from slicecast.errors import QueueFull
from slicecast.inference.caller import Caller, calling
from slicecast.server.app import create_app
from slicecast.server.sessions.models import SliceStrategyName
from slicecast.server.sessions.routes import may_use, named_caller
from slicecast.volume import read_volume
from slicecast.volume.metrics import dice
from slicecast.volume.slices import decode_rle, encode_rle

WAIT_S = 60.0
TRUTH = phantom().truth
CENTRE = [int(n) for n in np.argwhere(TRUTH).mean(axis=0).round()[::-1]]
CLICK = {"kind": "point", "object": "ball", "ijk": CENTRE}
ROOT = "/slicecast/sessions"


@pytest.fixture
def session(client):
    """An open session on the image `first`; closed in the end."""
    opened = client.post(ROOT, json={"image": "first"})
    assert opened.status_code == 201, opened.text
    address = opened.headers["location"]
    yield address
    client.delete(address)


def say(client, session, *prompts, **query):
    return client.post(f"{session}/prompts", json={"prompts": prompts}, params=query)


def propagate(client, session):
    with client.stream("POST", f"{session}/propagate") as answer:
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.iter_lines()]


def result(client, session, folder, *, format="nrrd"):
    answer = client.get(f"{session}/result", params={"format": format})
    assert answer.status_code == 200, answer.text
    return sitk.GetArrayFromImage(read_mask(answer.content, folder, name=f"mask.{format}"))


def wait_until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_session_from_open_to_close(client):
    opened = client.post(
        ROOT, json={"image": "second", "axis": "coronal", "window": "auto", "client_id": "anna"}
    ).json()
    assert (opened["image"], opened["axis"], opened["owner"], opened["revision"]) == ("second", "coronal", "anna", 0)
    address = f"{ROOT}/{opened['id']}"
    assert client.get(address).json() == opened
    assert opened["id"] in [entry["id"] for entry in client.get(ROOT).json()["sessions"]]
    assert client.delete(address).status_code == 204
    assert opened["id"] not in [entry["id"] for entry in client.get(ROOT).json()["sessions"]]
    gone = client.get(address)
    assert gone.status_code == 410 and "was closed" in gone.json()["detail"]


def test_another_reading_is_offered_chosen_and_propagated(client, session):
    say(client, session, CLICK)
    k = CENTRE[2]
    asked = {"object": "ball", "slice": k}
    offered = client.get(f"{session}/readings", params=asked).json()["readings"]
    reading = max(offered, key=lambda one: dice(decode_rle(one["counts"], tuple(one["size"])), TRUTH[k]))
    assert dice(decode_rle(reading["counts"], tuple(reading["size"])), TRUTH[k]) > 0.9
    assert say(client, session, {"kind": "mask", **asked, "rle": reading}).status_code == 200
    events = {event.get("slice"): event for event in propagate(client, session)}
    assert events[k]["rle"] == reading
    assert events[k + 1]["confidence"] > 0  # it was carried on from there
    assert client.get(f"{session}/readings", params=asked).json()["readings"] == offered  # also once one was chosen


def test_where_nothing_was_clicked_there_is_no_other_reading(client, session):
    say(client, session, CLICK)
    for asked in ({"object": "ball", "slice": CENTRE[2] + 1}, {"object": "bone", "slice": CENTRE[2]}):
        answer = client.get(f"{session}/readings", params=asked)
        assert answer.status_code == 404 and "has no click and no box on slice" in answer.json()["detail"]


def test_slices_come_one_by_one_and_make_up_the_result(client, session, studies, tmp_path):
    elsewhere = {**CLICK, "ijk": [CENTRE[0] + 1, *CENTRE[1:]]}  # where no other test clicks, so that nothing is known
    assert say(client, session, elsewhere).json()["revision"] == 1
    *events, summary = propagate(client, session)
    slices = [event for event in events if event["type"] == "slice"]
    assert {event["type"] for event in events} <= {"slice", "progress"} and summary["type"] == "summary"
    distance = [abs(event["slice"] - CENTRE[2]) for event in slices]
    assert distance == sorted(distance) and distance[0] == 0
    assert summary["recomputed"] >= len(slices) - 1 and not summary["cancelled"]
    mask = result(client, session, tmp_path)
    assert summary["objects"]["ball"]["voxels"] == np.count_nonzero(mask) > 0
    for event in slices:
        drawn = decode_rle(event["rle"]["counts"], tuple(event["rle"]["size"]))
        assert drawn.shape == mask.shape[1:]
        assert np.count_nonzero(drawn != (mask[event["slice"]] == 1)) <= 0.1 * max(np.count_nonzero(drawn), 10)
    source = read_volume(studies / "first.nii.gz")
    assert mask.shape == source.array.shape


def test_an_unchanged_session_costs_nothing_again(client, session):
    say(client, session, CLICK)
    first, again = (propagate(client, session)[-1] for _ in range(2))
    assert again["recomputed"] == 0 and again["reused"] == first["recomputed"] + first["reused"]


def test_undo_redo_and_removal_of_any_prompt(client, session):
    say(client, session, CLICK)
    say(client, session, {"kind": "point", "object": "ball", "ijk": [1, 1, CENTRE[2]], "positive": False})
    state = say(client, session, {"kind": "absent", "object": "ball", "slice": 0}).json()
    assert [p["kind"] for p in state["prompts"]] == ["point", "point", "absent"] and state["revision"] == 3
    assert len(client.post(f"{session}/undo").json()["prompts"]) == 2
    assert len(client.post(f"{session}/redo").json()["prompts"]) == 3
    first = state["prompts"][0]["id"]
    left = client.delete(f"{session}/prompts/{first}").json()
    assert first not in [p["id"] for p in left["prompts"]] and len(left["prompts"]) == 2
    assert client.delete(f"{session}/prompts/{first}").status_code == 404
    assert client.post(f"{session}/redo").status_code == 409


def test_all_prompts_can_be_replaced(client, session):
    before = say(client, session, CLICK).json()["prompts"][0]["id"]
    box = {"kind": "box", "object": "ball", "low_ijk": [8, 6, CENTRE[2]], "high_ijk": [16, 14, CENTRE[2]]}
    state = client.put(f"{session}/prompts", json={"prompts": [CLICK, box]}).json()
    assert [p["kind"] for p in state["prompts"]] == ["point", "box"] and state["prompts"][0]["id"] == before
    assert client.put(f"{session}/prompts", json={"prompts": []}).json()["prompts"] == []


def test_a_revision_that_has_passed_is_refused(client, session):
    assert say(client, session, CLICK, expected_revision=0).status_code == 200
    late = client.post(f"{session}/undo", params={"expected_revision": 0})
    assert late.status_code == 409 and "revision 1, not 0" in late.json()["detail"]


def test_a_painted_slice_comes_back_as_it_was(client, session, tmp_path):
    k = CENTRE[2]
    mask = {"kind": "mask", "object": "ball", "slice": k, "rle": encode_rle(TRUTH[k])}
    state = say(client, session, mask).json()
    assert state["prompts"][0]["slices"] == [k]
    assert np.array_equal(result(client, session, tmp_path)[k] == 1, TRUTH[k])


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz"])
def test_a_mask_can_be_uploaded(client, session, studies, tmp_path, ending):
    k, source = CENTRE[2], read_volume(studies / "first.nii.gz")
    painted = np.zeros(TRUTH.shape, np.uint8)
    painted[k - 1 : k + 1] = TRUTH[k - 1 : k + 1]
    file = tmp_path / f"painted.{ending}"
    sitk.WriteImage(source.geometry.to_image(painted), str(file))
    with file.open("rb") as stream:
        state = client.post(f"{session}/masks", data={"object": "ball"}, files={"file": (file.name, stream)}).json()
    assert state["prompts"][0]["slices"] == [k - 1, k]
    found = result(client, session, tmp_path, format=ending)
    assert np.array_equal(found[k - 1 : k + 1] == 1, TRUTH[k - 1 : k + 1])


def test_an_accepted_slice_is_overwritten_by_nothing(client, session, tmp_path):
    say(client, session, CLICK)
    before = result(client, session, tmp_path)
    k = CENTRE[2] + 2
    accepted = client.post(f"{session}/accept", json={"object": "ball", "slices": [k]}).json()
    assert accepted["accepted"] == {"ball": [k]}
    say(client, session, {"kind": "point", "object": "ball", "ijk": [2, 2, CENTRE[2]]})
    assert np.array_equal(result(client, session, tmp_path)[k], before[k])
    released = client.post(f"{session}/release", json={"object": "ball", "slices": [k]}).json()
    assert released["accepted"] == {}
    assert client.post(f"{session}/release", json={"object": "ball", "slices": [k]}).status_code == 404


def test_two_propagations_of_one_session(client, session, monkeypatch):
    """The second is refused; cancel stops the first, which keeps what it has."""
    say(client, session, CLICK)
    service = client.app.state.service
    walked, go_on = threading.Event(), threading.Event()
    track = service.predictor._predictor.track

    def slow(jobs, *, num_slices):
        walked.set()
        assert go_on.wait(WAIT_S)
        return track(jobs, num_slices=num_slices)

    monkeypatch.setattr(service.predictor._predictor, "track", slow)
    service.result_cache.clear()
    lines = []
    thread = threading.Thread(target=lambda: lines.extend(propagate(client, session)))
    thread.start()
    assert walked.wait(WAIT_S)
    assert client.get(session).json()["propagating"]
    second = client.post(f"{session}/propagate")
    assert second.status_code == 409 and "under way" in second.json()["detail"]
    assert client.get(f"{session}/result").status_code == 409
    assert client.post(f"{session}/cancel").json() == {"cancelled": True}
    go_on.set()
    thread.join(WAIT_S)
    slices = [line for line in lines if line["type"] == "slice"]
    assert lines[-1]["cancelled"] and lines[-1]["objects"]["ball"]["voxels"] > 0 and 1 <= len(slices) <= 3
    assert client.post(f"{session}/cancel").json() == {"cancelled": False}
    rest = propagate(client, session)[-1]
    assert not rest["cancelled"] and rest["objects"]["ball"]["voxels"] > lines[-1]["objects"]["ball"]["voxels"]


def test_a_full_queue(client, session, monkeypatch):
    say(client, session, CLICK)

    def full(job):
        raise QueueFull("The server is busy: 32 requests are waiting. Try again in a few seconds.")

    monkeypatch.setattr(client.app.state.service.queue.jobs, "_refuse_excess", full)
    for answer in (client.post(f"{session}/propagate"), client.get(f"{session}/result")):
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
        assert "32 requests are waiting" in answer.json()["detail"]
    infer = client.post(
        "/infer/sam2_single", params={"image": "first"}, data={"params": json.dumps({"foreground": [CENTRE]})}
    )
    assert infer.status_code == 503 and infer.headers["retry-after"] == "5"


def test_a_mistake_on_the_way_is_the_last_line(client, session, monkeypatch):
    say(client, session, CLICK)
    client.app.state.service.result_cache.clear()

    def broken(jobs, *, num_slices):
        raise RuntimeError("broken")

    monkeypatch.setattr(client.app.state.service.predictor._predictor, "track", broken)
    last = propagate(client, session)[-1]
    assert last == {
        "type": "error",
        "status": 500,
        "detail": "The server made a mistake; its log says which. Try again.",
    }
    assert not client.get(session).json()["propagating"]


def test_one_user_may_hold_so_many_in_which_something_was_done(client):
    def opened():
        return client.post(ROOT, json={"image": "first", "client_id": "greedy"})

    first, *others = [opened().headers["location"] for _ in range(16)]
    for session in others:
        assert say(client, session, CLICK).status_code < 300
    others.append(opened().headers["location"])  # in the place of the one that nobody used
    assert client.get(first).status_code == 410
    assert say(client, others[-1], CLICK).status_code < 300
    refused = opened()
    assert refused.status_code == 429 and "16 are allowed" in refused.json()["detail"]
    assert "submit one of these cases: first." in refused.json()["detail"]
    for session in others:
        client.delete(session)


BAD = {
    "unknown key": (422, "body.axes: Extra inputs", {"image": "first", "axes": "axial"}),
    "no image": (422, "body.image: Field required", {}),
    "unknown image": (404, "There is no image 'third'", {"image": "third"}),
    "path": (422, "is a path", {"image": "/etc/passwd"}),
    "path upwards": (422, "is a path", {"image": "../first"}),
    "unknown axis": (422, "body.axis", {"image": "first", "axis": "diagonal"}),
    "unknown window": (422, "window", {"image": "first", "window": "teeth"}),
    "another model": (409, "this service runs 'sam2_nano'", {"image": "first", "model": "sam3"}),
}


@pytest.mark.parametrize("what", BAD)
def test_sessions_that_cannot_be_opened(client, what):
    status, detail, body = BAD[what]
    answer = client.post(ROOT, json=body)
    assert answer.status_code == status and detail in answer.json()["detail"]


PROMPTS = {
    "unknown kind": ("Input tag 'wish'", {"kind": "wish", "object": "ball"}),
    "outside": ("outside the volume", {**CLICK, "ijk": [99, 0, 0]}),
    "negative": ("greater than or equal to 0", {**CLICK, "ijk": [-1, 0, 0]}),
    "fraction": ("valid integer", {**CLICK, "ijk": [0.5, 0, 0]}),
    "no name": ("at least 1 character", {**CLICK, "object": ""}),
    "only spaces": ("has no name", {**CLICK, "object": "  "}),
    "box of one voxel": ("single voxel", {"kind": "box", "object": "a", "low_ijk": [1, 1, 1], "high_ijk": [1, 1, 1]}),
    "absent beyond": ("There is no slice 16", {"kind": "absent", "object": "a", "slice": 16}),
    "mask beyond": (
        "There is no slice 16",
        {"kind": "mask", "object": "a", "slice": 16, "rle": {"size": [20, 24], "counts": ""}},
    ),
    "mask of another size": (
        "but slices are of (20, 24)",
        {"kind": "mask", "object": "a", "slice": 3, "rle": {"size": [24, 20], "counts": ""}},
    ),
    "mask of nonsense": (
        "counts",
        {"kind": "mask", "object": "a", "slice": 3, "rle": {"size": [20, 24], "counts": "~"}},
    ),
    "mask too short": (
        "do not add up",
        {"kind": "mask", "object": "a", "slice": 3, "rle": {"size": [20, 24], "counts": "0h0"}},
    ),
    "empty mask": (
        "is empty",
        {"kind": "mask", "object": "a", "slice": 3, "rle": encode_rle(np.zeros((20, 24), bool))},
    ),
}


@pytest.mark.parametrize("what", PROMPTS)
def test_prompts_that_cannot_be(client, session, what):
    detail, prompt = PROMPTS[what]
    answer = say(client, session, prompt)
    assert answer.status_code == 422 and detail in answer.json()["detail"], answer.text
    assert client.get(session).json()["revision"] == 0


def test_too_many_painted_slices_at_once(client, session):
    mask = {"kind": "mask", "object": "a", "slice": 3, "rle": encode_rle(TRUTH[8])}
    answer = say(client, session, *[mask] * 257)
    assert answer.status_code == 413 and "at most 256" in answer.json()["detail"]


def test_too_many_prompts_at_once(client, session):
    answer = say(client, session, *[{"kind": "absent", "object": "a", "slice": 3}] * 10_001)
    assert answer.status_code == 413 and "at most 10000" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        ("[" * 33 + "]" * 33, 422, "nested more than 32 deep"),
        ("[" + "[]," * 200_000 + "[]]", 413, "more than 200000 values"),
        ('{"prompts": [NaN]}', 422, "no JSON number"),
    ],
)
def test_json_of_sessions_has_the_limits_of_all_json(client, session, content, status, detail):
    answer = client.post(f"{session}/prompts", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status and detail in answer.json()["detail"]


def test_a_body_that_is_too_large(client, session):
    for kind, mib in (("application/json", 1), ("multipart/form-data", 512)):
        big = {"content-type": kind, "content-length": str(1 << 40)}
        answer = client.post(f"{session}/prompts", content=b"{", headers=big)
        assert answer.status_code == 413 and f" {mib} MiB" in answer.json()["detail"]


@pytest.mark.parametrize("call", ["propagate", "accept", "result"])
def test_nothing_to_start_from(client, session, call):
    body = {"json": {"object": "ball", "slices": [1]}} if call == "accept" else {}
    answer = client.request("GET" if call == "result" else "POST", f"{session}/{call}", **body)
    assert answer.status_code == 422 and "Nothing counts" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/undo"), ("POST", "/redo"), ("POST", "/propagate"), ("POST", "/cancel"),
     ("GET", "/result"), ("DELETE", "/prompts/p1")],
)  # fmt: skip
def test_an_unknown_session(client, method, path):
    answer = client.request(method, f"{ROOT}/nobody{path}")
    assert answer.status_code == 404 and "no session 'nobody'" in answer.json()["detail"]


def test_the_api_is_described():
    """Every route of ours says in OpenAPI what it is for, what it answers and how it fails."""
    described = create_app().openapi()
    own = {path: item for path, item in described["paths"].items() if path.startswith("/slicecast/")}
    assert len(own) == 15
    for path, item in own.items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert operation["summary"] and operation["description"], where
            good = [code for code in operation["responses"] if code.startswith("2")]
            assert len(good) == 1, where
            assert good == ["204"] or operation["responses"][good[0]]["content"], where
            if "{session_id}" in path:
                assert {"404", "410"} <= operation["responses"].keys(), where
    event = own[f"{ROOT}/{{session_id}}/propagate"]["post"]["responses"]["200"]["content"]
    assert list(event) == ["application/x-ndjson"]


def test_a_session_belongs_to_whom_the_campaign_page_knows(client):
    """One name everywhere: the cookie of `/campaign/`, unless the request says another."""
    asked, cookie = {"image": "first"}, {"x-slicecast-user": "ann"}
    opened = client.post(ROOT, json=asked, headers=cookie)
    other = client.post(ROOT, json={**asked, "client_id": "bob"}, headers=cookie)
    assert (opened.json()["owner"], other.json()["owner"]) == ("ann", "bob")
    for answer in (opened, other):
        client.delete(answer.headers["location"])


def test_the_strategies_of_the_wire_are_those_there_are():
    assert set(get_args(SliceStrategyName)) == set(STRATEGIES)


def test_a_propagation_names_the_strategy_of_the_next_slice(client, session):
    say(client, session, CLICK)
    with client.stream("POST", f"{session}/propagate?slice_strategy=value") as answer:
        summary = json.loads(list(answer.iter_lines())[-1])
    assert summary["next_slice"]["strategy"] == "value"
    assert client.post(f"{session}/propagate?slice_strategy=no").status_code == 422


def test_all_slice_axes_can_be_heard_and_left_again(client, session, tmp_path):
    say(client, session, CLICK)
    assert client.get(session).json()["multi_axis"] is False
    alone = propagate(client, session)[-1]
    changed = client.patch(session, json={"multi_axis": True}).json()
    assert changed["multi_axis"] is True and len(changed["prompts"]) == 1
    *lines, together = propagate(client, session)
    assert together["recomputed"] > 0
    last = {line["slice"]: decode_rle(line["rle"]["counts"], line["rle"]["size"]) for line in lines if "slice" in line}
    mask = result(client, session, tmp_path)
    assert np.count_nonzero(mask) == together["objects"]["ball"]["voxels"] > 0
    for number, plane in enumerate(mask == 1):
        np.testing.assert_array_equal(last.get(number, np.zeros_like(plane)), plane)
    assert client.patch(session, json={"multi_axis": False}).json()["multi_axis"] is False
    assert propagate(client, session)[-1]["objects"] == alone["objects"]
    assert client.post(f"{session}/undo").json()["multi_axis"] is True  # an edit like any other
    assert client.patch(session, json={"multi_axis": False}, params={"expected_revision": 0}).status_code == 409
    assert client.patch(session, json={"axis": "coronal"}).status_code == 422


ANNS = SimpleNamespace(owner="ann")


@pytest.mark.parametrize(
    ("caller", "may"),
    [
        (Caller(name="bob"), True),  # nobody logs in
        (Caller(user="ann", roles=frozenset({"annotator"})), True),
        (Caller(user="bob", roles=frozenset({"annotator", "reviewer"})), False),
        (Caller(user="bob", name="ann", roles=frozenset({"annotator"})), False),
        (Caller(user="bob", roles=frozenset({"admin"})), True),
    ],
)
def test_sessions_are_their_owners_and_the_administrators(caller, may):
    assert may_use(caller, ANNS) is may


@pytest.mark.parametrize(
    ("caller", "client_id", "name"),
    [
        (Caller(address="10.0.0.7"), "", "10.0.0.7"),
        (Caller(address="10.0.0.7", name="ann"), "", "ann"),
        (Caller(address="10.0.0.7", name="ann"), "bob", "bob"),
        (Caller(address="10.0.0.7", user="ann"), "bob", "ann"),
    ],
)
def test_a_login_counts_before_the_address_line(caller, client_id, name):
    with calling(caller):
        assert named_caller(User(username="anybody"), client_id).named() == name


def test_a_line_is_listed_and_segments(client, session, tmp_path):
    i, j, k = CENTRE
    vertices = [[i, j, k - 2], [i, j, k + 2]]
    state = say(client, session, {"kind": "line", "object": "ball", "vertices": vertices}).json()
    assert [(p["kind"], p["vertices"]) for p in state["prompts"]] == [("line", vertices)] and state["objects"] == [
        "ball"
    ]
    propagate(client, session)
    assert dice(result(client, session, tmp_path) == 1, TRUTH) > 0.8
    wrong = {"one vertex": vertices[:1], "one place": vertices[:1] * 2, "outside": [[0, 0, 0], [0, 0, 999]]}
    for what, given in wrong.items():
        answer = say(client, session, {"kind": "line", "object": "ball", "vertices": given})
        assert answer.status_code in (400, 422), (what, answer.text)
