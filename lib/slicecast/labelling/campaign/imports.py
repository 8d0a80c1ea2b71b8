"""Imported labels enter a campaign: what is approved, held by somebody or labelled already is not overwritten."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slicecast.campaign.campaign import Campaign, existing_campaign
from slicecast.campaign.state import ReadingTask, Status
from slicecast.errors import Conflict
from slicecast.inference.caller import Caller, calling
from slicecast.labelling.campaign.service import CampaignService, open_campaign_service
from slicecast.labelling.store.importing import AcceptedLabel, Save, stem_of
from slicecast.labelling.store.labels import FINAL
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.volume import write_mask
from slicecast.volume.reading import WRITTEN_ENDINGS


@dataclass(frozen=True, slots=True)
class ImportRules:
    """How labels are to be taken in."""

    who: str  # whose labels they are
    tag: str = FINAL  # `final`, or `original` for a start from which annotators go on
    replace: bool = False  # also where an image has a label under that tag


def dry_run(studies: Path, rules: ImportRules) -> Save:
    """Return a function that refuses what an import would refuse, and saves nothing."""
    campaign = existing_campaign(studies)
    return lambda label: admit(label.image, campaign, studies, rules)


@contextmanager
def importing(studies: Path, rules: ImportRules) -> Iterator[Save]:
    """Open the studies and their campaign for an import; the server may run meanwhile."""
    store = StudiesDatastore(str(studies), extensions=[f"*{ending}" for ending in WRITTEN_ENDINGS])
    service = open_campaign_service(studies, datastore=lambda: store)
    try:
        yield lambda label: _save(label, service, store, studies, rules)
        service.wait()
    finally:
        store.deliveries.close()
        store.deliveries.deliver_all()
        service.campaign.store.close()


def admit(image: str, campaign: Campaign | None, studies: Path, rules: ImportRules) -> None:
    """Check that an image may get a label.

    Raises:
        Conflict: it is approved, somebody holds it, or it has a label already.
    """
    if campaign is not None and rules.tag == FINAL:
        case = campaign.state().case(image)
        if case.status is Status.APPROVED:
            raise Conflict("Its label is approved and stays. Reject it in review first.")
        if case.gold:
            raise Conflict("It is a hidden gold case. Set its truth with `slicecast campaign add-gold`.")
        if campaign.task_of(image, rules.who) is not ReadingTask.ANNOTATE:
            raise Conflict("It is being read a second time. Hand it back first.")
    folder = studies / "labels" / rules.tag
    if not rules.replace and folder.is_dir() and any(stem_of(path) == image for path in folder.iterdir()):
        raise Conflict(f"It has a label '{rules.tag}' already. Say --replace to replace it; the old one is kept.")


def _save(
    label: AcceptedLabel, service: CampaignService, store: StudiesDatastore, studies: Path, rules: ImportRules
) -> None:
    store.refresh()  # a running server may have written since
    admit(label.image, service.campaign, studies, rules)
    with tempfile.TemporaryDirectory() as folder, calling(Caller(name=rules.who)):
        file = write_mask(Path(folder) / "label.nii.gz", label.array, label.grid)
        service.save(label.image, file, tag=rules.tag, info=label.info(), client_id=rules.who)
