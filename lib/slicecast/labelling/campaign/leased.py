"""Strategies whose answers are leased: MONAI Label asks them for the next image."""

from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from slicecast.labelling.campaign.service import CampaignService


class Leased(Strategy):
    """A strategy whose answers are leased to the caller.

    Args:
        strategy: chooses.
        name: of it.
        service: leases.
    """

    def __init__(self, strategy: Strategy, name: str, service: CampaignService) -> None:
        super().__init__(strategy.description)
        self.chooser = strategy
        self._name = name
        self._service = service

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose a case and lease it; None when nothing is left."""
        return self._service.next_sample(self.chooser, self._name, request)
