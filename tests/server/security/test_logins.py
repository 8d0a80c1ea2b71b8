"""Logins end, and guessing gets slow."""

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from slicecast.errors import ConfigError, ResourceError
from slicecast.server.security import logins
from slicecast.server.security.logins import WINDOW_S, Logins, Throttle
from slicecast.server.security.openid import Provider
from slicecast.server.security.users import Identity, Role
from slicecast.server.settings import AuthSettings

ANNA = Identity("anna", Role.annotator, expires=100.0)


def test_a_login_ends_by_time_or_by_will():
    now = [0.0]
    held = Logins(clock=lambda: now[0])
    token = held.open(ANNA)
    assert held.find(token) == ANNA and held.find(token + "x") is None
    assert token not in str(held._held)
    now[0] = 100.0
    assert held.find(token) is None
    now[0] = 0.0
    token = held.open(ANNA)
    held.close(token)
    held.close("unknown")
    assert held.find(token) is None


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(logins, "MAX_LOGINS", 3)
    monkeypatch.setattr(logins, "MAX_WATCHED", 3)
    held, throttle = Logins(clock=lambda: 0.0), Throttle(1, clock=lambda: 0.0)
    tokens = [held.open(ANNA) for _ in range(5)]
    assert [held.find(token) is not None for token in tokens] == [False, False, True, True, True]
    for number in range(5):
        throttle.failed(f"user {number}")
    assert len(throttle._wrong) == 3


def test_guessing_gets_slow():
    now = [0.0]
    throttle = Throttle(3, clock=lambda: now[0])
    for _ in range(3):
        assert throttle.wait_s("user anna", "address a") == 0
        throttle.failed("user anna", "address a")
    assert throttle.wait_s("user anna") == throttle.wait_s("user ben", "address a") == WINDOW_S
    assert throttle.wait_s("user ben", "address b") == 0
    now[0] = WINDOW_S
    assert throttle.wait_s("user anna", "address a") == 0
    throttle.failed("user anna")
    throttle.succeeded("user anna", "nobody")
    assert throttle.wait_s("user anna") == 0


ISSUER = "https://login.example/realms/clinic"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SETTINGS = AuthSettings(oidc_issuer=ISSUER, oidc_audience="slicecast")


def jwk(key, kid: str) -> dict:
    return {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "RS256"}


def provider(*keys: dict, issuer: str = ISSUER, settings: AuthSettings = SETTINGS) -> tuple[Provider, list[str]]:
    asked: list[str] = []

    def fetch(url: str):
        asked.append(url)
        described = {"issuer": issuer, "jwks_uri": f"{ISSUER}/certs", "token_endpoint": f"{ISSUER}/token"}
        return described if url.endswith("openid-configuration") else {"keys": list(keys)}

    return Provider(settings, fetch=fetch), asked


def claims(**changed) -> dict:
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": ["account", "slicecast"],
        "iat": now,
        "exp": now + 60,
        "preferred_username": "anna",
        "realm_access": {"roles": ["offline_access", "monailabel-annotator", "monailabel-reviewer"]},
        **changed,
    }


def token(key=KEY, kid: str = "k1", **changed) -> str:
    return jwt.encode({k: v for k, v in claims(**changed).items() if v is not None}, key, "RS256", headers={"kid": kid})


def test_a_valid_token_gives_name_and_highest_role():
    checked, asked = provider(jwk(KEY, "k1"))
    found = checked.identity(token())
    assert (found.name, found.role) == ("anna", Role.reviewer) and found.expires > time.time()
    checked.identity(token())
    assert asked == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/certs"]


NOW = int(time.time())
BAD = {
    "another key": token(OTHER_KEY),
    "unknown key": token(kid="k2"),
    "another issuer": token(iss="https://evil.example"),
    "another audience": token(aud="account"),
    "no audience": token(aud=None),
    "expired": token(exp=NOW - 60),
    "without end": token(exp=None),
    "not yet": token(nbf=NOW + 600),
    "no role": token(realm_access={"roles": ["offline_access"]}),
    "roles of another kind": token(realm_access=["monailabel-admin"]),
    "no name": token(preferred_username=None),
    "not signed": jwt.encode(claims(), None, "none", headers={"kid": "k1"}),
    "no token": "a.b.c",
}


@pytest.mark.parametrize("what", BAD)
def test_tokens_that_let_nobody_in(what):
    assert provider(jwk(KEY, "k1"))[0].identity(BAD[what]) is None


def test_the_public_key_is_no_secret_to_sign_with():
    """The classic: a token signed by HMAC with the provider's public key as the secret."""

    def part(content: dict) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")

    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = part({"alg": "HS256", "kid": "k1"}) + b"." + part(claims())
    signature = base64.urlsafe_b64encode(hmac.new(pem, signed, hashlib.sha256).digest()).rstrip(b"=")
    assert provider(jwk(KEY, "k1"))[0].identity((signed + b"." + signature).decode()) is None


def test_a_symmetric_key_of_the_provider_is_not_used():
    secret = base64.urlsafe_b64encode(b"x" * 32).decode()
    checked, _ = provider({"kty": "oct", "k": secret, "kid": "k1", "alg": "HS256"})
    assert checked.identity(jwt.encode(claims(), b"x" * 32, "HS256", headers={"kid": "k1"})) is None


def test_unknown_keys_do_not_make_the_server_ask_again_and_again():
    checked, asked = provider(jwk(KEY, "k1"))
    for number in range(20):
        assert checked.identity(token(kid=f"guess {number}")) is None
    assert len(asked) == 2


def test_a_provider_of_another_name():
    with pytest.raises(ResourceError, match="calls itself 'https://evil"):
        provider(jwk(KEY, "k1"), issuer="https://evil.example")[0].identity(token())


def test_settings_that_would_check_nothing():
    with pytest.raises(ConfigError, match="oidc_audience"):
        AuthSettings(oidc_issuer=ISSUER)
    with pytest.raises(ConfigError, match="https"):
        AuthSettings(oidc_issuer="http://login.example", oidc_audience="x")
    with pytest.raises(ConfigError, match="hours"):
        AuthSettings(hours=0)
