"""What an evaluation can be of, by name: a SAM 2 or a volumetric model. Imports nothing that takes long by itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slicecast.errors import ConfigError
from slicecast.models.registry import ModelSpec
from slicecast.models.weights import choose_model

if TYPE_CHECKING:
    from slicecast_lab.evaluation.prompts import Segments


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Something that answers requests, with what it is made of."""

    name: str
    specs: tuple[ModelSpec, ...]
    service: "Segments"
    device: str

    def provenance(self, command: str) -> dict[str, Any]:
        """Describe a run of it as JSON values; `command` as typed."""
        from slicecast_lab.evaluation.provenance import provenance

        sources = [provenance(spec, command, device=self.device) for spec in self.specs]
        hashes = "+".join(source["model"]["sha256"] for source in sources)
        return {**sources[0], "model": {**sources[0]["model"], "name": self.name, "sha256": hashes}}


def named_specs(name: str) -> tuple[ModelSpec, ...]:
    """Return the models that an engine's name stands for; "" for the default.

    Raises:
        UnknownModel: no model of that name.
        ConfigError: this version cannot run that model.
    """
    return (choose_model(name or None),)


def require_sam2(name: str, what: str) -> None:
    """Raise ConfigError if an engine is not a SAM 2, which alone can do `what`."""
    if len(specs := named_specs(name)) > 1 or specs[0].volumetric:
        raise ConfigError(f"{name} is no SAM 2, which {what} needs. Name one of 'slicecast models list'.")


def open_engine(name: str, *, device: str = "auto") -> Engine:
    """Load an engine; it has neither read nor encoded anything.

    Raises:
        ResourceError: weights or device are missing.
        ConfigError: as `named_specs`.
    """
    from slicecast.inference.segment import SegmentService  # PyTorch takes seconds
    from slicecast.inference.volumetric import VolumetricService
    from slicecast.models.sam2 import load_predictor
    from slicecast.models.volumetric import load_volume_predictor

    (spec,) = specs = named_specs(name)
    if spec.volumetric:
        network = load_volume_predictor(spec, device=device)
        return Engine(spec.name, specs, VolumetricService(spec.name, predictor=network), str(network.device))
    predictor = load_predictor(spec, device=device)
    return Engine(spec.name, specs, SegmentService(predictor=predictor), str(predictor.device))
