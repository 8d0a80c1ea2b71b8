"""Images that cannot be segmented, each with its reason; and files that are not read because they lie in a folder."""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from slicecast.errors import VolumeError
from slicecast.volume.reading import WRITTEN_ENDINGS, check_scan, without_folders

OWN_FOLDERS = ("labels", "campaign", "segmentations")  # What the server itself keeps in the studies

_Stamp = tuple[int, int]


class ScanChecks:
    """Examines images by their headers, each once until its file changes. Thread-safe.

    Args:
        path_of: returns an image's file or DICOM folder.
    """

    def __init__(self, path_of: Callable[[str], Path]) -> None:
        self._path_of = path_of
        self._found: dict[str, tuple[_Stamp, str]] = {}
        self._guard = threading.Lock()

    def why_not(self, image: str) -> str:
        """Return why an image cannot be segmented; "" where it can."""
        try:
            path = self._path_of(image)
        except OSError as error:  # such as a folder of links that cannot be made
            return f"{image} cannot be opened: {error.strerror}."
        stamp = _stamp(path)
        with self._guard:
            known = self._found.get(image)
        if known is None or known[0] != stamp:
            known = stamp, examined(path)
            with self._guard:
                self._found[image] = known
        return known[1]

    def known(self, images: Iterable[str]) -> dict[str, str]:
        """Return the reasons found so far, by image."""
        with self._guard:
            return {image: self._found[image][1] for image in sorted(images) if self._found.get(image, (0, ""))[1]}

    def examine(self, images: Iterable[str]) -> dict[str, str]:
        """Examine images; return the reason of each that cannot be segmented."""
        found = {image: self.why_not(image) for image in sorted(images)}
        return {image: why for image, why in found.items() if why}


def examined(path: Path) -> str:
    """Return why a file or DICOM folder cannot be segmented; "" where it can."""
    try:
        with without_folders(path):
            check_scan(path)
    except VolumeError as error:
        return str(error)
    except OSError as error:
        return f"{path.name} cannot be opened: {error.strerror}."
    return ""


def nested_volumes(studies: Path) -> dict[str, str]:
    """Return the folders below the studies that hold volumes, which are not read there, each with a sentence."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(studies):
        here = Path(folder)
        own = OWN_FOLDERS if here == studies else ()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in own)
        volumes = sorted(name for name in names if name.endswith(WRITTEN_ENDINGS) and not name.startswith("."))
        if volumes and here != studies:
            what = f"{len(volumes)} files such as {volumes[0]} are" if len(volumes) > 1 else f"{volumes[0]} is"
            place = here.relative_to(studies).as_posix()
            found[f"{place}/"] = f"{what} not read: only DICOM may lie in folders. Move it up into the studies."
    return found


def _stamp(path: Path) -> _Stamp:
    try:
        state = path.stat()
    except OSError:
        return 0, -1
    return state.st_mtime_ns, state.st_size
