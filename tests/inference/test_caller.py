"""Who is asking."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from slicecast.inference.caller import Caller, calling, current_caller


@pytest.mark.parametrize(
    ("caller", "client_id", "name"),
    [
        (Caller(user="ann", name="eve"), "mallory", "ann"),
        (Caller(name="ann"), " bob ", "bob"),
        (Caller(name="ann"), None, "ann"),
        (Caller(name="ann"), {"a": 1}, "ann"),
        (Caller(address="10.0.0.1"), "", None),
    ],
)
def test_the_best_name(caller, client_id, name):
    assert caller.called(client_id) == name


def test_who_has_no_name_is_called_by_the_address():
    assert Caller(address="10.0.0.7").named() == Caller(address="10.0.0.7").named(" ") == "10.0.0.7"
    assert Caller(address="10.0.0.7", name="ann").named() == "ann"
    assert Caller().named() == ""


def test_a_name_is_cut():
    assert len(Caller().called("x" * 999)) == 200


@pytest.mark.parametrize(
    ("roles", "role", "may"),
    [
        (None, "reviewer", True),
        ((), "annotator", False),
        (("reviewer",), "reviewer", True),
        (("admin",), "reviewer", True),
    ],
)
def test_roles(roles, role, may):
    assert Caller(roles=None if roles is None else frozenset(roles)).may(role) is may


def test_a_thread_of_the_request_inherits_the_caller():
    with calling(Caller(name="ann")), ThreadPoolExecutor(1) as pool:
        assert pool.submit(copy_context().run, current_caller).result().name == "ann"
    assert current_caller().name is None
