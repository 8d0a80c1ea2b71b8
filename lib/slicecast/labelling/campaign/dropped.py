"""Labels that somebody put into `labels/final` by hand, or changed there, while the server runs or while it is down.

New ones are checked as any other label, and submitted by the server; what cannot be a label is listed with its reason,
and is none to anybody. One that was submitted and then changed is listed: it is not what that person submitted.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from slicecast.errors import SlicecastError
from slicecast.labelling.campaign.drafts import LabelChanged
from slicecast.labelling.store.labels import FINAL
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.volume.reading import stem_of

logger = logging.getLogger(__name__)

AGAIN_S = 60.0
"""So often a file that is refused is tried again, because somebody held the case for example, and are files looked at
that were written over, which leaves the folder as it was."""

STRANGE = "No image has that name. Name it as its image, or take it in with `slicecast labels import`."
ANOTHER = "Another file is the label of that image. Take it in with `slicecast labels import --replace`."


class Dropped:
    """Looks for such labels in a thread, whenever the folder has changed.

    Args:
        datastore: the images and labels.
        submit: submits an image's label if nobody has yet; raises LabelChanged where it is not what
            somebody has submitted, another SlicecastError where it cannot be a label.
    """

    def __init__(self, datastore: Callable[[], StudiesDatastore], submit: Callable[[str, Path], bool]) -> None:
        self._datastore, self._submit = datastore, submit
        self._seen_ns, self._looked_s, self._thread = -1, 0.0, threading.Thread()
        self.refused: dict[str, str] = {}
        """Why a file is not a label, by the file's name."""
        self.changed: dict[str, str] = {}
        """Why a label is not what was submitted, by the file's name."""

    def look(self) -> list[str]:
        """Submit what can be a label; return the images that got one."""
        store, taken = self._datastore(), list[str]()
        refused, changed = dict[str, str](), dict[str, str]()
        self._seen_ns, self._looked_s = _changed_ns(store.label_folder(FINAL)), time.monotonic()
        store.refresh()
        images = set(store.list_images())
        for file in sorted(path for path in store.label_folder(FINAL).glob("[!.]*") if path.is_file()):
            image = stem_of(file)
            try:
                if image not in images:
                    refused[file.name] = STRANGE
                elif self._submit(image, file):
                    taken.append(image)
                elif (label := store.get_label_uri(image, FINAL)) and Path(label).name != file.name:
                    refused[file.name] = ANOTHER
            except LabelChanged as error:
                changed[file.name] = str(error)
            except SlicecastError as error:
                refused[file.name] = str(error)
        store.refuse_labels([store.label_folder(FINAL) / name for name in refused])
        for name, why in (refused | changed).items():
            if name not in self.refused | self.changed:
                logger.warning("labels/%s/%s is not used: %s", FINAL, name, why)
        self.refused, self.changed = refused, changed
        return taken

    def look_soon(self) -> None:
        """Look in the background if a file has come or gone, or now and then."""
        store = self._datastore()
        if self._thread.is_alive():
            return
        if time.monotonic() - self._looked_s > AGAIN_S or self._seen_ns != _changed_ns(store.label_folder(FINAL)):
            # Another request may look at this moment, too: each starts its own thread.
            self._thread = own = threading.Thread(target=self._look_safely, name="dropped-labels", daemon=True)
            own.start()

    def _look_safely(self) -> None:
        try:
            self.look()
        except OSError as error:  # a folder that went away meanwhile, at the server's end for example
            logger.warning("labels/%s was not looked at: %s", FINAL, error)

    def wait(self) -> None:
        """Wait until it has looked."""
        if self._thread.is_alive():
            self._thread.join()


def _changed_ns(folder: Path) -> int:
    return folder.stat().st_mtime_ns if folder.is_dir() else 0
