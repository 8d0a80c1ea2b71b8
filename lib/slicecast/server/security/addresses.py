"""Addresses and Host headers: what is this machine, what is a name of this server, which proxy is believed."""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

FORWARDING = frozenset(
    (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip", b"forwarded")
)
"""Headers that a proxy adds, and anybody else can."""


class NamedProxies:
    """Middleware that believes the forwarding headers of the proxies that the settings name, and uses them up.

    Such a header that is still there behind it came from somebody else.

    Args:
        proxies: addresses and networks.
    """

    def __init__(self, app: ASGIApp, *, proxies: Collection[str]) -> None:
        self._app = app
        self._believe = ProxyHeadersMiddleware(self._without_headers, list(proxies))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        client = scope.get("client")
        named = scope["type"] == "http" and client is not None and client[0] in self._believe.trusted_hosts
        await (self._believe if named else self._app)(scope, receive, send)  # type: ignore[arg-type]

    async def _without_headers(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in FORWARDING]
        await self._app(scope, receive, send)


def was_forwarded(scope: Scope) -> bool:
    """Whether a request came by a proxy that nobody named, or pretends to."""
    return any(name in FORWARDING for name, _ in scope["headers"])


def is_address(text: str | None) -> bool:
    """Whether a text is a network address."""
    return _address(text) is not None


def is_this_machine(client: str | None) -> bool:
    """Whether a request comes from this machine; what is no address is foreign."""
    address = _address(client)
    return address is not None and (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address((text or "").partition("%")[0])
    except ValueError:
        return None


def host_name(host: str) -> str:
    """Return a Host header's name without its port, lower case."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def is_own_host(host: str, named: Collection[str]) -> bool:
    """Whether a server without logins may answer to that name.

    A web page elsewhere can make its own name point to this machine and so read answers (DNS rebinding); it cannot
    make an address or `localhost` its own.
    """
    name = host_name(host)
    return name == "localhost" or name.endswith(".localhost") or name in named or is_address(name)
