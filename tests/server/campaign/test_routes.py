"""The page /campaign/ and its buttons, over HTTP."""

import json
import re

import pytest
from labelserver import label_bytes
from monailabel.interfaces.utils.app import app_instance

OURS = {"X-Requested-With": "slicecast"}


def press(client, case, action, who="ann", **body):
    headers = {**OURS, "X-Slicecast-User": who}
    return client.post(f"/campaign/case/{case}/{action}", json=body, headers=headers)


def click(client, case, who, label="liver"):
    params = json.dumps({"label": label, "foreground": [[12, 10, 8]], "result_extension": ".nii.gz"})
    query = {"image": case, "output": "json"}
    headers = {"X-Slicecast-User": who}
    return client.post("/infer/sam2_single", params=query, data={"params": params}, headers=headers)


def test_the_way_of_a_case(client):
    assert press(client, "first", "take").json()["holder"] == "ann"
    assert press(client, "first", "take", "bob").status_code == 409
    assert press(client, "first", "submit").status_code == 404  # no result yet
    assert click(client, "first", "ann").status_code == 200
    page = client.get("/campaign/case/first", headers={"X-Slicecast-User": "ann"}).text
    assert "Confidence of each slice" in page and re.search("Yours for another (29|30) min", page)
    assert press(client, "first", "slice", slice=9, axis="axial").status_code == 200
    missing = press(client, "first", "slice", slice=16, axis="axial")
    assert missing.status_code == 422 and "its axial slices run from 0 to 15" in missing.json()["detail"]
    assert press(client, "first", "slice", slice=9, axis="oblique").status_code == 422
    assert "slice 9 (7 in OHIF) is asked for" in client.get("/campaign/case/first").text
    assert press(client, "first", "heartbeat").status_code == 200
    assert press(client, "first", "submit").status_code == 200
    assert press(client, "first", "approve").status_code == 409  # one's own
    assert press(client, "first", "reject", "rita", why="<b>hole</b>").status_code == 200
    assert "&lt;b&gt;hole" in client.get("/campaign/").text
    assert client.get("/campaign/status").json()["progress"]["rejected"] == 1


def test_submit_lists_what_it_saves_and_an_approved_label_is_opened_again(client):
    for label in ("liver", "kidney"):  # at the same place: the second one finds no voxel left
        assert click(client, "second", "ann", label).status_code == 200
    page = client.get("/campaign/case/second", headers={"X-Slicecast-User": "ann"}).text
    assert "Submit saves" in page and "<td>liver</td>" in page and "<td>kidney<" not in page
    assert press(client, "second", "drop", name="kidney").status_code == 404
    assert press(client, "second", "submit", shown="now").status_code == 422
    assert press(client, "second", "submit", shown=1.5).status_code == 409
    saved = press(client, "second", "submit").json()["saved"]
    assert saved.keys() == {"liver"} and saved["liver"]["value"] == 2 and saved["liver"]["voxels"] > 50
    assert press(client, "second", "reopen", "rita", why="x").status_code == 409
    assert press(client, "second", "approve", "rita").status_code == 200
    assert "Reopen" in client.get("/campaign/case/second").text
    tag = {"tag": "final"}
    assert client.delete("/datastore/label", params={"id": "second", **tag}).status_code == 409
    changed = client.put("/datastore/label/info", params={"label": "second", **tag}, data={"info": "{}"})
    assert changed.status_code == 409
    assert press(client, "second", "reopen", "rita").status_code == 422
    assert press(client, "second", "reopen", "rita", why="the tip").status_code == 200
    assert client.get("/datastore/label", params={"label": "second", "tag": "original"}).status_code == 200
    assert client.delete("/datastore/label", params={"id": "second", **tag}).status_code == 200


def test_a_label_that_changed_since_it_was_shown_is_not_judged(client):
    told = [{"name": "liver", "idx": 1}]
    for level in (10**6, 70):
        shown = client.get("/annotate/case", params={"image": "second"}).json()["label"]
        info = {"params": (None, json.dumps({"client_id": "ann", "label_info": told}))}
        files = {"label": ("label.nii.gz", label_bytes(level)), **info}
        assert client.put("/datastore/label", params={"image": "second"}, files=files).status_code == 200
    now = client.get("/annotate/case", params={"image": "second"}).json()["label"]
    assert now != shown and f'data-action="approve" data-label="{now}"' in client.get("/campaign/case/second").text
    for action in ("approve", "reject"):
        stale = press(client, "second", action, "rita", label=shown, why="hole")
        assert stale.status_code == 409 and "not the one shown" in stale.json()["detail"]
    assert press(client, "second", "approve", "rita", label=5).status_code == 422
    tag = {"label": "second", "tag": "final"}
    renamed = json.dumps({"label_info": [{"name": "hepar", "idx": 1}]})
    assert client.put("/datastore/label/info", params=tag, data={"info": renamed}).status_code == 200
    assert press(client, "second", "approve", "rita", label=now).status_code == 409, "its names changed"
    now = client.get("/annotate/case", params={"image": "second"}).json()["label"]
    assert press(client, "second", "approve", "rita", label=now).status_code == 200
    there = {"slice": 3, "axis": "coronal"}
    assert press(client, "second", "reopen", "rita", why="once more", label=now, **there).status_code == 200
    assert client.get("/annotate/case", params={"image": "second"}).json()["asked"] == there
    assert client.delete("/datastore/label", params={"id": "second", "tag": "final"}).status_code == 200


def test_a_record_that_leaves_a_value_without_a_name_is_refused(client):
    click(client, "second", "ann", "liver")
    page = client.get("/campaign/case/second", headers={"X-Slicecast-User": "ann"}).text
    assert "Submit saves" in page and press(client, "second", "submit").status_code == 200
    tag = {"label": "second", "tag": "final"}
    before = client.get("/datastore/label/info", params=tag).json()

    def change(name, value):
        told = json.dumps({"label_info": [{"name": name, "idx": value}]})
        return client.put("/datastore/label/info", params=tag, data={"info": told})

    refused = change("kidney", 7)
    assert refused.status_code == 422 and "2 have no name" in refused.json()["detail"]
    assert client.get("/datastore/label/info", params=tag).json() == before
    assert change("hepar", 2).status_code == 200
    assert client.get("/datastore/label/info", params=tag).json()["label_info"] == [{"name": "hepar", "idx": 2}]
    assert client.delete("/datastore/label", params={"id": "second", "tag": "final"}).status_code == 200


def test_the_strip_is_a_picture(client):
    picture = client.get("/campaign/case/second/strip.png")
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")


def test_next_case(client):
    found = client.post("/campaign/next", headers={**OURS, "X-Slicecast-User": "dan"}).json()
    assert found["lease"]["holder"] == "dan" and found["reason"]
    assert press(client, found["id"], "skip", "dan", why="too dark").status_code == 200


def test_the_pages_files_are_served(client):
    for name in ("campaign.css", "campaign.js"):
        assert client.get(f"/campaign/assets/{name}").status_code == 200
    assert client.get("/campaign/assets/../base.html").status_code == 404


@pytest.mark.parametrize(
    ("case", "action", "body", "status"),
    [
        ("nothing", "skip", {}, 404),
        ("second", "dance", {}, 404),
        ("second", "slice", {"slice": "9"}, 422),
        ("second", "slice", {"slice": -1}, 422),
        ("second", "skip", {"why": "x" * 501}, 422),
    ],
)
def test_bad_requests(client, case, action, body, status):
    assert press(client, case, action, "zoe", **body).status_code == status


def test_a_foreign_page_cannot_press(client):
    assert client.post("/campaign/case/second/skip", json={}).status_code == 403
    assert client.post("/campaign/next").status_code == 403


def test_no_such_case(client):
    assert client.get("/campaign/case/nothing").status_code == 404
    assert client.get("/campaign/case/nothing/strip.png").status_code == 404


def test_the_list_can_be_searched(client):
    assert "No such case" in client.get("/campaign/", params={"find": "zzz"}).text
    assert "2 cases, page 1 of 1" in client.get("/campaign/", params={"page": -4}).text


def test_images_that_cannot_be_segmented_are_listed_once(client, studies):
    (studies / "broken.nii.gz").write_bytes(b"x")
    app = app_instance()
    app.datastore().refresh()
    app.campaign_service.sync()
    app.campaign_service.wait()
    page = client.get("/campaign/").text
    assert page.count("<li>broken ") == 1 and "case/broken" not in page and "Cannot be segmented" in page
    assert client.post("/campaign/next", headers={**OURS, "X-Slicecast-User": "zoe"}).json().get("id") != "broken"
    (studies / "broken.nii.gz").unlink()
    assert "<li>broken" not in client.get("/campaign/").text
