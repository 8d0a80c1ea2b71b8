"""What an evaluation can be of: a SAM 2, along one slice axis or all, a volumetric model, or both; opened by name."""

from dataclasses import dataclass, replace
from typing import Any

from slicecast.inference.first_guess import GuidedService
from slicecast.inference.segment import SegmentService
from slicecast.inference.settings import engine_settings
from slicecast.inference.volumetric import VolumetricService
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2 import load_predictor
from slicecast.models.volumetric import load_volume_predictor
from slicecast_lab.evaluation.prompts import Segments
from slicecast_lab.evaluation.provenance import provenance
from slicecast_lab.evaluation.settings import named_specs


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Something that answers requests, with what it is made of."""

    name: str
    specs: tuple[ModelSpec, ...]
    service: Segments
    device: str

    def provenance(self, command: str) -> dict[str, Any]:
        """Describe a run of it as JSON values; `command` as typed."""
        sources = [provenance(spec, command, device=self.device) for spec in self.specs]
        hashes = "+".join(source["model"]["sha256"] for source in sources)
        return {**sources[0], "model": {**sources[0]["model"], "name": self.name, "sha256": hashes}}


def open_engine(name: str, *, device: str = "auto") -> Engine:
    """Load an engine; it has neither read nor encoded anything.

    Raises:
        ResourceError: weights or device are missing.
        ConfigError: as `named_specs`.
    """
    specs = named_specs(name)
    networks = [load_volume_predictor(spec, device=device) for spec in specs if spec.volumetric]
    cubes = [VolumetricService(specs[-1].name, predictor=network) for network in networks]
    if specs[0].volumetric:
        return Engine(name, specs, cubes[0], str(networks[0].device))
    predictor = load_predictor(specs[0], device=device)
    settings = engine_settings()
    multi_axis = "+" in name and not cubes
    options = replace(settings.propagation, multi_axis=multi_axis)
    sam2 = SegmentService(predictor=predictor, settings=replace(settings, propagation=options))
    service = GuidedService(sam2, cubes[0]) if cubes else sam2
    return Engine(name or specs[0].name, specs, service, str(predictor.device))
