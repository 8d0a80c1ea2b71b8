"""The way to a DICOM server: a real one, as far as HTTP goes, in another thread."""

import base64
import json
import socket
import threading
import time

import anyio
import httpx
import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from labelserver import TestClient, monailabel_settings

from slicecast.errors import InputError
from slicecast.server.errors import HANDLERS
from slicecast.server.ohif.proxy import proxy_lifespan, router, target_url
from slicecast.server.settings import ProxySettings

WAIT_S = 20.0
MIB = 1 << 20


IN_BROTLI = base64.b64decode("G1YA+B0HdnPOh6OBV1hnZSxFtvagTpa69d9BqIJ1qQiaRaerTyugyERNKR1y6Q0CoLk/2oE8Z1yhtB6UAQ==")
"""`two_series("series")` as a server sends it to whom it may; no decoder of it is installed here."""

ODD_LISTS = {
    "insists": (IN_BROTLI, 200, {"content-encoding": "br"}),
    "damaged": (b"no gzip", 200, {"content-encoding": "gzip"}),
    "page": (b"<html>", 200),
    "one": (b'{"0020000E": 1}', 200),
    "short": (b"[", 200, {"content-length": "9"}),
    "none": (b"", 200),
}
"""Answers where a list of series should be."""


def odd_list(what: str):
    return Response(*ODD_LISTS[what], media_type="application/dicom+json")


def two_series(level: str, request: Request):
    if level == "series" and "br" in request.headers.get("accept-encoding", ""):
        return Response(IN_BROTLI, headers={"content-encoding": "br"}, media_type="application/dicom+json")
    uids = {"series": ["1.2.3", "1.2.4"], "instances": ["1.2.3", "1.2.4", "1.2.4"]}[level]
    return [{"0020000E": {"vr": "UI", "Value": [uid]}} for uid in uids]


def pacs_app(seen, release):
    """A server that says what it was asked."""
    pacs = FastAPI()

    @pacs.get("/dicom-web/stream")
    async def stream():
        async def chunks():
            yield b"first"
            await anyio.to_thread.run_sync(release.wait, WAIT_S)
            yield b"second"

        return StreamingResponse(chunks(), media_type="multipart/related; type=application/dicom; boundary=x")

    @pacs.get("/dicom-web/forbidden")
    def forbidden():
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})

    @pacs.get("/dicom-web/slow")
    async def slow():
        await anyio.sleep(3)

    @pacs.get("/dicom-web/broken")
    async def broken():
        async def chunks():
            yield b"some"
            raise OSError("disk")

        return StreamingResponse(chunks(), headers={"content-length": "100"})

    @pacs.get("/dicom-web/zipped")
    def zipped():
        import gzip

        return Response(gzip.compress(b"text"), headers={"content-encoding": "gzip", "set-cookie": "a=b", "x-own": "1"})

    @pacs.get("/dicom-web/moved")
    def moved():
        return RedirectResponse("/dicom-web/there")

    pacs.get("/dicom-web/studies/1.2/{level}")(two_series)
    pacs.get("/dicom-web/odd/{what}/series")(odd_list)

    @pacs.api_route("/{path:path}", methods=["GET", "POST"])
    async def anything(path: str, request: Request):
        size = sum([len(chunk) async for chunk in request.stream()])
        seen.append(request)
        return {"path": request.scope["raw_path"].decode(), "query": request.url.query, "size": size,
                "headers": dict(request.headers)}  # fmt: skip

    return pacs


@pytest.fixture(scope="module")
def pacs():
    """A server on a free port; yields its address, the requests it saw, and what lets its stream go on."""
    seen, release = [], threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(pacs_app(seen, release), log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        end = time.monotonic() + WAIT_S
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/dicom-web", seen, release
        server.should_exit = True
        thread.join(WAIT_S)


def door(limits=None):
    app = FastAPI(lifespan=lambda app: proxy_lifespan(app, limits or ProxySettings()), exception_handlers=HANDLERS)
    app.include_router(router)
    return app


@pytest.fixture
def client(pacs):
    with monailabel_settings(MONAI_LABEL_STUDIES=pacs[0]), TestClient(door(), raise_server_exceptions=False) as client:
        yield client


def ask(client, path, **options):
    answer = client.get(f"/proxy/dicom/{path}", **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_query_arrives_as_it_was(client):
    query = "PatientName=M%C3%BCller%2A&limit=25&includefield=all&includefield=00081030"
    seen = ask(client, f"qido/studies?{query}")
    assert (seen["path"], seen["query"]) == ("/dicom-web/studies", query)
    assert ask(client, "wado/studies/1.2.3/series")["query"] == ""


@pytest.mark.parametrize("level", ["series", "instances"])
def test_labels_that_were_replaced_are_not_listed(client, level):
    client.app.state.unlisted_series = lambda: frozenset(["1.2.4"])
    found = client.get(f"/proxy/dicom/qido/studies/1.2/{level}?limit=9")
    assert found.headers["content-type"] == "application/dicom+json"
    assert found.json() == [{"0020000E": {"vr": "UI", "Value": ["1.2.3"]}}]


@pytest.mark.parametrize("accepted", ["br, zstd", "gzip, deflate, br", "identity"])
def test_a_list_is_whole_whatever_encodings_are_accepted(client, accepted):
    """A reverse proxy asks for those that it can read; this server must read the list itself."""
    path, headers = "/proxy/dicom/qido/studies/1.2/series", {"accept-encoding": accepted}
    passed = client.get(path, headers=headers)
    if "br" in accepted:
        assert passed.headers["content-encoding"] == "br" and passed.content == IN_BROTLI
    assert int(passed.headers["content-length"]) == len(passed.content)
    client.app.state.unlisted_series = lambda: frozenset(["1.2.4"])
    found = client.get(path, headers=headers)
    assert "content-encoding" not in found.headers and int(found.headers["content-length"]) == len(found.content)
    assert found.json() == [{"0020000E": {"vr": "UI", "Value": ["1.2.3"]}}]


@pytest.mark.parametrize("what", sorted({*ODD_LISTS} - {"none"}))
def test_a_list_that_cannot_be_read_is_the_dicom_servers_fault(client, what):
    client.app.state.unlisted_series = lambda: frozenset(["1.2.4"])
    answer = client.get(f"/proxy/dicom/qido/odd/{what}/series")
    assert answer.status_code == 502 and "list" in answer.json()["detail"]


def test_an_empty_list_may_be_no_content_at_all(client):
    client.app.state.unlisted_series = lambda: frozenset(["1.2.4"])
    answer = client.get("/proxy/dicom/qido/odd/none/series")
    assert answer.status_code == 200 and answer.json() == []


def test_only_headers_that_matter_are_passed_on(client):
    asked = {"accept": 'multipart/related; type="application/octet-stream"', "range": "bytes=0-9"}
    private = {"authorization": "Bearer secret", "cookie": "token=secret", "host": "elsewhere", "x-forwarded-for": "1"}
    seen = ask(client, "wado/studies/1/frames/1", headers={**asked, **private})["headers"]
    assert {name: seen[name] for name in asked} == asked
    assert "secret" not in json.dumps(seen) and seen["host"].startswith("127.0.0.1") and "x-forwarded-for" not in seen


def test_only_headers_that_matter_come_back(client):
    answer = client.get("/proxy/dicom/zipped")
    assert answer.text == "text" and answer.headers["content-encoding"] == "gzip"
    assert not {"set-cookie", "x-own"} & set(answer.headers)
    moved = client.get("/proxy/dicom/moved", follow_redirects=False)
    assert moved.status_code == 307 and moved.headers["location"] == "/dicom-web/there"


def test_a_browser_gets_the_encoding_that_it_asked_for(client):
    assert ask(client, "a", headers={"accept-encoding": ""})["headers"].get("accept-encoding") == ""
    client.headers.pop("accept-encoding")
    assert ask(client, "a")["headers"]["accept-encoding"] == "identity"


def test_the_login_is_ours(pacs):
    login = {"MONAI_LABEL_DICOMWEB_USERNAME": "orthanc", "MONAI_LABEL_DICOMWEB_PASSWORD": "pass"}
    with monailabel_settings(MONAI_LABEL_STUDIES=pacs[0], **login), TestClient(door()) as client:
        seen = ask(client, "qido/studies", headers={"authorization": "Bearer theirs"})["headers"]
    assert seen["authorization"] == "Basic " + base64.b64encode(b"orthanc:pass").decode()


def test_prefixes(pacs):
    prefixes = {"MONAI_LABEL_QIDO_PREFIX": "q", "MONAI_LABEL_WADO_PREFIX": "w", "MONAI_LABEL_STOW_PREFIX": "s"}
    with monailabel_settings(**prefixes):
        paths = (
            "qido/studies",
            "wado/studies",
            "stow/studies",
            "studies",
            "qido/studies/1/metadata",
            "quido/x",
            "qido",
        )
        found = [target_url("http://pacs/dw/", path, query="").path for path in paths]
    expected = ["q/studies", "w/studies", "s/studies", "studies", "w/studies/1/metadata", "quido/x", "qido"]
    assert found == [f"/dw/{path}" for path in expected]


@pytest.mark.parametrize("path", ["../admin", "studies/../../admin", "./a", "qido/.."])
def test_paths_lead_nowhere_else(path):
    with pytest.raises(InputError, match="Write it out"):
        target_url("http://pacs/dw", path, query="")


@pytest.mark.parametrize("path", ["@evil.example/x", "/evil.example/x", "a?b#c", "a%2e%2e", "ü"])
def test_no_path_changes_the_server(path):
    url = target_url("http://pacs:8042/dw", path, query="x=1")
    assert (url.host, url.port) == ("pacs", 8042) and url.path.startswith("/dw/") and url.query == b"x=1"
    assert not url.fragment


def test_storing_streams_through(client):
    body = b"--x\r\n" + b"d" * (3 * MIB)
    headers = {"content-type": "multipart/related; type=application/dicom; boundary=x"}
    answer = client.post("/proxy/dicom/stow/studies", content=body, headers=headers).json()
    assert answer["size"] == len(body) and answer["headers"]["content-type"] == headers["content-type"]


def test_what_is_stored_has_a_limit(pacs):
    with monailabel_settings(MONAI_LABEL_STUDIES=pacs[0]), TestClient(door(ProxySettings(body_mb=1))) as client:
        claimed = client.post("/proxy/dicom/stow/studies", content=b"d" * (MIB + 1))
        came = client.post("/proxy/dicom/stow/studies", content=iter([b"d" * MIB, b"d"]))
        fits = client.post("/proxy/dicom/stow/studies", content=b"d" * MIB)
    assert (claimed.status_code, came.status_code, fits.status_code) == (413, 413, 200)
    assert "At most 1 MiB" in claimed.json()["detail"]


def serve(app):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def stop():
        server.should_exit = True
        thread.join(WAIT_S)
        listener.close()

    return f"http://127.0.0.1:{listener.getsockname()[1]}", stop


def test_an_answer_comes_as_it_is_made(pacs):
    """The first bytes are here before the DICOM server has sent the last."""
    url, _, release = pacs
    release.clear()
    with monailabel_settings(MONAI_LABEL_STUDIES=url):
        here, stop = serve(door())
        try:
            with httpx.stream("GET", f"{here}/proxy/dicom/stream", timeout=WAIT_S) as answer:
                chunks = answer.iter_raw()
                assert next(chunks) == b"first" and not release.is_set()
                release.set()
                assert b"".join(chunks) == b"second"
                assert answer.headers["content-type"].startswith("multipart/related")
        finally:
            release.set()
            stop()


def test_browsers_that_leave_free_their_connection(pacs):
    url, _, release = pacs
    release.clear()
    with monailabel_settings(MONAI_LABEL_STUDIES=url, MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT=10.0):
        here, stop = serve(door(ProxySettings(connections=2)))
        try:
            for _ in range(4):
                with httpx.stream("GET", f"{here}/proxy/dicom/stream", timeout=WAIT_S) as answer:
                    assert next(answer.iter_raw()) == b"first"
            assert httpx.get(f"{here}/proxy/dicom/a", timeout=WAIT_S).status_code == 200
        finally:
            release.set()
            stop()


def test_a_server_that_is_not_there():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with monailabel_settings(MONAI_LABEL_STUDIES=url), TestClient(door()) as client:
            answer = client.get("/proxy/dicom/studies")
    assert answer.status_code == 502 and "127.0.0.1 cannot be reached" in answer.json()["detail"]


def test_a_server_that_is_slow(pacs):
    settings = {"MONAI_LABEL_STUDIES": pacs[0], "MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT": 0.3}
    with monailabel_settings(**settings), TestClient(door()) as client:
        answer = client.get("/proxy/dicom/slow")
    assert answer.status_code == 504 and "did not answer in time" in answer.json()["detail"]


def test_a_server_that_does_not_know_us(client):
    answer = client.get("/proxy/dicom/forbidden")
    assert answer.status_code == 502 and "MONAI_LABEL_DICOMWEB_USERNAME" in answer.json()["detail"]
    assert "www-authenticate" not in answer.headers


def test_studies_in_a_folder(tmp_path):
    with monailabel_settings(MONAI_LABEL_STUDIES=str(tmp_path)), TestClient(door()) as client:
        answer = client.get("/proxy/dicom/qido/studies")
    assert answer.status_code == 404 and "are a folder" in answer.json()["detail"]
