"""Two servers of one checkout are apart, and two of one folder refused."""

import subprocess

import pytest
from labelserver import ROOT, another_server, serving, write_studies

from slicecast.campaign.settings import CampaignSettings
from slicecast.errors import ResourceError
from slicecast.labelling import state


def test_a_second_server_is_refused_however_it_is_started(tmp_path):
    """Every way to start one goes through the app's `on_init_complete`."""
    studies = write_studies(tmp_path / "studies")
    refused = pytest.raises(ResourceError, match="Another server runs on")
    with another_server(studies), refused, serving(tmp_path / "app", studies, {"preannotate": "false"}):
        pass
    with serving(tmp_path / "app", studies, {"preannotate": "false"}):
        lock = another_server(studies)
        with pytest.raises(TimeoutError):
            lock.acquire(timeout=0)
    with another_server(studies).acquire(timeout=0):
        pass


def test_servers_that_share_postgresql_share_studies(tmp_path, monkeypatch):
    shared = CampaignSettings(database="postgresql+psycopg://host/name")
    monkeypatch.setattr(state, "campaign_settings", lambda: shared)
    with another_server(tmp_path), state.only_server(str(tmp_path)):
        pass


def test_a_dicom_servers_state_lies_with_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "users.json"))
    one, other = (state.state_folder(f"http://{name}/dicom-web") for name in ("a", "b"))
    assert one.parent == other.parent == tmp_path / "servers" and one != other


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_git_ignores_what_a_server_of_the_samples_writes():
    written = ("labels/final/a", "campaign/campaign.db", ".slicecast/app/a", "segmentations/a", "datastore_v2.json")
    paths = [f"sample-data/studies/{path}" for path in written]
    done = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == paths


def test_git_overlooks_what_a_server_writes_among_the_sample_scans():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    names = (
        ".slicecast/app/logs/app.log",
        "labels/final/a.nii.gz",
        "campaign/campaign.db",
        "datastore_v2.json",
        ".lock",
    )
    written = [f"sample-data/studies/{name}" for name in (*names, "segmentations/1.2.dcm")]
    done = subprocess.run(["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == written
