"""Weights files: where they are, whether they are the right ones, getting and loading them. Never by pickle.

Which model is used: the one asked for (``--model``, ``--conf model``, ``MODEL=``); else the one in ``SLICECAST_MODEL``;
else the first SAM 2 in the registry's order whose weights have been pulled; else the bundled one.

A file whose SHA-256 nobody published is used once somebody has confirmed it on this machine (`pin`); from then on, only
that very file is.
"""

import argparse
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from slicecast import config
from slicecast.errors import ConfigError, WeightsCorrupt, WeightsMissing
from slicecast.files import appearing, file_sha256, write_atomically
from slicecast.models.registry import ModelSpec, bundled_spec, get_spec, load_registry

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and their total, None where unknown."""

BUNDLED_DIR = Path(__file__).parent / "bundled"

UNREADABLE = (
    *(pickle.UnpicklingError, AttributeError, EOFError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError),
)
"""What the readers raise, by trial, on files of other kinds."""

PINS_FILE = "pins.json"  # SHA-256 and size of confirmed files by model, in the folder of pulled weights

Confirm = Callable[[str, int], bool]
"""Called with the SHA-256 and the size of a file that nobody published them of; whether to trust it."""

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0  # Longest silence of a server before a download is given up


def choose_model(asked: str | None = None) -> ModelSpec:
    """Return the model to use: the one asked for, or the default.

    Raises:
        UnknownModel: no model of that name.
        ConfigError: this version cannot run that model.
    """
    return require_supported(get_spec(asked)) if asked else default_model()


def choose_models(asked: str | None = None) -> tuple[ModelSpec, ...]:
    """Return what a name stands for: one model, or `A+B`, a SAM 2 and the volumetric model that makes its first guess.

    Raises:
        UnknownModel: no model of that name.
        ConfigError: this version cannot run that model, or not these together.
    """
    specs = tuple(choose_model(name) for name in (asked or "").split("+"))
    if len(specs) > 1 and [spec.volumetric for spec in specs] != [False, True]:
        raise ConfigError(f"{asked} is no engine. Together go a SAM 2 and a volumetric model, in this order.")
    return specs


def default_model() -> ModelSpec:
    """Return the model to use when none is asked for; the rule is at the top of this module."""
    named = config.model_from_environment()
    if named:
        return require_supported(get_spec(named))
    registry = load_registry()
    pulled = (s for s in registry.values() if not (s.bundled or s.volumetric) and s.supported and is_present(s))
    return next(pulled, None) or bundled_spec(registry)


def require_supported(spec: ModelSpec) -> ModelSpec:
    """Return the model if this version can run it.

    Raises:
        ConfigError: it cannot; the message says why and which models can.
    """
    if not spec.supported:
        runnable = ", ".join(name for name, other in load_registry().items() if other.supported)
        raise ConfigError(f"Model {spec.name!r} cannot be run: {spec.unsupported}. Models that can: {runnable}.")
    return spec


def weights_path(spec: ModelSpec) -> Path:
    """Return where the weights belong on this machine; the file may not be there."""
    usual = BUNDLED_DIR if spec.bundled else config.home_dir() / "models"
    return (Path(spec.folder).expanduser() if spec.folder else usual) / spec.file


def with_weights(spec: ModelSpec, file: Path) -> ModelSpec:
    """Return a model with the weights of a file in place of its own."""
    place = file.resolve()
    size, sha256 = place.stat().st_size, file_sha256(place)
    return replace(spec, folder=str(place.parent), file=place.name, bytes=size, sha256=sha256, floors={})


def is_present(spec: ModelSpec) -> bool:
    """Return whether a file of the right size is in place, and trusted. Quick; :func:`verify` reads all of it."""
    path, known = weights_path(spec), pinned(spec)
    return path.is_file() and known.bytes in (None, path.stat().st_size) and bool(known.sha256 or spec.bundled)


def verify(spec: ModelSpec, confirm: Confirm = lambda sha256, size: False) -> Path:
    """Return the path of the weights after checking their size and SHA-256.

    Args:
        confirm: asked about a file of which neither the registry nor a pin knows them; a yes pins it.

    Raises:
        WeightsMissing: there is no file.
        WeightsCorrupt: it is not the file that the registry describes, or nobody trusts it.
    """
    path = weights_path(spec)
    if not path.is_file():
        raise WeightsMissing(f"The weights of {spec.name!r} are not at {path}. {_remedy(spec)}")
    _check(spec, str(path), path, confirm)
    return path


def pinned(spec: ModelSpec) -> ModelSpec:
    """Return the model with the SHA-256 and size that were confirmed on this machine, where nobody published them."""
    if spec.sha256 is not None or spec.bundled:
        return spec
    return replace(spec, **_pins().get(spec.name, {}))


def pin(spec: ModelSpec, *, sha256: str, size: int) -> None:
    """Trust a file from now on."""
    path = _pins_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    pins = {**_pins(), spec.name: {"sha256": sha256, "bytes": size}}
    write_atomically(path, (json.dumps(pins, indent=2) + "\n").encode())


def _pins() -> dict[str, dict[str, Any]]:
    path = _pins_path()
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON. Delete it, and confirm the files that it named again.") from error


def _pins_path() -> Path:
    return config.home_dir() / "models" / PINS_FILE


def pull(
    spec: ModelSpec, progress: Progress = lambda done, total: None, confirm: Confirm = lambda sha256, size: False
) -> Path:
    """Download the weights unless the right file is there already, and return their path.

    The file appears under its name only after its size and SHA-256 were found right; an interrupted
    download leaves nothing behind.

    Args:
        confirm: as for `verify`.

    Raises:
        ConfigError: this version cannot run that model.
        WeightsMissing: no network, the server refused, the disk is full, or the model cannot be pulled.
        WeightsCorrupt: what came is not the file that the registry describes.
    """
    require_supported(spec)
    path = weights_path(spec)
    if spec.url is None or (is_present(spec) and file_sha256(path) == pinned(spec).sha256):
        return verify(spec)
    if spec.by_hand:
        raise WeightsMissing(
            f"{spec.name!r} cannot be pulled: {spec.url} is a page for people. Fetch the file there, put it at {path}, "
            f"and run 'slicecast models verify {spec.name}'."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as part:
            _download(spec.url, part, progress)
            _check(spec, "The download", part, confirm)
    except (httpx.HTTPError, OSError) as error:
        raise WeightsMissing(
            f"Could not download {spec.name!r}: {_reason(error)}. On a machine with network fetch {spec.url}, "
            f"put it at {path} here, and run 'slicecast models verify {spec.name}'."
        ) from error
    return path


def load_state_dict(spec: ModelSpec) -> "dict[str, Tensor]":
    """Read the checked weights: tensors by name, never code.

    Args:
        spec: the model; safetensors, or a torch file whose tensors are under "model" as in SAM 2's own files, or
            under "model_state_dict".

    Raises:
        WeightsMissing: there is no file.
        WeightsCorrupt: it is another file, is damaged, or holds more than tensors.
    """
    path = verify(require_supported(spec))
    reader = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    try:
        return reader(path)
    except UNREADABLE as error:
        # torch's own words would advise to switch the protection off
        reason = error if type(error) is ValueError else "it is damaged or holds more than tensors"
        raise WeightsCorrupt(f"{path} holds no usable weights for {spec.name!r}: {reason}. {_remedy(spec)}") from error


def _read_safetensors(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_torch(path: Path) -> "dict[str, Tensor]":
    import torch

    with torch.serialization.safe_globals([argparse.Namespace]):  # plain values, beside SAM-Med3D's tensors
        content = torch.load(path, map_location="cpu", weights_only=True)
    holders = ("model", "model_state_dict")
    tensors = next((content[k] for k in holders if k in content), content) if isinstance(content, dict) else None
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ValueError("it is not a mapping of names to tensors")
    return dict(tensors)


def _download(url: str, path: Path, progress: Progress) -> None:
    """Stream a URL into a file."""
    whole = {"Accept-Encoding": "identity"}  # so that Content-Length counts the bytes that arrive here
    with (
        path.open("wb") as file,
        httpx.stream("GET", url, headers=whole, follow_redirects=True, timeout=TIMEOUT_S) as response,
    ):
        response.raise_for_status()
        length = response.headers.get("Content-Length")
        for chunk in response.iter_bytes(CHUNK_BYTES):
            file.write(chunk)
            progress(file.tell(), int(length) if length else None)


def _check(spec: ModelSpec, what: str, path: Path, confirm: Confirm) -> None:
    """Compare a file with what is known of it; where nothing is, ask, and pin it after a yes."""
    size, sha256, known = path.stat().st_size, file_sha256(path), pinned(spec)
    if known.sha256 is None and not spec.bundled:
        if not confirm(sha256, size):
            raise WeightsCorrupt(
                f"{what} is not trusted yet: nobody published a SHA-256 of {spec.name!r}. It has {size} bytes and "
                f"SHA-256 {sha256}. If that is the file you mean, confirm it: 'slicecast models verify {spec.name}'."
            )
        pin(spec, sha256=sha256, size=size)
    elif known.bytes is not None and size != known.bytes:
        raise WeightsCorrupt(_not_it(spec, what, f"{size} bytes", str(known.bytes)))
    elif sha256 != known.sha256:
        raise WeightsCorrupt(_not_it(spec, what, f"SHA-256 {sha256}", str(known.sha256)))


def _not_it(spec: ModelSpec, what: str, found: str, wanted: str) -> str:
    return f"{what} has {found} instead of {wanted}, so it is not {spec.name!r}. {_remedy(spec)}"


def _remedy(spec: ModelSpec) -> str:
    if spec.folder and "@" in spec.name:
        return "It was fine-tuned here: take it back with 'slicecast models rollback'."
    if spec.bundled:
        return "It ships with the package: install Slicecast again."
    if spec.recipe:
        return (
            f"Nobody publishes it: 'slicecast lab train volumetric --config configs/{spec.recipe}' trains it, and with "
            f"--export writes it. Put it there, and run 'slicecast models verify {spec.name}'."
        )
    return f"Fetch it from {spec.url}." if spec.by_hand else f"Run 'slicecast models pull {spec.name}'."


def _reason(error: httpx.HTTPError | OSError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"the server answered {error.response.status_code} {error.response.reason_phrase}"
    return str(error) or type(error).__name__
