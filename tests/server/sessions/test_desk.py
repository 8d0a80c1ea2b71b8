"""Whose session it is."""

from types import SimpleNamespace

import pytest
from monailabel.endpoints.user.auth import User

from slicecast.inference.caller import Caller, calling
from slicecast.server.sessions.desk import may_use, the_caller

ANNS = SimpleNamespace(owner="ann")


@pytest.mark.parametrize(
    ("caller", "may"),
    [
        (Caller(name="bob"), True),  # nobody logs in
        (Caller(user="ann", roles=frozenset({"annotator"})), True),
        (Caller(user="bob", roles=frozenset({"annotator", "reviewer"})), False),
        (Caller(user="bob", name="ann", roles=frozenset({"annotator"})), False),
        (Caller(user="bob", roles=frozenset({"admin"})), True),
    ],
)
def test_sessions_are_their_owners_and_the_administrators(caller, may):
    assert may_use(caller, ANNS) is may


@pytest.mark.parametrize(
    ("caller", "client_id", "name"),
    [
        (Caller(address="10.0.0.7"), "", "10.0.0.7"),
        (Caller(address="10.0.0.7", name="ann"), "", "ann"),
        (Caller(address="10.0.0.7", name="ann"), "bob", "bob"),
        (Caller(address="10.0.0.7", user="ann"), "bob", "ann"),
    ],
)
def test_a_login_counts_before_the_address_line(caller, client_id, name):
    with calling(caller):
        assert the_caller(User(username="anybody"), client_id).named() == name
