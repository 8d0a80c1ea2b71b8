"""Network addresses and Host headers: what is this machine, and what is a name of this server."""

from ipaddress import IPv4Address, IPv6Address, ip_address


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
