"""The viewer's files."""

from urllib.parse import unquote

import pytest

from slicecast.errors import NotFound
from slicecast.server.ohif.viewer import ADDRESS_COOKIE, VIEWER, viewer_file


def test_the_viewers_own_addresses_start_it(client):
    for path in ("", "monai-label", "viewer/1.2.840"):
        answer = client.get(f"/ohif/{path}?StudyInstanceUIDs=1.2.3")
        assert answer.status_code == 200 and '<div id="root">' in answer.text


def test_the_panel_starts_with_this_servers_address(client):
    cookie = client.get("/ohif/").cookies[ADDRESS_COOKIE]
    assert unquote(cookie) == "http://localhost/"


def test_files_in_folders_are_found(client):
    """MONAI Label's own route sends the start page in their place."""
    nested = next(path for path in sorted((VIEWER / "assets").rglob("*")) if path.is_file())
    answer = client.get(f"/ohif/{nested.relative_to(VIEWER).as_posix()}")
    assert answer.content == nested.read_bytes()
    assert ADDRESS_COOKIE not in answer.cookies


def test_a_missing_file_is_missing(client):
    assert client.get("/ohif/gone.js").status_code == 404


@pytest.mark.parametrize("path", ["../../../config.py", "/etc/passwd", "assets/../../../../config.py", "..%2fx.py"])
def test_nothing_outside_the_viewer_is_sent(path):
    try:
        assert viewer_file(path) == VIEWER / "index.html"
    except NotFound as refused:
        assert "The viewer has no file" in str(refused)


def test_models_that_cannot_be_told_the_label_are_not_offered_to_it(client):
    page = {"Referer": "http://localhost/ohif/monai-label?StudyInstanceUIDs=1.2"}
    told = ["sam2", "ct_sam3d_nano", "sam2_nano+ct_sam3d_nano"]  # OHIF chooses the first one by itself
    assert list(client.get("/info/", headers=page).json()["models"]) == told
    assert set(client.get("/info/").json()["models"]) == {*told, "sam2_single", "sam2_slice"}
