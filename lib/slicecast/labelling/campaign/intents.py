"""Labels on their way: what is to be saved and recorded lies on the disk before either is.

So a server that is killed leaves a label and its event, or neither: at the next start, what was begun is finished.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from slicecast.campaign.state import ReadingTask
from slicecast.labelling.store.delivery import Delivery, DeliveryQueue


@dataclass(frozen=True, slots=True)
class Submission:
    """A label that was let in, and is to be saved and recorded."""

    image: str  # as the client names it
    case: str  # the image's own name
    who: str  # whose label it is
    task: ReadingTask  # what it is for
    tag: str  # under which it is saved
    after: int  # number of the last event before it
    info: Mapping[str, Any] = field(default_factory=dict)  # the label's record
    said: Mapping[str, Any] = field(default_factory=dict)  # what its event says besides the file's version and hash
    anyones: bool = False  # they may label what somebody else holds


class Intents:
    """Submissions that were begun; one at a time, also over several processes.

    Args:
        folder: made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else save a final label while the block lasts."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder.with_name(f"{self._folder.name}.lock")):
            yield

    @contextmanager
    def begun(self, label: Path, submission: Submission) -> Iterator[None]:
        """Note what is begun until the block ends, well or with an error; only a kill leaves it noted."""
        jobs = self._jobs()
        job = jobs.put(label, asdict(submission))
        try:
            yield
        finally:
            jobs.discard(job)

    def wait_for(self, case: str) -> bool:
        """Tell whether a kill left a submission of a case; to be asked while `alone`."""
        return any(job.facts["case"] == case for job in self._jobs().waiting())

    def left(self) -> Iterator[tuple[Path, Submission]]:
        """Yield what a kill left: the label's file and the submission; each is forgotten after its turn."""
        jobs = self._jobs()
        for job in jobs.waiting():
            yield job.label, _submission(job)
            jobs.discard(job.folder)

    def _jobs(self) -> DeliveryQueue:
        return DeliveryQueue(self._folder, lambda delivery: None)


def _submission(job: Delivery) -> Submission:
    facts = dict(job.facts)
    return Submission(**{**facts, "task": ReadingTask(facts["task"])})
