"""Bodies have a limit, and JSON is such that other programs can read it again."""

import json
import threading

import pytest
from fastapi import FastAPI, Request
from labelserver import TestClient

from slicecast.errors import InputError, TooLarge
from slicecast.server.security import limits
from slicecast.server.security.limits import LimitBody, StrictJson, json_object, parse

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "no JSON number"),
        ('{"a": [-Infinity]}', "no JSON number"),
        ("1e999", "too large"),
        (r'{"a": "\ud800"}', "half a character"),
        (r'{"\udfff": 1}', "half a character"),
        ("[" * 5 + "]" * 5, "nested more than 4 deep"),
        ("[" * 100_000, "nested more than 4 deep"),
        ("{", "Expecting"),
        (b"\xff\xfe", "decode|Expecting|utf"),
        ("1" * 5000, "limit"),
    ],
)
def test_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse(text, max_depth=4, max_nodes=1000)


@pytest.mark.parametrize("text", ["[" + "[]," * 1000 + "[]]", '{"a": [' + "1," * 1000 + "1]}"])
def test_many_values_are_too_large(text):
    with pytest.raises(TooLarge, match="more than 1000 values"):
        parse(text, max_depth=4, max_nodes=1000)


@pytest.mark.parametrize("value", [{}, [], None, 1.5, "ä😀", {"a": [{"b": "c"}]}, [[[]]]])
def test_read(value):
    assert parse(json.dumps(value), max_depth=4, max_nodes=1000) == value


@pytest.mark.parametrize(
    ("text", "message"), [("{bad", "not valid JSON"), ("7", "holds JSON of type int"), ("", "not valid")]
)
def test_json_object(text, message):
    with pytest.raises(InputError, match=message):
        json_object(text, "params")


@pytest.fixture(scope="module")
def client():
    app = FastAPI()
    app.add_middleware(LimitBody, limits={"/a/": MIB, "/a/large/": 2 * MIB}, text_bytes=MIB)

    @app.post("/{path:path}")
    async def size(path: str, request: Request) -> int:
        return len(await request.body())

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [("/a/x", MIB, 200), ("/a/x", MIB + 1, 413), ("/a/large/x", 2 * MIB, 200), ("/a/large/x", 2 * MIB + 1, 413),
     ("/b", 3 * MIB, 200)],
)  # fmt: skip
@pytest.mark.parametrize("said", [True, False])
def test_bodies_have_a_limit(client, path, size, status, said):
    content = b"x" * size if said else iter([b"x" * (size // 2), b"x" * (size - size // 2)])
    answer = client.post(path, content=content, headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == status
    assert answer.json() == size if status == 200 else "MiB. Send less" in answer.json()["detail"]


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(("kind", "status"), [("application/json", 413), ("application/dicom+json", 413), (FORM, 413),
                                              ("", 413), ("application/octet-stream", 200)])  # fmt: skip
def test_text_has_a_lower_limit_than_files(client, kind, status):
    for content in (b"x" * (MIB + 1), iter([b"x" * MIB, b"x"])):
        answer = client.post("/a/large/x", content=content, headers={"Content-Type": kind} if kind else {})
        assert answer.status_code == status


def test_json_is_parsed_off_the_event_loop():
    app, threads = FastAPI(), []
    app.add_middleware(StrictJson, max_depth=4, max_nodes=1000)

    @app.post("/")
    async def loop() -> str:
        return threading.current_thread().name

    with pytest.MonkeyPatch.context() as patch, TestClient(app) as client:
        patch.setattr(limits, "parse", lambda *text, **limits: threads.append(threading.current_thread().name))
        assert threads != [client.post("/", json={}).json()] and len(threads) == 1


def test_too_many_values_are_413():
    app = FastAPI()
    app.add_middleware(StrictJson, max_depth=4, max_nodes=1000)
    with TestClient(app) as client:
        assert client.post("/", json=[0] * 1000).status_code == 413
