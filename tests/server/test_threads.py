"""Routes of MONAI Label run in threads, after their JSON fields were checked."""

import asyncio
import threading

import pytest
from fastapi import APIRouter, FastAPI, Form, Request
from labelserver import TestClient

from slicecast.errors import Conflict
from slicecast.server.errors import HANDLERS
from slicecast.server.threads import off_loop

stock = APIRouter(prefix="/stock")


@stock.get("/thread")
async def thread() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


@stock.post("/fields")
async def fields(params: str = Form("{}")) -> str:
    return params


@stock.post("/body")
async def body(request: Request) -> str:
    return (await request.body()).decode()


@stock.delete("/fields")
@stock.get("/fields")
async def left_out() -> str:
    return "left in"


def refuse(arguments):
    if arguments.get("params") == '{"no": 1}':
        raise Conflict("no")


@pytest.fixture
def client():
    app = FastAPI(exception_handlers=HANDLERS)
    app.include_router(off_loop(stock, check=refuse, skip=("DELETE /stock/fields",)))
    return TestClient(app)


def test_a_coroutine_runs_in_a_worker_thread(client):
    assert "worker" in client.get("/stock/thread").json()


def test_a_body_can_still_be_read(client):
    assert client.post("/stock/body", content=b"text").json() == "text"


def test_fields_are_checked(client):
    assert client.post("/stock/fields", data={"params": '{"a": 1}'}).json() == '{"a": 1}'
    assert client.post("/stock/fields").json() == "{}"
    assert client.post("/stock/fields", data={"params": "[1]"}).status_code == 422
    assert client.post("/stock/fields", data={"params": '{"no": 1}'}).status_code == 409


def test_routes_can_be_left_out(client):
    assert client.get("/stock/fields").json() == "left in"
    assert client.delete("/stock/fields").status_code == 405


def test_the_original_router_is_untouched():
    app = FastAPI()
    app.include_router(stock)
    assert "worker" not in TestClient(app).get("/stock/thread").json()
