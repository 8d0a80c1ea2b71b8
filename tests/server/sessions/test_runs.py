import pytest

from slicecast.errors import Conflict
from slicecast.server.sessions.runs import Runs


def test_one_at_a_time_for_each_session():
    runs = Runs()
    with runs.only("a"), runs.only("b"):
        assert "a" in runs and "b" in runs
        with pytest.raises(Conflict, match="under way"), runs.only("a"):
            pass
        assert "a" in runs
    assert "a" not in runs
    with runs.only("a"):
        pass


def test_stopping():
    runs = Runs()
    assert not runs.stop("a")
    with runs.only("a") as stop, runs.only("b") as other:
        assert not stop.is_set() and runs.stop("a")
        assert stop.is_set() and not other.is_set()
    with runs.only("a") as stop:
        assert not stop.is_set()
