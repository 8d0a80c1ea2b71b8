"""The task `train`: the Train buttons of OHIF and 3D Slicer begin a round of fine-tuning."""

from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from slicecast.labelling.finetuning.tuner import FineTuner

NAME = "sam2"
"""As the model is called among the infer tasks."""


class FinetuneTask(TrainTask):
    """Fine-tuning as MONAI Label sees it.

    Args:
        tuner: begins rounds and knows them.
    """

    def __init__(self, tuner: FineTuner) -> None:
        super().__init__("Fine-tune the model on the submitted labels; used only if it is shown not to be worse")
        self._tuner = tuner

    def stats(self) -> dict[str, Any]:
        """Return how far the last round is: an epoch is a step."""
        return self._tuner.stats()

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Begin a round in a process of its own and return its state."""
        return self._tuner.described(self._tuner.start())
