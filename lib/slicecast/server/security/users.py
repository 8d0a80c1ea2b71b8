"""Who may use an opened server, and as what: a small file of names, roles and hashed tokens.

A token is 256 random bits, made here and shown once. A plain SHA-256 of it is enough: what cannot be guessed needs no
slow hash, and users cannot choose a weak one.
"""

import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

from slicecast.errors import ConfigError, Conflict, NotFound
from slicecast.files import write_atomically

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
NOBODY = "0" * 64  # Compared with when there is no such user, so that the answer takes as long


class Role(IntEnum):
    """What a user may do; each may do what the one before it may."""

    annotator = 1
    reviewer = 2
    admin = 3

    @classmethod
    def named(cls, name: str) -> "Role":
        """Return the role of that name; raises ConfigError if there is none."""
        if name not in cls.__members__:
            raise ConfigError(f"There is no role '{name}'. Choose {', '.join(cls.__members__)}.")
        return cls[name]


@dataclass(frozen=True, slots=True)
class Account:
    """A user; raises ConfigError if a name or role is impossible."""

    name: str  # letters, digits, `.`, `_`, `-`, `@`
    role: str  # name of a Role
    digest: str  # SHA-256 of the token, hexadecimal
    created: str  # UTC, ISO 8601
    expires: str | None = None  # the same, or None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"{self.name!r} is no user's name. Use up to 64 letters, digits and . _ - @.")
        Role.named(self.role)

    def expired(self, now: datetime) -> bool:
        """Whether the token counts no more."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= now


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request, and as what."""

    name: str  # of the user
    role: Role  # what they may do
    expires: float  # time.time() from which on it counts no more
    account: bool = False  # they are in the users' file, and must stay in it
    proof: str = field(default="", repr=False)  # the ID token, with which a login ends at the OpenID provider too


class Users:
    """The file of users; read again when it has changed, so that a removed user is out at once.

    Args:
        path: of the file; it may be absent.
        clock: the time.
    """

    def __init__(self, path: Path, *, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self._path = path
        self._clock = clock
        self._guard = threading.Lock()
        self._read: tuple[Any, dict[str, Account]] = (None, {})

    def all(self) -> dict[str, Account]:
        """Return the users by name; raises ConfigError if the file cannot be read, or others may write it."""
        with self._guard:
            stamp = self._stamp()
            if stamp != self._read[0]:
                self._read = stamp, self._load()
            return dict(self._read[1])

    def add(self, name: str, *, role: str, days: int | None = None) -> str:
        """Add a user and return the token, which is kept nowhere.

        Raises:
            Conflict: there is one of that name.
            ConfigError: the name or role is impossible.
        """
        users = self.all()
        if name in users:
            raise Conflict(f"There is already a user '{name}'. Remove them first for a new token or role.")
        now = self._clock()
        expires = (now + timedelta(days=days)).isoformat() if days else None
        token = secrets.token_urlsafe(32)
        users[name] = Account(name, role, digest(token), now.isoformat(), expires)
        self._write(users)
        return token

    def remove(self, name: str) -> None:
        """Remove a user; raises NotFound if there is none of that name."""
        users = self.all()
        if name not in users:
            raise NotFound(f"There is no user '{name}'. See `slicecast users list`.")
        del users[name]
        self._write(users)

    def check(self, name: str, token: str) -> Account | None:
        """Return the user of that name if the token is theirs; takes as long for an unknown name."""
        account = self.all().get(name)
        right = hmac.compare_digest(digest(token), account.digest if account else NOBODY)
        return account if account and right and not account.expired(self._clock()) else None

    def find(self, token: str) -> Account | None:
        """Return the user whose token it is; compares with every user, so that the time tells nothing."""
        given, found = digest(token), None
        for account in self.all().values():
            if hmac.compare_digest(given, account.digest):
                found = account
        return found if found and not found.expired(self._clock()) else None

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            state = self._path.stat()
        except FileNotFoundError:
            return None
        if state.st_mode & 0o022:
            raise ConfigError(f"Others may write {self._path}, and so make themselves admins. Run chmod 600 on it.")
        return state.st_mtime_ns, state.st_size, state.st_ino

    def _load(self) -> dict[str, Account]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return {entry["name"]: Account(**entry) for entry in content["users"]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"The users' file {self._path} cannot be used ({error}). Mend or remove it.") from error

    def _write(self, users: Mapping[str, Account]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = json.dumps({"users": [asdict(account) for account in users.values()]}, indent=2)
        write_atomically(self._path, content.encode(), mode=0o600)


def digest(token: str) -> str:
    """Return the SHA-256 of a token, hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
