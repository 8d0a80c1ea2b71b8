"""Where a campaign's versions of the model lie, and the fine-tuning of a folder of studies without a server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slicecast.campaign.campaign import Campaign, open_campaign
from slicecast.campaign.settings import FOLDER as CAMPAIGN
from slicecast.labelling.campaign.service import open_campaign_service
from slicecast.labelling.finetuning.tuner import FineTuner
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.models.versions import FOLDER, ModelVersions
from slicecast.models.weights import choose_model
from slicecast.volume.reading import WRITTEN_ENDINGS


def versions_beside(place: Path) -> ModelVersions:
    """Return the versions of the campaign that lies in `place`."""
    return ModelVersions(place / CAMPAIGN / FOLDER)


def campaign_of(versions: ModelVersions) -> Campaign:
    """Return the campaign to which versions belong."""
    return open_campaign(versions.folder.parent.parent)


@contextmanager
def folder_tuner(studies: Path, *, model: str | None, labels: Sequence[str], device: str) -> Iterator[FineTuner]:
    """Open the fine-tuning of a folder of studies; a server may run meanwhile."""
    store = StudiesDatastore(str(studies), labels=labels, extensions=[f"*{end}" for end in WRITTEN_ENDINGS])
    service = open_campaign_service(studies, datastore=lambda: store)
    try:
        yield FineTuner(
            service,
            datastore=lambda: store,
            versions=versions_beside(studies),
            base=lambda: choose_model(model),
            labels=labels,
            device=device,
        )
    finally:
        service.campaign.store.close()
