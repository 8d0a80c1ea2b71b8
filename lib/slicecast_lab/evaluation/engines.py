"""What an evaluation can be of, by name: a SAM 2, a volumetric model, or what `together` makes of them.

Imports nothing that takes long by itself.
"""

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


AXES = "axes"  # What stands after the + for SAM 2 along all three axes


def named_specs(name: str) -> tuple[ModelSpec, ...]:
    """Return the models that an engine's name stands for: `A`, `A+axes`, or `A+B` of a SAM 2 and a volumetric model.

    Args:
        name: "" for the default model.

    Raises:
        UnknownModel: no model of that name.
        ConfigError: this version cannot run that model, or not these together.
    """
    first, *others = name.split("+")
    specs = (choose_model(first or None), *(choose_model(other) for other in others if other != AXES))
    if others and (len(others) > 1 or specs[0].volumetric or not all(spec.volumetric for spec in specs[1:])):
        raise ConfigError(f"{name} is no engine. Together go a SAM 2 and a volumetric model, or a SAM 2 and '{AXES}'.")
    return specs


def require_sam2(name: str, what: str) -> None:
    """Raise ConfigError if an engine is not a SAM 2 alone, as `what` needs it."""
    if "+" in name or named_specs(name)[0].volumetric:
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
    from slicecast_lab.evaluation.together import AllAxes, Anchored

    specs = named_specs(name)
    volumetric = [spec for spec in specs if spec.volumetric]
    networks = [VolumetricService(s.name, predictor=load_volume_predictor(s, device=device)) for s in volumetric]
    if specs[0].volumetric:
        return Engine(specs[0].name, specs, networks[0], device)
    predictor = load_predictor(specs[0], device=device)
    service: Segments = (sam2 := SegmentService(predictor=predictor))
    if networks:
        service = Anchored(sam2, networks[0])
    elif "+" in name:
        service = AllAxes(sam2)
    return Engine(name or specs[0].name, specs, service, str(predictor.device))
