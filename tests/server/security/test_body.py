import pytest
from fastapi import FastAPI, Request
from labelserver import TestClient

from slicecast.server.security.body import LimitBody

MIB = 1 << 20


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
