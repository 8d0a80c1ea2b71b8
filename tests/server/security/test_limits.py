"""Bodies have a limit, and JSON is such that other programs can read it again."""

import json

import pytest
from fastapi import FastAPI, Request
from labelserver import TestClient

from slicecast.errors import InputError
from slicecast.server.security.limits import LimitBody, json_object, parse

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
        parse(text, max_depth=4)


@pytest.mark.parametrize("value", [{}, [], None, 1.5, "ä😀", {"a": [{"b": "c"}]}, [[[]]]])
def test_read(value):
    assert parse(json.dumps(value), max_depth=4) == value


@pytest.mark.parametrize(
    ("text", "message"), [("{bad", "not valid JSON"), ("7", "holds JSON of type int"), ("", "not valid")]
)
def test_json_object(text, message):
    with pytest.raises(InputError, match=message):
        json_object(text, "params")


@pytest.fixture(scope="module")
def client():
    app = FastAPI()
    app.add_middleware(LimitBody, limits={"/a/": MIB, "/a/large/": 2 * MIB})

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
    answer = client.post(path, content=content)
    assert answer.status_code == status
    assert answer.json() == size if status == 200 else "MiB. Send less" in answer.json()["detail"]
