"""An OpenID provider that runs, on this machine, with people and their roles."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest

from slicecast.server.settings import AuthSettings, ServerSettings, server_settings

ROLES = {"ada": ["monailabel-reviewer", "other"], "ben": ["other"], "cleo": ["monailabel-admin"]}


@contextmanager
def running_provider(people: Mapping[str, list[str]] = ROLES) -> Iterator[str]:
    """Run it for as long as the block lasts; its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mock = pytest.importorskip("oidc_provider_mock")
    known = [
        mock.User(sub=name, claims={"preferred_username": name, "realm_access": {"roles": roles}})
        for name, roles in people.items()
    ]
    with mock.run_server_in_thread(user_claims=known) as server:
        yield f"http://localhost:{server.server_port}"


def settings_for(issuer: str) -> ServerSettings:
    """Return settings of a server that asks that provider."""
    auth = AuthSettings(oidc_issuer=issuer, oidc_audience="slicecast", oidc_client_secret="x")
    return replace(server_settings(), auth=auth)
