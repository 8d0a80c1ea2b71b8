"""Connections whose clients keep the server waiting end; answers that take their time do not."""

import socket
import threading
import time

import pytest
import uvicorn
from fastapi import FastAPI, Request

from slicecast.demo.server_process import free_port
from slicecast.server.connections import PatientProtocol

app = FastAPI()
POST = b"POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"


@app.post("/length")
async def length(request: Request) -> int:
    return len(await request.body())


@app.get("/slow")
def slow() -> str:
    time.sleep(5 * Hasty.idle_s)
    return "done"


class Hasty(PatientProtocol):
    idle_s = 0.3


@pytest.fixture(scope="module")
def port():
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=Hasty, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


def answer_to(port: int, *parts: bytes, finish: bool = False) -> bytes:
    """Send, wait until the server ends the connection, and return what came."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(60)
        for part in parts:
            connection.sendall(part)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        try:
            return b"".join(iter(lambda: connection.recv(4096), b""))
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("sent", [b"", b"GET /slow HT", POST, POST + b"\r\n", POST + b"\r\nab"])
def test_whoever_keeps_the_server_waiting_is_cut_off(port, sent):
    assert answer_to(port, *([sent] if sent else [])) == b""


def test_headers_byte_by_byte_do_not_prolong_it(port):
    with socket.create_connection(("127.0.0.1", port)) as connection, pytest.raises(OSError):
        connection.sendall(b"GET /slow HTTP/1.1\r\n")
        for _ in range(10_000):  # far longer than any wait
            time.sleep(0.05)
            connection.sendall(b"X")


def test_a_half_closed_connection_ends(port):
    answer_to(port, POST, finish=True)


def test_a_slow_answer_comes(port):
    assert b"done" in answer_to(port, b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


def test_a_body_in_pieces_comes(port):
    rest = b"Connection: close\r\n\r\nab"
    assert answer_to(port, POST, rest, b"cd").endswith(b"4")
