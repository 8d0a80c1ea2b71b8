"""Finds why a client does not reach a server: address, name, port, TLS, version, login, models."""

import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx

import slicecast

Finding = tuple[str, bool, str, str]  # Name of a check, whether it went well, what was found, the remedy

WAIT_S = 10.0


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
        info = client.get("/info/", headers={"Authorization": f"Bearer {login.json()['access_token']}"})
    if info.status_code != 200:
        yield "models", False, f"{info.status_code}: {_detail(info)}", "see the server's log"
        return
    yield "models", True, ", ".join(sorted(info.json()["models"])), ""


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
