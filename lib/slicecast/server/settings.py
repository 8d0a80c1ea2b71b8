"""Limits and logins: `configs/server.yaml`, which the command line reads too."""

from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_network

from slicecast.config import build, read_config, require_numbers
from slicecast.errors import ConfigError
from slicecast.inference.queue import QueueSettings
from slicecast.inference.settings import RequestLimits

FILE = "server.yaml"


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Limits of the routes below `/slicecast/sessions`.

    Raises:
        ConfigError: a value is not a positive whole number.
    """

    per_user: int = 16  # open sessions of one user
    body_mb: int = 512  # largest request, in MiB

    def __post_init__(self) -> None:
        require_numbers(self, where=FILE)


@dataclass(frozen=True, slots=True)
class NnInteractiveSettings:
    """Limits of the routes below `/nninteractive`; raises ConfigError if a value is not a positive whole number."""

    leases: int = 16  # clients at a time
    idle_s: int = 3600  # seconds without a prompt after which a lease ends
    alive_s: int = 180  # seconds without a sign of life after which a lease ends
    body_mb: int = 1024  # largest request, in MiB, packed
    unpacked_mb: int = 2048  # largest image, in MiB, unpacked

    def __post_init__(self) -> None:
        require_numbers(self, where=FILE)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Limits of the way to the DICOM server; raises ConfigError if a value is not a positive whole number."""

    connections: int = 32  # open at a time; more requests wait for one of them
    body_mb: int = 2048  # largest request that is passed on, in MiB

    def __post_init__(self) -> None:
        require_numbers(self, where=FILE)


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Logins; raises ConfigError if a value is impossible."""

    hours: int = 12  # a login lasts
    failures: int = 5  # wrong logins of one name from one address within five minutes, until they must wait
    # names under which a server without logins may be asked, besides localhost and addresses
    hosts: tuple[str, ...] = ()
    # addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed
    proxies: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()  # addresses and networks that may read `/metrics` without a login
    oidc_issuer: str = ""  # address of the OpenID provider; empty for none
    oidc_audience: str = ""  # that its tokens must be meant for
    oidc_client_id: str = ""  # under which passwords are exchanged for tokens
    oidc_client_secret: str = field(default="", repr=False)  # where the provider gave the client one
    oidc_roles: str = "realm_access.roles"  # where the token names roles; dots lead inwards
    oidc_annotator: str = "monailabel-annotator"  # the provider's name of a role
    oidc_reviewer: str = "monailabel-reviewer"  # the same
    oidc_admin: str = "monailabel-admin"  # the same

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", tuple(str(host).lower() for host in self.hosts or ()))
        for name in ("proxies", "metrics"):
            object.__setattr__(self, name, tuple(map(str, getattr(self, name) or ())))
            for network in getattr(self, name):
                _require_network(network, name)
        require_numbers(self, "hours", "failures", where=FILE)
        local = self.oidc_issuer.startswith(("http://127.0.0.1", "http://localhost"))
        if self.oidc_issuer and not (self.oidc_issuer.startswith("https://") or local):
            raise ConfigError(f"oidc_issuer in {FILE} is '{self.oidc_issuer}'; it must begin with https://.")
        if self.oidc_issuer and not self.oidc_audience:
            raise ConfigError(f"oidc_audience in {FILE} is empty; name the audience that the provider's tokens carry.")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All limits."""

    queue: QueueSettings = field(default_factory=QueueSettings)  # of work on the device
    sessions: SessionSettings = field(default_factory=SessionSettings)  # of the routes for sessions
    # of the clients of nnInteractive
    nninteractive: NnInteractiveSettings = field(default_factory=NnInteractiveSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)  # of the way to the DICOM server
    limits: RequestLimits = field(default_factory=RequestLimits)  # of one request
    auth: AuthSettings = field(default_factory=AuthSettings)  # logins


@cache
def server_settings() -> ServerSettings:
    """Read `configs/server.yaml` once.

    Raises:
        ConfigError: the file is missing, or a setting is unknown or out of range.
    """
    return build(ServerSettings, read_config(FILE), where=FILE)


def _require_network(network: str, name: str) -> None:
    try:
        ip_network(network)
    except ValueError as error:
        example = "Write 10.0.0.5 or 10.0.0.0/24."
        raise ConfigError(f"'{network}' under {name} in {FILE} is no address or network. {example}") from error


def auth_settings() -> AuthSettings:
    """Read the settings of logins; raises ConfigError if one is unknown or impossible."""
    return build(AuthSettings, read_config(FILE).get("auth") or {}, where=f"{FILE}: auth")
