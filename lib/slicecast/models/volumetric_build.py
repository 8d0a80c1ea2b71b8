"""Build volumetric networks from a YAML in `configs/` and load their weights by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from slicecast.config import build, refuse_unknown_keys
from slicecast.errors import ConfigError, WeightsCorrupt
from slicecast.models.ct_sam3d import CtSam3D, CtSam3DSize
from slicecast.models.sam_med3d import SamMed3D, SamMed3DSize

NETWORKS: Mapping[str, tuple[type, Callable[[Any], nn.Module]]] = {
    "sam_med3d": (SamMed3DSize, SamMed3D),
    "ct_sam3d": (CtSam3DSize, CtSam3D),
}
"""What `network` may be: the class of its sizes, and the network's."""

NAMED_AT_MOST = 8
"""Tensors that an error lists; the rest is counted."""


def build_volumetric(architecture: str | Path) -> nn.Module:
    """Return the network that a YAML describes, with fresh weights, ready to predict.

    Raises:
        ConfigError: there is no such YAML, or it describes no network.
    """
    try:
        content = yaml.safe_load(Path(architecture).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the architecture {architecture}: {error}.") from error
    where = f"architecture {Path(architecture).name}"
    if not isinstance(content, dict) or content.get("network") not in NETWORKS:
        raise ConfigError(f"The {where} needs 'network', one of {', '.join(NETWORKS)}.")
    refuse_unknown_keys(content, ["network", "size"], where=where)
    sizes, network = NETWORKS[content["network"]]
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in (content.get("size") or {}).items()}
    return network(build(sizes, given, where=f"{where}: size")).eval()


def load_by_name(model: nn.Module, tensors: Mapping[str, Tensor], *, name: str) -> nn.Module:
    """Give a network the tensors of a checkpoint; every name and shape must match.

    Raises:
        WeightsCorrupt: some are missing, unknown or of another shape; the message lists them.
    """
    own = model.state_dict()
    problems = {
        "missing": [entry for entry in own if entry not in tensors],
        "unknown": [entry for entry in tensors if entry not in own],
        "of another shape": [e for e, t in tensors.items() if e in own and own[e].shape != t.shape],
    }
    found = [f"{len(names)} {what} ({_listed(names)})" for what, names in problems.items() if names]
    if found:
        raise WeightsCorrupt(
            f"The weights of {name!r} do not fit its network; tensors: {'; '.join(found)}. "
            "Fetch the file again, or correct the sizes in its architecture's YAML."
        )
    with torch.no_grad():
        model.load_state_dict({entry: t.to(own[entry].dtype) for entry, t in tensors.items()})
    return model


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
