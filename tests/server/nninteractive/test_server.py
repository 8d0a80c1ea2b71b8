"""What the server holds its clients to: logins, places, sizes, time; and what it does for several at once."""

import json
import threading
from itertools import count

import httpx
import numpy as np
import pytest
from builders import phantom
from labelserver import write_studies
from nnclient import ServerAtCapacityError, Session, SessionExpiredError, pack_array, refusal, running, send

from slicecast.server.security.users import Users

IMAGE, TRUTH = phantom().volume.array, phantom().truth
Z, Y, X = (int(n) for n in np.argwhere(TRUTH).mean(axis=0).round())


@pytest.fixture
def service(server):
    return server[1].state.nninteractive


def post(server, session, path, body=b"", meta=None):
    """Send a request that the client would not."""
    headers = {"X-Lease-Token": session._lease_token, "Content-Type": "application/octet-stream"}
    return httpx.post(
        f"{server[0]}/nninteractive/{path}", content=body, headers=headers | ({"X-Meta": meta} if meta else {})
    )


def refused(answer, status, sentence):
    assert (answer.status_code, sentence in answer.json()["detail"]) == (status, True), answer.text


def test_the_licence_and_all_tools_are_told(connect):
    session = connect()
    assert session.license == "sam2_nano: Apache-2.0" and session.supports_undo and session.supports_initial_label
    assert all(session.supported_interactions.values()) and session.ping()
    assert 3500 < session.heartbeat() <= session.idle_timeout_seconds == 3600
    assert session.lease_status()["remaining_seconds"] <= 3600
    session.set_do_autozoom(False)


def test_the_model_may_be_named_in_the_address(connect, server):
    assert send(connect("/sam2_nano"), IMAGE).shape == IMAGE.shape
    other = refusal(f"{server[0]}/nninteractive/sam2.1_hiera_tiny")
    refused(other.response, 404, "This server runs sam2_nano")


def test_the_label_may_be_named_in_the_address(connect, server, service):
    """So the mask becomes the case's draft under its name; without one it is nameless, and is not kept."""
    session = connect("/sam2_nano/kidney")
    mask = send(session, IMAGE)
    session.add_point_interaction((Z, Y, X), True)
    assert mask.any()
    service.drafts.submit(lambda: None).result()  # after those that wait
    asked = {"image": "first"}
    (title,) = httpx.get(f"{server[0]}/annotate/case", params=asked).json()["masks"]
    kept = httpx.get(f"{server[0]}/annotate/mask.nii", params={**asked, "title": title})
    assert set(json.loads(kept.headers["X-Slicecast-Labels"])) == {"kidney"}
    assert refusal(f"{server[0]}/nninteractive/sam2_nano/{'x' * 900}").response.status_code == 422


def test_places_are_bounded(connect, service, server):
    held = [connect() for _ in range(service.settings.leases)]
    full = refusal(f"{server[0]}/nninteractive")
    assert isinstance(full, ServerAtCapacityError) and "All 16 places" in str(full)
    held[0].close()
    connect()


def test_a_client_that_is_gone_or_idle_loses_its_place(connect, service, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(service, "clock", lambda: clock[0])
    gone, idle = connect(), connect()
    send(idle, (IMAGE * 3).astype(np.int16))
    assert len(list(service._folder.iterdir())) == 1
    clock[0] = service.settings.alive_s - 1.0
    idle.heartbeat()
    clock[0] += 2
    service.leases.end_overdue()
    with pytest.raises(SessionExpiredError):
        gone.heartbeat()
    assert idle.heartbeat() < service.settings.idle_s
    for clock[0] in range(200, service.settings.idle_s + 100, 100):
        service.leases.end_overdue()
        if service.leases.works():
            idle.heartbeat()
    with pytest.raises(SessionExpiredError):
        idle.heartbeat()
    assert not list(service._folder.iterdir())


def test_bodies_that_are_no_arrays(connect, server):
    session = connect()
    refused(post(server, session, "predict"), 409, "No image was sent")
    refused(post(server, session, "set_image", b"hello"), 422, "no array of this protocol")
    refused(post(server, session, "set_image", pack_array(IMAGE)), 422, "Send one channel")
    refused(post(server, session, "set_image", pack_array(np.stack([IMAGE] * 2))), 422, "Send one channel")
    good = pack_array(IMAGE[None])
    refused(post(server, session, "set_image", good[:-9]), 422, "cut off")
    for spacing in (["a", 1, 1], [0, 1, 1], [1, 1, None], [1, 1, 1, 1], {}):
        meta = json.dumps({"image_properties": {"spacing": spacing}})
        refused(post(server, session, "set_image", good, meta), 422, "is not three numbers")
    refused(post(server, session, "set_image", good, "[1]"), 422, "X-Meta")
    send(session, IMAGE)
    refused(post(server, session, "add_lasso_interaction", pack_array(IMAGE[:3])), 422, "The mask is of shape")
    refused(post(server, session, "add_scribble_interaction", pack_array(IMAGE * 0)), 422, "empty")
    outside = json.dumps({"interaction_bbox": [[0, 99], [0, 1], [0, 1]]})
    refused(post(server, session, "add_lasso_interaction", pack_array(IMAGE), outside), 422, "do not lie within")
    for call, given in ((session.add_point_interaction, [99, 0, 0]), (session.add_bbox_interaction, [[99, 100]] * 3)):
        with pytest.raises(httpx.HTTPStatusError) as caught:
            call(given, True)
        refused(caught.value.response, 422, "outside the image")
    with pytest.raises(httpx.HTTPStatusError) as caught:
        session.set_target_buffer(np.zeros((2, 2, 2), np.uint8))
    refused(caught.value.response, 422, "The target buffer is of shape")


def test_what_is_huge_once_unpacked_gets_413(connect, server):
    session = connect()
    huge = bytearray(pack_array(np.zeros((1, 4, 4, 4), np.float64)))
    huge[15 + 8 : 15 + 32] = np.array([2000, 2000, 2000], "<i8").tobytes()
    refused(post(server, session, "set_image", bytes(huge)), 413, "MiB are taken")


def test_clients_at_once_get_what_each_would_get_alone(connect):
    places = [[Z, Y, X], [Z + 2, Y + 1, X], [Z - 3, Y, X + 1], [Z, Y - 2, X - 1]]
    alone, together = [], [None] * len(places)
    for place in places:
        mask = send(session := connect(), IMAGE)
        session.add_point_interaction(place, True)
        alone.append(mask)
        session.close()
    sessions = [connect() for _ in places]

    def work(number):
        together[number] = send(sessions[number], IMAGE)
        sessions[number].add_point_interaction(places[number], True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((mask == other).all() and mask.any() for mask, other in zip(alone, together, strict=True))


def test_what_takes_too_long_comes_with_the_next_answer(connect, service, monkeypatch):
    session = connect()
    mask = send(session, IMAGE)
    ticks, now = count(), service.clock()
    monkeypatch.setattr(service, "clock", lambda: now + 10.0 * next(ticks))
    session.add_point_interaction([Z, Y, X], True)
    begun = mask.copy()
    monkeypatch.undo()
    session._predict()
    other = connect()
    whole = send(other, IMAGE)
    other.add_point_interaction([Z, Y, X], True)
    assert (mask == whole).all()
    assert 0 < begun.any(axis=(1, 2)).sum() < mask.any(axis=(1, 2)).sum() and begun[Z, Y, X]


def test_prompts_survive_the_end_of_the_server(tmp_path):
    studies = write_studies(tmp_path / "studies")
    with running(tmp_path / "app", studies) as (address, _):
        session = Session(f"{address}/nninteractive")
        mask = send(session, IMAGE)
        session.add_point_interaction([Z, Y, X], True)
    before = mask.copy()
    with running(tmp_path / "app", studies) as (address, _), Session(f"{address}/nninteractive") as again:
        mask = send(again, IMAGE)
        assert again._predict() is not None and (mask == before).all() and mask.any()
        assert again.undo() and not mask.any()
    session._lease_token = None
    session.close()


def test_users_api_keys_and_the_leases_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "users.json"))
    users = Users(tmp_path / "users.json")
    anna, ben = (users.add(name, role="annotator") for name in ("anna", "ben"))
    with running(tmp_path / "app", write_studies(tmp_path / "studies")) as (address, _):
        for wrong in (None, "wrong"):
            assert "401" in str(refusal(f"{address}/nninteractive", api_key=wrong))
        with Session(f"{address}/nninteractive", api_key=anna) as hers:
            mask = send(hers, IMAGE)
            hers.add_point_interaction([Z, Y, X], True)
            owned = httpx.get(f"{address}/slicecast/sessions", headers={"Authorization": f"Bearer {anna}"}).json()
            assert mask.any() and [entry["owner"] for entry in owned["sessions"]] == ["anna"]
            stolen = {"Authorization": f"Bearer {ben}", "X-Lease-Token": hers._lease_token}
            refused(httpx.post(f"{address}/nninteractive/undo", headers=stolen), 403, "somebody else's")
            with Session(f"{address}/nninteractive", api_key=ben) as his:
                other = send(his, IMAGE)
                assert his._predict() is None and not other.any()
