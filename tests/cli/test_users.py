"""`slicecast users`."""

import pytest
from typer.testing import CliRunner

from slicecast.cli import users
from slicecast.server.security.users import Users


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "users.json"))
    return tmp_path / "users.json"


def run(*words: str):
    return CliRunner().invoke(users.app, words, catch_exceptions=False)


def test_add_list_remove(file):
    assert "No users" in run("list").output
    token = run("add", "anna", "--role", "reviewer", "--days", "3").stdout.strip()
    assert Users(file).find(token).role == "reviewer"
    listed = run("list").output
    assert "anna" in listed and "reviewer" in listed and token not in listed
    assert "anna is removed" in run("remove", "anna").output and Users(file).all() == {}
