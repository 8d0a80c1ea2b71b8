"""Finds why a client does not reach a server, or lacks something there: from address and TLS to disk and limits."""

import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx

import slicecast

Finding = tuple[str, bool, str, str]  # Name of a check, whether it went well, what was found, the remedy

WAIT_S = 10.0
LEAST_DISK_MB, LEAST_DEVICE_MB = 1024, 1024
"""Below this the next labels, or the next click, may find no room."""

BODY = b" " * (2 << 20)
"""Larger than nginx lets through by default (1 MiB); a painted mask may be larger."""


def examine_server(url: str, user: str, ask_token: Callable[[], str]) -> Iterator[Finding]:
    """Yield name, outcome, finding and remedy of each check, as far as one gets.

    Args:
        user: who logs in where the server asks for it; empty for nobody.
        ask_token: called only then.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield "address", False, f"{url!r} is no address of a server", "write http://NAME:8000 or https://NAME"
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0][4][0]
    except (OSError, ValueError) as error:
        yield (
            "name",
            False,
            f"{parts.netloc} is not known here: {error}",
            "check the spelling; else give its IP address",
        )
        return
    yield "name", True, f"{parts.hostname} is {address}", ""
    with httpx.Client(base_url=url.rstrip("/"), timeout=WAIT_S) as client:
        try:
            alive = client.get("/healthz")
        except httpx.HTTPError as error:
            yield "connection", False, f"{type(error).__name__}: {error}", _remedy(error, port)
            return
        yield from _answers(client, alive, user, ask_token)


def _remedy(error: httpx.HTTPError, port: int) -> str:
    text = str(error)
    if "CERTIFICATE" in text:
        return (
            "the certificate does not count here: use the name it was made for, or set SSL_CERT_FILE to its authority's"
        )
    if "SSL" in text or "disconnected" in text:
        return "no TLS under this name here: use the name of the certificate, or http:// instead of https://"
    if isinstance(error, httpx.TimeoutException):
        return f"nothing answers at port {port}: a firewall, or another network"
    return f"no server listens at port {port}: is it started, with --host 0.0.0.0 or a proxy, and is the port right?"


def _answers(client: httpx.Client, alive: httpx.Response, user: str, ask_token: Callable[[], str]) -> Iterator[Finding]:
    try:
        version = alive.json()["version"]
    except (ValueError, KeyError, TypeError):
        found = f"{alive.status_code} {alive.reason_phrase} at /healthz; that is not Slicecast"
        yield "connection", False, found, "a proxy answers, or another program: check address, port and the proxy's log"
        return
    same = version == slicecast.__version__
    yield "version", True, f"{version}{'' if same else f'; here it is {slicecast.__version__}'}", ""
    info = client.get("/info/")
    if info.status_code == 401:
        if not user:
            yield "login", False, "the server asks for a login", "slicecast doctor --server URL --user NAME"
            return
        login = client.post("/auth/token", data={"username": user, "password": ask_token()})
        if login.status_code != 200:
            yield "login", False, _detail(login), "slicecast users list, on the server; a token is shown only once"
            return
        yield "login", True, user, ""
        client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
        info = client.get("/info/")
    if info.status_code != 200:
        yield "models", False, f"{info.status_code}: {_detail(info)}", "see the server's log"
        return
    yield "models", True, ", ".join(sorted(info.json()["models"])), ""
    yield from _room(client.get("/slicecast/health"))
    sent = client.post("/slicecast/sessions", content=BODY)
    passed = sent.headers.get("content-type", "").startswith("application/json")  # the server's own refusal
    found = "a request of 2 MiB comes through" if passed else f"{sent.status_code} for a request of 2 MiB"
    yield "size", passed, found, "" if passed else "raise the proxy's limit (nginx: client_max_body_size 2g)"


def _room(answer: httpx.Response) -> Iterator[Finding]:
    if answer.status_code != 200:
        yield "model", False, f"{answer.status_code}: {_detail(answer)}", "slicecast doctor, on the server"
        return
    health = answer.json()
    yield "model", True, f"{health['model']} on {health['device']}", ""
    least, free = LEAST_DEVICE_MB, health["device_mb"]
    yield (
        "memory",
        free >= least,
        f"{free} MiB free",
        "" if free >= least else "stop other programs, or take a smaller model",
    )
    least, free = LEAST_DISK_MB, health["disk_mb"]
    yield "disk", free >= least, f"{free} MiB free", "" if free >= least else "make room where the studies lie"
    limits = f"images up to {health['image_mb']} MiB, {health['sessions_each']} open sessions a user"
    yield "limits", True, limits, ""


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
