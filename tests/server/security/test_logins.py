"""Logins end, and guessing gets slow."""

from slicecast.server.security import logins
from slicecast.server.security.logins import WINDOW_S, Identity, Logins, Throttle
from slicecast.server.security.users import Role

ANNA = Identity("anna", Role.annotator, expires=100.0)


def test_a_login_ends_by_time_or_by_will():
    now = [0.0]
    held = Logins(clock=lambda: now[0])
    token = held.open(ANNA)
    assert held.find(token) == ANNA and held.find(token + "x") is None
    assert token not in str(held._held)
    now[0] = 100.0
    assert held.find(token) is None
    now[0] = 0.0
    token = held.open(ANNA)
    held.close(token)
    held.close("unknown")
    assert held.find(token) is None


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(logins, "MAX_LOGINS", 3)
    monkeypatch.setattr(logins, "MAX_WATCHED", 3)
    held, throttle = Logins(clock=lambda: 0.0), Throttle(1, clock=lambda: 0.0)
    tokens = [held.open(ANNA) for _ in range(5)]
    assert [held.find(token) is not None for token in tokens] == [False, False, True, True, True]
    for number in range(5):
        throttle.failed(f"user {number}")
    assert len(throttle._wrong) == 3


def test_guessing_gets_slow():
    now = [0.0]
    throttle = Throttle(3, clock=lambda: now[0])
    for _ in range(3):
        assert throttle.wait_s("user anna", "address a") == 0
        throttle.failed("user anna", "address a")
    assert throttle.wait_s("user anna") == throttle.wait_s("user ben", "address a") == WINDOW_S
    assert throttle.wait_s("user ben", "address b") == 0
    now[0] = WINDOW_S
    assert throttle.wait_s("user anna", "address a") == 0
    throttle.failed("user anna")
    throttle.succeeded("user anna", "nobody")
    assert throttle.wait_s("user anna") == 0
