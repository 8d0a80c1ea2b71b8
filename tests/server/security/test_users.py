"""Users: tokens are shown once, kept as hashes, compared in constant time, and gone at once when removed."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from slicecast.errors import ConfigError, Conflict, NotFound
from slicecast.server.security.users import Role, Users, digest


@pytest.fixture
def users(tmp_path):
    return Users(tmp_path / "deep" / "users.json")


def test_a_user_is_found_by_the_token_only(users, tmp_path):
    token = users.add("anna", role="reviewer")
    other = users.add("ben", role="annotator")
    assert users.check("anna", token).role == users.find(token).role == "reviewer"
    assert users.check("anna", other) is users.check("carl", token) is users.check("anna", "") is None
    assert users.find("") is users.find(digest(token)) is users.find(token[:-1]) is users.find("\ud800") is None


def test_the_file_holds_no_token_and_is_the_owners_only(users, tmp_path):
    token = users.add("anna", role="admin")
    file = tmp_path / "deep" / "users.json"
    assert token not in file.read_text() and digest(token) in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["users.json"]


def test_a_removed_user_is_out_at_once(users, tmp_path):
    token = users.add("anna", role="admin")
    server = Users(tmp_path / "deep" / "users.json")
    assert server.find(token)
    users.remove("anna")
    assert server.find(token) is None
    with pytest.raises(NotFound, match="no user 'anna'"):
        users.remove("anna")


def test_a_token_can_expire(tmp_path):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    users = Users(tmp_path / "users.json", clock=lambda: now)
    token = users.add("anna", role="annotator", days=2)
    assert users.find(token)
    later = Users(tmp_path / "users.json", clock=lambda: now + timedelta(days=2))
    assert later.find(token) is later.check("anna", token) is None


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "x" * 65, "ä"])
def test_names(users, name):
    with pytest.raises(ConfigError, match="no user's name"):
        users.add(name, role="admin")


def test_what_cannot_be_added(users):
    users.add("anna", role="admin")
    with pytest.raises(Conflict, match="already a user 'anna'"):
        users.add("anna", role="annotator")
    with pytest.raises(ConfigError, match=r"no role 'king'\. Choose annotator, reviewer, admin"):
        users.add("ben", role="king")


@pytest.mark.parametrize("content", ["{", "[]", '{"users": [{"name": "a"}]}', '{"users": [{"name": "a", "role": 1}]}'])
def test_a_damaged_file_lets_nobody_in(tmp_path, content):
    (tmp_path / "users.json").write_text(content)
    (tmp_path / "users.json").chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be used"):
        Users(tmp_path / "users.json").all()


def test_a_file_that_others_may_write_is_not_believed(tmp_path):
    (tmp_path / "users.json").write_text(json.dumps({"users": []}))
    (tmp_path / "users.json").chmod(0o666)
    with pytest.raises(ConfigError, match="chmod 600"):
        Users(tmp_path / "users.json").all()


def test_roles_are_a_ladder():
    assert Role.annotator < Role.reviewer < Role.admin
