import json
import threading

import anyio
import pytest
from fastapi import FastAPI, Request
from labelserver import TestClient

from slicecast.errors import Cancelled, Conflict, QueueFull, VolumeError
from slicecast.server.errors import HANDLERS
from slicecast.server.sessions.models import ProgressEvent
from slicecast.server.sessions.propagation import Runs, stream_lines

WAIT_S = 60


def line(done):
    return ProgressEvent(done=done, what="walking")


def client_of(work):
    app = FastAPI(exception_handlers=HANDLERS)
    limiter = []

    @app.post("/")
    async def route(request: Request):
        limiter.append(anyio.CapacityLimiter(2))
        return await stream_lines(request, work, limiter=limiter[0])

    return TestClient(app)


def post(work):
    with client_of(work) as client:
        return client.post("/")


def lines(answer):
    return [json.loads(text) for text in answer.text.splitlines()]


def test_lines_and_what_is_returned():
    def work(put, stop):
        for n in range(3):
            put(line(n))
        assert not stop.is_set()
        return line(3)

    answer = post(work)
    assert answer.headers["content-type"] == "application/x-ndjson" and answer.headers["x-accel-buffering"] == "no"
    assert [entry["done"] for entry in lines(answer)] == [0, 1, 2, 3]


def test_an_error_before_the_first_line_is_the_status():
    def work(put, stop):
        raise QueueFull("Busy.")

    answer = post(work)
    assert answer.status_code == 503 and answer.headers["retry-after"] and answer.json() == {"detail": "Busy."}


@pytest.mark.parametrize(("error", "status"), [(VolumeError("No volume."), 422), (RuntimeError("secret"), 500)])
def test_a_later_error_is_the_last_line(error, status):
    def work(put, stop):
        put(line(1))
        raise error

    answer = post(work)
    *_, last = lines(answer)
    assert answer.status_code == 200 and last["type"] == "error" and last["status"] == status
    assert "secret" not in answer.text


def test_the_work_ends_before_the_answer_does():
    ended = threading.Event()

    def work(put, stop):
        put(line(1))
        ended.set()
        return line(2)

    assert len(lines(post(work))) == 2 and ended.is_set()


def waited_for():
    """The client is still there."""
    return False


def test_one_at_a_time_for_each_session():
    runs = Runs()
    with runs.only("a", gone=waited_for), runs.only("b", gone=waited_for):
        assert "a" in runs and "b" in runs
        with pytest.raises(Conflict, match="under way"), runs.only("a", gone=waited_for):
            pass
        assert "a" in runs
    assert "a" not in runs
    with runs.only("a", gone=waited_for):
        pass


def test_stopping():
    runs = Runs()
    assert not runs.stop("a")
    with runs.only("a", gone=waited_for) as ending, runs.only("b", gone=waited_for) as other:
        assert not ending() and runs.stop("a")
        assert ending() and not other()
    with runs.only("a", gone=waited_for) as ending:
        assert not ending()


@pytest.mark.parametrize("cancelled", [True, False])
def test_one_that_is_ending_is_waited_for(cancelled):
    """Cancelled, or its client has gone: a page that is loaded again goes on from there."""
    runs, began, may_end, order = Runs(), threading.Event(), threading.Event(), []

    def before():
        with runs.only("a", gone=lambda: not cancelled):
            began.set()
            assert may_end.wait(WAIT_S)
            order.append("before")

    def after():
        with runs.only("a", gone=waited_for):
            order.append("after")

    first, second = threading.Thread(target=before), threading.Thread(target=after)
    first.start()
    assert began.wait(WAIT_S)
    if cancelled:
        runs.stop("a")
    with pytest.raises(Cancelled), runs.only("a", gone=lambda: True):
        pass
    second.start()
    may_end.set()
    for thread in (first, second):
        thread.join(WAIT_S)
    assert order == ["before", "after"] and "a" not in runs
