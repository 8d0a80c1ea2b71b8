"""Who asks, read from a request."""

from types import SimpleNamespace

import pytest
from starlette.requests import HTTPConnection

from slicecast.server.security.callers import caller_of


def connection(*headers, state=None):
    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "headers": raw, "client": ("10.0.0.7", 1), "state": state or {}}
    return HTTPConnection(scope)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ((), None),
        ((("cookie", "slicecast_user=Anna%20B"),), "Anna B"),
        ((("cookie", "slicecast_user=Anna"), ("x-slicecast-user", "Bob")), "Bob"),
        ((("x-slicecast-user", "  "),), None),
    ],
)
def test_what_a_client_calls_itself(headers, name):
    caller = caller_of(connection(*headers))
    assert (caller.name, caller.address, caller.roles) == (name, "10.0.0.7", None)


def test_a_login_counts_first():
    caller = caller_of(connection(("x-slicecast-user", "eve"), state={"user": "ann", "roles": {"annotator"}}))
    assert caller.called("mallory") == "ann" and not caller.may("reviewer") and caller.may("annotator")
    assert SimpleNamespace(roles=caller.roles).roles == frozenset({"annotator"})
