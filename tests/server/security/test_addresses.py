"""Which role a request needs, and what counts as this machine."""

import pytest

from slicecast.server.security.addresses import PUBLIC, host_name, is_own_host, is_this_machine, needed
from slicecast.server.security.users import Role


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/healthz", None),
        ("POST", "/auth/token", None),
        ("GET", "/auth/token/valid", Role.annotator),
        ("GET", "/info/", Role.annotator),
        ("GET", "/a/route/that/nobody/thought/of", Role.annotator),
        ("POST", "/infer/sam2", Role.annotator),
        ("PUT", "/datastore/label", Role.annotator),
        ("GET", "/datastore/dataset", Role.reviewer),
        ("PUT", "/datastore/image/info", Role.reviewer),
        ("PUT", "/datastore/updatelabelinfo", Role.reviewer),
        ("DELETE", "/datastore/", Role.admin),
        ("DELETE", "/datastore/label", Role.admin),
        ("GET", "/train/", Role.annotator),
        ("POST", "/train/sam2", Role.admin),
        ("POST", "/batch/infer/sam2", Role.admin),
        ("GET", "/logs", Role.admin),
        ("GET", "/logs/gpu", Role.admin),
        ("GET", "/model/info/sam2", Role.admin),
        ("PUT", "/model/sam2", Role.admin),
        ("POST", "/reload", Role.admin),
        ("GET", "/healthz/", Role.annotator),
    ],
)
def test_needed(method, path, role):
    assert needed(method, path) == role


def test_nothing_public_shows_studies():
    assert {path.strip("/").split("/")[0] for path in PUBLIC} == {"healthz", "login", "logout", "favicon.ico", "auth"}


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "testclient", None, ""])
def test_this_machine(client):
    assert is_this_machine(client)


@pytest.mark.parametrize("client", ["10.0.0.1", "192.168.1.5", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1"])
def test_other_machines(client):
    assert not is_this_machine(client)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("slicecast.localhost:1", True),
        ("[::1]:8000", True),
        ("10.0.0.5:8000", True),
        ("station7:8000", True),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_names_of_a_server_without_logins(host, own):
    assert is_own_host(host, ("station7",)) is own


def test_host_names():
    assert [host_name(host) for host in ("A:1", "[::1]:8000", "b")] == ["a", "::1", "b"]
