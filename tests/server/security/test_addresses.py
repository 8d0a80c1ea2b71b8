"""What counts as this machine, and as a name of it."""

import pytest

from slicecast.server.security.addresses import host_name, is_own_host, is_this_machine


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine(client):
    assert is_this_machine(client)


@pytest.mark.parametrize(
    "client", ["10.0.0.1", "192.168.1.5", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1", "testclient", None, ""]
)
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
