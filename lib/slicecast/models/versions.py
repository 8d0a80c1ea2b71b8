"""Versions of a model that learnt a campaign's labels, and which of them is deployed.

A folder holds the weights, `NAME-0003-1f2e3d4c.safetensors`, and `versions.json`, which says of each what it was made
from and how it was judged. A version is never changed; it appears in the index after its file is whole on the disk,
so a crash leaves a file too many at worst. Many processes may use the folder.
"""

import dataclasses
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import nn

from slicecast.config import build
from slicecast.errors import Conflict, NotFound, ResourceError
from slicecast.files import file_sha256, publish, write_atomically
from slicecast.models.registry import ModelSpec

FOLDER, INDEX = "models", "versions.json"


class Base(Protocol):
    """What versions are of: a model of the registry, or anything else with a name."""

    @property
    def name(self) -> str:
        """Its versions are called after it."""
        ...

    @property
    def sha256(self) -> str | None:
        """Of its own weights; versions of others do not serve in its place."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One set of weights that learnt labels."""

    number: int  # from 1, among those of its base
    base: str  # name of the model that it was trained from
    base_sha256: str  # of that model's weights; the version serves no others
    file: str  # in the versions' folder
    bytes: int  # size of the file
    sha256: str  # of the file
    made_s: float  # when, seconds since 1970
    before: int = 0  # number of the version that was deployed then, 0 for the base's own weights
    labels: Mapping[str, str] = field(default_factory=dict)  # case -> SHA-256 of the label that it learnt
    verdict: Mapping[str, Any] = field(default_factory=dict)  # of the gate that let it pass

    @property
    def name(self) -> str:
        """What it is called beside its base: `sam2_nano@3`."""
        return name_of(self.base, self.number)


def name_of(base: str, number: int) -> str:
    """Return what a version is called; 0 is the base itself."""
    return f"{base}@{number}" if number else base


def without_version(name: str) -> str:
    """Return the name of the model, or of the models together, that a version's name belongs to."""
    return re.sub(r"@\d+", "", name)


class ModelVersions:
    """The versions in a folder, which is made when the first one is added.

    Args:
        folder: see the module's docstring. Default: one that holds none.
    """

    def __init__(self, folder: Path = Path(os.devnull)) -> None:
        self.folder = folder
        self._seen: tuple[int, int] | None = None
        self._content: tuple[tuple[ModelVersion, ...], dict[str, int]] = ((), {})

    def all(self) -> tuple[ModelVersion, ...]:
        """Return all versions, oldest first; raises ResourceError if the index cannot be read."""
        return self._read()[0]

    def of(self, base: Base) -> tuple[ModelVersion, ...]:
        """Return the versions of a base's present weights, oldest first."""
        return tuple(v for v in self.all() if v.base == base.name and v.base_sha256 == str(base.sha256))

    def deployed(self, base: Base) -> ModelVersion | None:
        """Return the version that serves in a model's place; None for its own weights."""
        number = self._read()[1].get(base.name, 0)
        return next((v for v in self.of(base) if v.number == number), None)

    def serving(self, base: ModelSpec) -> ModelSpec:
        """Return the model to use in a model's place: the deployed version, or itself."""
        version = self.deployed(base)
        return base if version is None else self.spec(version, base)

    def named(self, name: str, base: ModelSpec) -> ModelSpec:
        """Return a version of a model by its name `sam2_nano@3`, or the model itself by its own.

        Raises:
            NotFound: there is none of that name.
        """
        if name == base.name:
            return base
        version = next((v for v in self.of(base) if v.name == name), None)
        if version is None:
            raise NotFound(f"There is no version '{name}' of the weights of '{base.name}' in {self.folder}.")
        return self.spec(version, base)

    def spec(self, version: ModelVersion, base: ModelSpec) -> ModelSpec:
        """Describe a version as a model: its base with other weights."""
        return replace(
            base,
            name=version.name,
            title=f"{base.title}, fine-tuned on {len(version.labels)} labels",
            folder=str(self.folder.resolve()),
            file=version.file,
            bytes=version.bytes,
            sha256=version.sha256,
            floors={},
        )

    def add(
        self, model: nn.Module, base: Base, *, labels: Mapping[str, str], verdict: Mapping[str, Any]
    ) -> ModelVersion:
        """Keep a network's weights as the next version and deploy it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            versions, deployed = self._read()
            number = max((v.number for v in versions if v.base == base.name), default=0) + 1
            before = self.deployed(base)
            with tempfile.TemporaryDirectory(dir=self.folder) as work:
                part = Path(work) / "weights.safetensors"
                write_weights(model, part)
                sha256 = file_sha256(part)
                file = f"{base.name}-{number:04}-{sha256[:8]}.safetensors"
                size = part.stat().st_size
                publish(part, self.folder / file)
            version = ModelVersion(
                number=number,
                base=base.name,
                base_sha256=str(base.sha256),
                file=file,
                bytes=size,
                sha256=sha256,
                made_s=time.time(),
                before=0 if before is None else before.number,
                labels=dict(labels),
                verdict=dict(verdict),
            )
            self._write((*versions, version), {**deployed, base.name: number})
        return version

    def roll_back(self, base: Base, number: int | None = None) -> ModelVersion | None:
        """Deploy the version before the present one, or the one of that number; 0, or None before any, is the base.

        Returns:
            what is deployed now; None for the model's own weights.

        Raises:
            Conflict: the model's own weights serve already.
            NotFound: there is no such version of this model's weights.
        """
        with self._alone():
            versions, deployed = self._read()
            present = self.deployed(base)
            if number is None:
                if present is None:
                    raise Conflict(f"No version of '{base.name}' is used; there is nothing to take back.")
                number = present.before
            if number and number not in {v.number for v in self.of(base)}:
                raise NotFound(f"There is no version {number} of the weights of '{base.name}' in {self.folder}.")
            self._write(versions, {**deployed, base.name: number})
        return self.deployed(base)

    def _alone(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f"{INDEX}.lock")

    def _read(self) -> tuple[tuple[ModelVersion, ...], dict[str, int]]:
        path = self.folder / INDEX
        try:
            state = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return (), {}
        stamp = (state.st_mtime_ns, state.st_ino)
        if stamp != self._seen:
            self._content, self._seen = _parse(path), stamp
        return self._content

    def _write(self, versions: tuple[ModelVersion, ...], deployed: Mapping[str, int]) -> None:
        content = {"deployed": dict(deployed), "versions": [asdict(version) for version in versions]}
        path = self.folder / INDEX
        write_atomically(path, json.dumps(content, indent=1).encode())


def write_weights(model: nn.Module, path: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a network's weights as safetensors."""
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _parse(path: Path) -> tuple[tuple[ModelVersion, ...], dict[str, int]]:
    known = {f.name for f in dataclasses.fields(ModelVersion)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [{key: value for key, value in row.items() if key in known} for row in content["versions"]]
        versions = tuple(build(ModelVersion, row, where=str(path)) for row in rows)
        return versions, {str(name): int(number) for name, number in content["deployed"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResourceError(
            f"{path} cannot be read ({error}). Restore it, or move it away to serve the model's own weights."
        ) from error
