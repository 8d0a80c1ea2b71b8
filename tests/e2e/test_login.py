"""MONAI Label's own client, which Slicer ships too, at a server that asks for logins."""

import json
import tempfile
from pathlib import Path

import pytest
from labelserver import copy_app, write_studies
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from slicecast.demo.server_process import serving
from slicecast.server.security.users import Users

# MONAI Label's client never closes its sockets
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def test_slicers_client_logs_in_and_works(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "users.json"))
    token = Users(tmp_path / "users.json").add("anna", role="annotator")
    write_studies(tmp_path / "studies")
    log = tmp_path / "server.log"
    with serving(tmp_path / "studies", app=copy_app(tmp_path / "app"), log=log) as server:
        client = MONAILabelClient(server.url, tmpdir=tempfile.mkdtemp(dir=tmp_path), client_id="anna")
        assert client.auth_enabled() and not client.auth_valid_token()
        with pytest.raises(MONAILabelClientException, match="Log in first"):
            client.info()
        with pytest.raises(MONAILabelClientException, match="do not belong together"):
            client.auth_token("anna", "guess")
        client.update_auth(client.auth_token("anna", token))
        assert client.auth_valid_token() and client.next_sample("first", {})["id"] == "first"
        file, _ = client.infer("sam2_single", "first", {"foreground": [[12, 10, 8]]})
        client.save_label("first", file, params={"label_info": []})
        assert client.datastore()["objects"]["first"]["labels"]["final"]
        with pytest.raises(MONAILabelClientException, match="needs the role admin"):
            client.train_start("sam2", {})
    assert token not in log.read_text(errors="replace") and json.dumps(token) not in log.read_text(errors="replace")
    assert Path(file).is_file()
