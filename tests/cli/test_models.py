import hashlib
import json

import pytest
import yaml
from typer.testing import CliRunner

from slicecast.cli.models import app
from slicecast.models.registry import load_registry
from slicecast.models.weights import weights_path

CONTENT = b"weights"


def invoke(*arguments):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache folder of the test's own, and no model chosen by the environment."""
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLICECAST_MODEL", raising=False)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A registry with one small model that is in place, and a bundled one that is not; gives its file."""
    common = {"architecture": "a.yaml", "image_size": 64, "licence": "CC0-1.0", "bytes": len(CONTENT)}
    models = {
        "toy": {
            "title": "Toy",
            "file": "toy.pt",
            "url": "http://127.0.0.1:9/toy.pt",
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
            **common,
        },
        "own": {"title": "Own", "file": "absent.pt", "bundled": True, "sha256": "0" * 64, **common},
    }
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}, sort_keys=False))
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path))
    path = weights_path(load_registry()["toy"])
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


def test_list_shows_every_model_with_its_licence():
    result = invoke("list")
    assert result.exit_code == 0
    for name in load_registry():
        assert name in result.stdout
    assert "research and education only" in result.stdout and "not pulled" in result.stdout


def test_list_marks_the_default():
    assert "* sam2_nano" in invoke("list").stdout


def test_list_as_json_has_everything():
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json").stdout)}
    assert rows["edgetam"]["state"] == "not supported"
    assert rows["sam2.1_hiera_tiny"]["bytes"] == 156008466
    assert [name for name, row in rows.items() if row["default"]] == ["sam2_nano"]


def test_list_tells_ready_from_wrong_size(toy):
    assert json.loads(invoke("list", "--json").stdout)[0]["state"] == "ready"
    toy.write_bytes(CONTENT + b"!")
    assert json.loads(invoke("list", "--json").stdout)[0]["state"] == "wrong size"


def test_verify_passes_the_right_file(toy):
    result = invoke("verify", "toy")
    assert result.exit_code == 0 and result.stdout == f"toy: right, at {toy}\n"


def test_verify_without_names_checks_what_is_here_and_the_bundled_one(toy):
    result = invoke("verify")
    assert result.exit_code == 1
    assert "toy: right" in result.stdout and "own: " in result.stderr and "install Slicecast again" in result.stderr


def test_verify_reports_every_wrong_file(toy):
    toy.write_bytes(CONTENT[::-1])
    result = invoke("verify", "toy")
    assert result.exit_code == 1 and "SHA-256" in result.stderr and "models pull toy" in result.stderr


def test_pull_of_a_file_already_here_needs_no_network(toy):
    result = invoke("pull", "toy")
    assert result.exit_code == 0, result.output
    assert "Licence of the weights: CC0-1.0." in result.stdout and f"checked, at {toy}" in result.stdout
    assert "Used from now on when no model is named: toy" in result.stdout


def test_pull_wants_a_name():
    assert invoke("pull").exit_code == 2
