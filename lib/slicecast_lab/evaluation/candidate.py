"""Weights that may become the bundled ones, as a model's entry. Imports nothing that takes long."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slicecast.errors import WeightsMissing
from slicecast.files import file_sha256
from slicecast.models.registry import ModelSpec, bundled_spec


def candidate_spec(file: Path, changes: Mapping[str, Any] | None = None) -> ModelSpec:
    """Describe a file as the bundled model's weights; `changes` are other settings of the entry that it needs.

    Raises:
        WeightsMissing: there is no such file.
        ConfigError: a setting is out of range.
    """
    if not file.is_file():
        raise WeightsMissing(
            f"There are no weights at {file}. Write them with 'slicecast lab train export-nano {file}'."
        )
    size, sha256 = file.stat().st_size, file_sha256(file)
    place = {"folder": str(file.resolve().parent), "file": file.name, "bytes": size, "sha256": sha256}
    return replace(bundled_spec(), **{**(changes or {}), **place})
