"""The annotation page's routes: its files, the scan, the case, and sessions that become drafts."""

import json

import pytest
import SimpleITK as sitk
from builders import phantom
from labelserver import read_mask
from monailabel.interfaces.utils.app import app_instance

from slicecast.server.annotate import routes
from slicecast.volume import read_volume

CASE = "first"
CENTRE = [int(numbers.mean().round()) for numbers in phantom().truth.nonzero()][::-1]
CLICK = {"kind": "point", "object": "lesion", "ijk": CENTRE}
PRESSED = {"X-Requested-With": "slicecast"}


def open_session(client, **how) -> str:
    return client.post("/slicecast/sessions", json={"image": CASE, **how}).json()["id"]


def test_the_page_and_its_files_are_served_under_a_strict_policy(client):
    page = client.get("/annotate/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe-eval" not in page.headers["Content-Security-Policy"]
    for name in ("main.js", "scan.js", "slices.js", "rle.js", "server.js", "style.css"):
        assert client.get(f"/annotate/page/{name}").status_code == 200


def test_a_viewer_that_is_not_installed_is_named(client, monkeypatch, tmp_path):
    monkeypatch.setattr(routes, "VIEWER", tmp_path / "index.js")
    answer = client.get("/annotate/page/niivue.js")
    assert (answer.status_code, "make install" in answer.json()["detail"]) == (404, True)


def test_the_scan_comes_on_the_grid_of_the_prompts(client, studies, tmp_path):
    file = tmp_path / "scan.nii"
    file.write_bytes(client.get("/annotate/scan.nii", params={"image": CASE}).content)
    sent, stored = read_volume(file), read_volume(studies / f"{CASE}.nii.gz")
    assert (sent.array == stored.array).all()
    assert not sent.geometry.differences(stored.geometry)


def test_a_damaged_scan_is_refused_without_the_servers_folders(client, studies):
    half = studies / "half.nii.gz"
    half.write_bytes((studies / f"{CASE}.nii.gz").read_bytes()[:2000])
    app_instance().datastore().refresh()
    answer = client.get("/annotate/scan.nii", params={"image": "half"})
    half.unlink()
    app_instance().datastore().refresh()
    assert answer.status_code == 422 and answer.json()["detail"].startswith("half.nii.gz is cut off")


def test_the_case_that_comes_next_stays_free(client):
    assert {client.get("/annotate/next").json()["image"] for _ in range(20)} == {"first", "second"}  # by chance
    for _ in range(3):
        assert client.post("/campaign/next", json={"ahead": "first"}, headers=PRESSED).json()["id"] == "first"
        assert client.post("/campaign/case/first/release", headers=PRESSED).is_success
    client.post("/campaign/case/first/take", headers=PRESSED)
    assert {client.get("/annotate/next").json()["image"] for _ in range(5)} == {"second"}
    assert (
        client.post("/campaign/next", json={}, headers={**PRESSED, "X-Slicecast-User": "Bob"}).json()["id"] == "second"
    )
    assert client.get("/annotate/next").json() == {"image": None}


def test_nothing_of_a_patient_is_left_in_the_browser(client):
    for path in ("", "scan.nii?image=first"):
        assert client.get(f"/annotate/{path}").headers["Cache-Control"] == "no-store", path


@pytest.mark.parametrize("route", ["case", "scan.nii"])
def test_an_unknown_image_is_refused(client, route):
    answer = client.get(f"/annotate/{route}", params={"image": "nobody_knows"})
    assert (answer.status_code, "nobody_knows" in answer.json()["detail"]) == (404, True)


def test_a_session_becomes_the_draft_that_the_next_one_starts_from(client, tmp_path):
    session = open_session(client)
    client.post(f"/slicecast/sessions/{session}/prompts", json={"prompts": [CLICK]})
    drafted = client.post(f"/slicecast/sessions/{session}/draft", json={}).json()
    assert drafted["case"] == CASE
    assert drafted["objects"]["lesion"]["voxels"] > 0
    again = client.post("/slicecast/sessions", json={"image": CASE, "start": "current"}).json()
    assert {(prompt["object"], prompt["kind"]) for prompt in again["prompts"]} == {("lesion", "mask")}
    arrays = [_mask(client, one, tmp_path / str(place)) for place, one in enumerate((session, again["id"]))]
    assert arrays[0].any() and (arrays[0] == arrays[1]).all()


def test_a_draft_that_ends_early_ends_there_when_opened_again(client, tmp_path):
    session, k = open_session(client), CENTRE[2]
    ends = [{"kind": "absent", "object": "lesion", "slice": k + by} for by in (-1, 1)]
    client.post(f"/slicecast/sessions/{session}/prompts", json={"prompts": [CLICK, *ends]})
    client.post(f"/slicecast/sessions/{session}/draft", json={})
    again = client.post("/slicecast/sessions", json={"image": CASE, "start": "current"}).json()
    arrays = [_mask(client, one, tmp_path / str(place)) for place, one in enumerate((session, again["id"]))]
    assert arrays[0][k].any() and (arrays[0] == arrays[1]).all()


def _mask(client, session, folder):
    folder.mkdir()
    content = client.get(f"/slicecast/sessions/{session}/result").content
    return sitk.GetArrayFromImage(read_mask(content, folder, name="mask.nii.gz"))


def test_structures_of_a_case_accumulate_and_one_can_be_taken_back(client):
    first, second = open_session(client), open_session(client)
    client.post(f"/slicecast/sessions/{first}/prompts", json={"prompts": [CLICK]})
    client.post(f"/slicecast/sessions/{first}/draft", json={})
    other = {"kind": "box", "object": "ventricle", "low_ijk": [1, 1, CENTRE[2]], "high_ijk": [5, 5, CENTRE[2]]}
    client.post(f"/slicecast/sessions/{second}/prompts", json={"prompts": [other]})
    drafted = client.post(f"/slicecast/sessions/{second}/draft", json={}).json()
    assert set(drafted["objects"]) == _drafted(client) == {"lesion", "ventricle"}  # all that Submit would save
    client.post(f"/slicecast/sessions/{second}/undo")
    client.post(f"/slicecast/sessions/{second}/draft", json={"dropped": ["ventricle", "never_there"]})
    assert _drafted(client) == {"lesion"}


def _drafted(client) -> set[str]:
    opened = client.post("/slicecast/sessions", json={"image": CASE, "start": "current"}).json()
    client.delete(f"/slicecast/sessions/{opened['id']}")
    return {prompt["object"] for prompt in opened["prompts"]}


def test_a_draft_made_in_a_session_is_submitted_from_the_campaign(client, studies):
    session = open_session(client)
    client.post(f"/slicecast/sessions/{session}/prompts", json={"prompts": [CLICK]})
    earlier, shown = (client.post(f"/slicecast/sessions/{session}/draft", json={}).json()["shown"] for _ in range(2))
    stale = client.post(f"/campaign/case/{CASE}/submit", json={"shown": earlier}, headers=PRESSED)
    assert stale.status_code == 409, stale.text
    answer = client.post(f"/campaign/case/{CASE}/submit", json={"shown": shown}, headers=PRESSED)
    assert answer.status_code == 200, answer.text
    assert "lesion" in answer.json()["saved"]
    assert (studies / "labels" / "final" / f"{CASE}.nii.gz").is_file()


def test_what_can_be_looked_at_of_a_case_comes_on_its_grid(client, studies, tmp_path):
    """The case was submitted in the test before; a new label replaces it, and both can be compared."""
    before = client.get("/annotate/case", params={"image": CASE}).json()
    assert before["status"] == "submitted" and before["may_judge"] and before["own"]
    assert [title.partition(" by ")[0] for title in before["masks"]] == ["label", "draft"]
    answer = client.get("/annotate/mask.nii", params={"image": CASE, "title": before["masks"][0]})
    (file := tmp_path / "mask.nii").write_bytes(answer.content)
    stored = read_volume(studies / "labels" / "final" / f"{CASE}.nii.gz")
    assert (read_volume(file).array == stored.array).all()
    assert "lesion" in json.loads(answer.headers["X-Slicecast-Labels"])
    refused = client.get("/annotate/mask.nii", params={"image": CASE, "title": "nothing"})
    assert (refused.status_code, "Load the page again" in refused.json()["detail"]) == (404, True)


def test_a_replaced_label_can_be_looked_at(client):
    session = open_session(client)
    other = {**CLICK, "object": "ventricle", "ijk": [3, 3, CENTRE[2]]}
    client.post(f"/slicecast/sessions/{session}/prompts", json={"prompts": [other]})
    shown = client.post(f"/slicecast/sessions/{session}/draft", json={}).json()["shown"]
    assert client.post(f"/campaign/case/{CASE}/submit", json={"shown": shown}, headers=PRESSED).status_code == 200
    titles = client.get("/annotate/case", params={"image": CASE}).json()["masks"]
    assert any(title.startswith("label replaced at ") for title in titles)
    for title in titles:
        assert client.get("/annotate/mask.nii", params={"image": CASE, "title": title}).status_code == 200


def test_a_case_that_waits_for_a_reviewer_is_named(client):
    assert client.get("/annotate/case", params={"image": "second"}).json()["to_review"] == CASE


def test_every_prompt_and_locked_slice_of_a_session_is_in_the_campaigns_events(client, studies):
    i, j, k = CENTRE
    prompts = [
        {**CLICK, "object": "spleen"},
        {"kind": "point", "object": "spleen", "ijk": [1, 2, k], "positive": False},
        {"kind": "box", "object": "liver", "low_ijk": [i - 3, j - 3, k], "high_ijk": [i + 3, j + 3, k]},
        {"kind": "absent", "object": "spleen", "slice": 0},
    ]
    session = open_session(client)
    client.post(f"/slicecast/sessions/{session}/prompts", json={"prompts": prompts})
    client.post(f"/slicecast/sessions/{session}/accept", json={"object": "spleen", "slices": [k]})
    client.post(f"/slicecast/sessions/{session}/draft", json={})
    state = app_instance().campaign_service.campaign.state()
    assert state.case(CASE).prediction["prompts"] == {
        "inside": {"spleen": [CENTRE]},
        "outside": {"spleen": [[1, 2, k]]},
        "boxes": {"liver": [[[i - 3, j - 3, k], [i + 3, j + 3, k]]]},
        "absent": {"spleen": [0]},
        "locked": {"spleen": [k]},
    }
