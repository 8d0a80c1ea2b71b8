"""Where settings come from: YAML files in `configs/` and the environment. The only reader of `os.environ`.

| variable | meaning | default |
|---|---|---|
| `SLICECAST_HOME` | folder for downloaded weights and other caches | the user's cache folder |
| `SLICECAST_MODEL` | model to use when none is asked for | see `slicecast.models.weights` |
| `SLICECAST_CONFIGS` | folder to read instead of the project's `configs/` | the project's |
| `SLICECAST_USERS` | file of the users of an open server | `users.json` in the user's settings folder |
| `SLICECAST_DATA` | real volumes for measuring | `../shared/data` |

An unknown key is an error: a misspelt setting must never be silently ignored.
"""

import math
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import platformdirs
import yaml

from slicecast.errors import ConfigError

T = TypeVar("T")

CONFIGS_VARIABLE = "SLICECAST_CONFIGS"  # Environment variable naming another folder of configuration files

CHECKOUT = Path(__file__).resolve().parents[2]
"""Root of the source tree, when the package runs from one (an editable install)."""

INSTALLED = Path(sys.prefix) / "share" / "slicecast"  # Where a wheel puts `configs` and `apps`


def project_dir(name: str) -> Path:
    """Return the project's folder `name` (`configs`, `apps`, `sample-data`); it may be absent.

    The source tree wins over what a wheel installed.
    """
    root = CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else INSTALLED
    return root / name


def home_dir() -> Path:
    """Return the folder for downloaded weights and other caches; it may not exist yet."""
    return Path(os.environ.get("SLICECAST_HOME") or platformdirs.user_cache_dir("slicecast")).expanduser()


def users_file() -> Path:
    """Return the file of a server's users; it may be absent."""
    named = os.environ.get("SLICECAST_USERS")
    return Path(named or Path(platformdirs.user_config_dir("slicecast")) / "users.json").expanduser()


def data_dir() -> Path:
    """Return the folder of real volumes for measuring; it may not exist."""
    return Path(os.environ.get("SLICECAST_DATA") or CHECKOUT.parent / "shared" / "data").expanduser()


def model_from_environment() -> str | None:
    """Return the model named by `SLICECAST_MODEL`, or None."""
    return os.environ.get("SLICECAST_MODEL") or None


def config_dir() -> Path:
    """Return the folder of the configuration files: SLICECAST_CONFIGS, else the project's.

    Raises:
        ConfigError: it does not exist.
    """
    folder = Path(os.environ.get(CONFIGS_VARIABLE) or project_dir("configs"))
    if not folder.is_dir():
        raise ConfigError(
            f"No configuration folder at {folder}. Set {CONFIGS_VARIABLE} to the folder that holds windows.yaml."
        )
    return folder


def read_config(name: str, *, known: Collection[str] | None = None) -> dict[str, Any]:
    """Read `configs/<name>` (YAML) as a mapping; with `known`, refuse any other top-level key.

    Raises:
        ConfigError: the file is missing, not YAML, not a mapping, or has an unknown key.
    """
    path = config_dir() / name
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration file {path}: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The configuration file {path} is not valid YAML: {error}.") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ConfigError(f"The configuration file {path} holds {kind}; it must be a mapping of names.")
    if known is not None:
        refuse_unknown_keys(content, known, where=str(path))
    return content


def refuse_unknown_keys(content: Mapping[str, Any], known: Collection[str], *, where: str) -> None:
    """Raise ConfigError for the first key of `content` that is not in `known`."""
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), [str(name) for name in known], n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(sorted(map(str, known)))}."
            raise ConfigError(f"Unknown setting '{key}' in {where}. {hint}")


def require_numbers(
    settings: Any, *names: str, where: str, low: float = 1, high: float = math.inf, whole: bool = True
) -> None:
    """Raise ConfigError for the first setting of those names, or of all where none is named, that is no such number."""
    for name in names or [field.name for field in fields(settings)]:
        value = getattr(settings, name)
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            kind, end = "whole number" if whole else "number", "" if high == math.inf else f" to {high:g}"
            raise ConfigError(f"The setting {name} in {where} is {value!r}; give a {kind} from {low:g}{end}.")


def build(cls: type[T], content: Mapping[str, Any], *, where: str) -> T:
    """Build the dataclass `cls` from a mapping, and dataclasses and tuples in it from mappings and lists.

    A part that is a dataclass may be left out if it has defaults for all that it holds.

    Raises:
        ConfigError: a key is unknown or a required one is missing.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where} holds {content!r}; it must be a mapping of settings.")
    own = [field for field in fields(cls) if field.init]  # type: ignore[arg-type]
    refuse_unknown_keys(content, [field.name for field in own], where=where)
    kinds = get_type_hints(cls)
    built = {name: _built(kinds[name], value, where=f"{where}: {name}") for name, value in content.items()}
    for field in own:
        required = field.default is MISSING and field.default_factory is MISSING
        if required and field.name not in built:
            if not is_dataclass(kinds[field.name]):
                raise ConfigError(f"The setting '{field.name}' is missing in {where}; add it.")
            built[field.name] = _built(kinds[field.name], {}, where=f"{where}: {field.name}")
    return cls(**built)


def _built(kind: Any, value: Any, *, where: str) -> Any:
    if isinstance(kind, type) and is_dataclass(kind) and not isinstance(value, kind):
        return build(kind, value, where=where)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_built(get_args(kind)[0], part, where=where) for part in value)
    return value
