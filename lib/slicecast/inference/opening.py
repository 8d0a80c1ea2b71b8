"""Services by the name of their model: of one kind, or of a SAM 2 and a volumetric model together, `A+B`."""

from slicecast.inference.first_guess import GuidedService
from slicecast.inference.segment import SegmentService
from slicecast.inference.volumetric import Segmenter, VolumetricService
from slicecast.models.registry import ModelSpec, load_registry
from slicecast.models.weights import choose_models, is_present


def open_service(model: str | None = None, *, device: str = "auto") -> Segmenter:
    """Return a service for a model of any kind.

    Args:
        model: as `choose_models` takes it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.

    Raises:
        UnknownModel, ConfigError: as `choose_models`.
    """
    first, *others = choose_models(model)
    if first.volumetric:
        return VolumetricService(first.name, device=device)
    sam2 = SegmentService(model=model if not others else first.name, device=device)
    return GuidedService(sam2, _beside(sam2, others[0], device)) if others else sam2


def volumetric_services(service: SegmentService, *, device: str = "auto") -> dict[str, Segmenter]:
    """Return services of each volumetric model whose weights are on this machine: alone, and as SAM 2's first guess."""
    present = [spec for spec in load_registry().values() if spec.volumetric and spec.supported and is_present(spec)]
    alone = {spec.name: _beside(service, spec, device) for spec in present}
    together = {f"{service.base.name}+{name}": GuidedService(service, network) for name, network in alone.items()}
    return {**alone, **together}


def _beside(sam2: SegmentService, spec: ModelSpec, device: str) -> VolumetricService:
    """Return a service that shares SAM 2's images and queue."""
    return VolumetricService(spec.name, device=device, studies=sam2.studies, queue=sam2.queue)
