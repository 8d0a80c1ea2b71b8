"""Which file a request means. A client names images by id; a path from outside is never opened.

The paths that MONAI Label itself puts into a request, of an uploaded session or file, are the only ones let
through, and only from where it keeps them.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore

from slicecast.errors import InputError, UnknownImage
from slicecast.labelling.store.studies import StudiesDatastore

UPLOAD = re.compile(r"tmp[a-z0-9_]{8}(\.[A-Za-z0-9_.]{1,40})?")
"""How MONAI Label names an uploaded file in the temporary folder; eight random characters cannot be guessed."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """The file or DICOM folder of a request, and its id if it belongs to the studies."""

    path: Path
    id: str | None


def find_image(request: Mapping[str, Any], datastore: Datastore, *, sessions: Path | None = None) -> FoundImage:
    """Find the image that a request names.

    Raises:
        UnknownImage: no image is named, or there is none of that id.
        InputError: a path is named.
    """
    name = request.get("image")
    if not isinstance(name, str) or not name:
        raise UnknownImage("The request names no image. Give an image's id, or a session that has not expired.")
    if "/" in name or "\\" in name:
        return FoundImage(_uploaded(name, sessions), None)
    if isinstance(datastore, StudiesDatastore):
        path, own = datastore.scan_path(name), datastore.image_id(name)
    else:
        path, own = datastore.get_image_uri(name) if name not in (".", "..") else "", name
    if not path:
        raise UnknownImage(f"There is no image '{name}' in the studies.{_hint(name, datastore)}")
    return FoundImage(Path(path), own)


def is_upload_name(path: Path) -> bool:
    """Tell whether a path is one that MONAI Label gives to what it receives; nothing need be there."""
    if not UPLOAD.fullmatch(path.name) or "\0" in str(path):
        return False
    return path.resolve().parent == Path(tempfile.gettempdir()).resolve()


def is_upload(path: Path) -> bool:
    """Tell whether a path is a file that MONAI Label has just received."""
    return is_upload_name(path) and path.is_file()


def _uploaded(name: str, sessions: Path | None) -> Path:
    path = Path(name)
    in_session = sessions is not None and path.resolve().is_relative_to(sessions.resolve())
    if path.exists() and (in_session or is_upload(path)):
        return path
    raise InputError(f"The image '{name}' is a path. Give the id of an image of the studies, or upload the file.")


def _hint(name: str, datastore: Datastore) -> str:
    near = get_close_matches(name, datastore.list_images(), n=1)
    return f" Did you mean '{near[0]}'?" if near else " Ask for the list of images again."
