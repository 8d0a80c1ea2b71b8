"""Which role a request needs. What is not named here needs a login, so a new route is never open by mistake."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from slicecast.server.security.users import Role

READ = frozenset(("GET", "HEAD", "OPTIONS"))
ANY: frozenset[str] = frozenset()

PUBLIC = frozenset(("/healthz", "/login", "/logout", "/favicon.ico", "/auth", "/auth/", "/auth/token"))
"""What must work for those who are not logged in yet; none of it says anything about the studies."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests that need more than a login; no methods means all."""

    role: Role
    path: re.Pattern[str]
    methods: frozenset[str] = ANY


RULES = (
    Rule(Role.admin, re.compile(r"/(logs|model|reload)(/.*)?")),
    Rule(Role.admin, re.compile(r"/(train|batch)(/.*)?"), frozenset(("POST", "PUT", "DELETE", "PATCH"))),
    Rule(Role.admin, re.compile(r"/datastore(/.*)?"), frozenset(("DELETE",))),
    Rule(Role.reviewer, re.compile(r"/scoring/?"), frozenset(("DELETE",))),
    Rule(Role.reviewer, re.compile(r"/datastore/(dataset|(image|label)/info|updatelabelinfo)/?"), frozenset(("PUT",))),
    Rule(Role.reviewer, re.compile(r"/datastore/dataset/?")),
)


def needed(method: str, path: str) -> Role | None:
    """Return the least role that a request needs; None when it needs no login."""
    if path in PUBLIC:
        return None
    for rule in RULES:
        if (not rule.methods or method in rule.methods) and rule.path.fullmatch(path):
            return rule.role
    return Role.annotator


def is_address(text: str | None) -> bool:
    """Whether a text is a network address."""
    return _address(text) is not None


def is_this_machine(client: str | None) -> bool:
    """Whether a request comes from this machine; what is no address cannot have come over a network."""
    address = _address(client)
    if address is None:
        return True
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address((text or "").partition("%")[0])
    except ValueError:
        return None


def host_name(host: str) -> str:
    """Return a Host header's name without its port, lower case."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def is_own_host(host: str, named: tuple[str, ...]) -> bool:
    """Whether a server without logins may answer to that name.

    A web page elsewhere can make its own name point to this machine and so read answers (DNS rebinding); it cannot
    make an address or `localhost` its own.
    """
    name = host_name(host)
    return name == "localhost" or name.endswith(".localhost") or name in named or is_address(name)
