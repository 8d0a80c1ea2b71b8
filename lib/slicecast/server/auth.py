"""How users are known: `auth` in `configs/server.yaml`, which the command line and the server both read."""

from dataclasses import dataclass

from slicecast.config import build, read_config
from slicecast.errors import ConfigError

FILE = "server.yaml"


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Logins.

    Args:
        hours: a login lasts.
        failures: wrong logins of one user or address within five minutes, until they must wait.
        hosts: names under which a server without logins may be asked, besides localhost and addresses.
        oidc_issuer: address of the OpenID provider; empty for none.
        oidc_audience: that its tokens must be meant for.
        oidc_client_id: under which passwords are exchanged for tokens.
        oidc_roles: where the token names roles; dots lead inwards.
        oidc_annotator: the provider's name of a role.
        oidc_reviewer: the same.
        oidc_admin: the same.

    Raises:
        ConfigError: a value is impossible.
    """

    hours: int = 12
    failures: int = 5
    hosts: tuple[str, ...] = ()
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_client_id: str = ""
    oidc_roles: str = "realm_access.roles"
    oidc_annotator: str = "monailabel-annotator"
    oidc_reviewer: str = "monailabel-reviewer"
    oidc_admin: str = "monailabel-admin"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", tuple(str(host).lower() for host in self.hosts or ()))
        for name in ("hours", "failures"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"The setting {name} in {FILE} is {value!r}; give a whole number from 1.")
        local = self.oidc_issuer.startswith(("http://127.0.0.1", "http://localhost"))
        if self.oidc_issuer and not (self.oidc_issuer.startswith("https://") or local):
            raise ConfigError(f"oidc_issuer in {FILE} is '{self.oidc_issuer}'; it must begin with https://.")
        if self.oidc_issuer and not self.oidc_audience:
            raise ConfigError(f"oidc_audience in {FILE} is empty; name the audience that the provider's tokens carry.")


def auth_settings() -> AuthSettings:
    """Read the settings of logins.

    Raises:
        ConfigError: one is unknown or impossible.
    """
    return build(AuthSettings, read_config(FILE).get("auth") or {}, where=f"{FILE}: auth")
