"""What the tests of `monai`, `server` and `e2e` share: studies, recorded requests, the app in this process."""

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from builders import phantom
from filelock import FileLock

from slicecast.volume import write_mask, write_volume

with warnings.catch_warnings():
    # passlib imports crypt, MONAI Label's client cgi; starlette would rather have httpx2
    warnings.simplefilter("ignore")
    import monailabel.app
    import monailabel.client  # noqa: F401
    from fastapi.testclient import TestClient as AnyClient
    from monailabel.config import settings
    from monailabel.interfaces.utils import app as instances

    from slicecast.server.app import create_app


class TestClient(AnyClient):
    """A client on the server's own machine, which asks it by its own name."""

    def __init__(self, app: Any, base_url: str = "http://localhost", **more: Any) -> None:
        super().__init__(app, base_url, **{"client": ("127.0.0.1", 50000), **more})


ROOT = Path(__file__).parents[1]
APP = ROOT / "apps" / "sam2"
REQUESTS = sorted((Path(__file__).parent / "labelling" / "requests").glob("*.json"))


def recorded(path: Path) -> dict[str, Any]:
    """Read a recorded request."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_studies(folder: Path, names: tuple[str, ...] = ("first", "second")) -> Path:
    """Write phantoms as studies; each has its own noise and hence its own content."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        volume = phantom().volume
        array = np.roll(volume.array, number, axis=0)
        write_volume(folder / f"{name}.nii.gz", volume.with_array(array))
    return folder


def copy_app(folder: Path) -> Path:
    """Copy the app, because MONAI Label writes into its folder."""
    left = shutil.ignore_patterns("model", "logs", "bin", "lib", "cache", "sessions")
    return Path(shutil.copytree(APP, folder, ignore=left))


def label_bytes(level: float = 70) -> bytes:
    """Return a label of the studies' phantoms as a .nii.gz file: the voxels brighter than `level`."""
    volume = phantom().volume
    with tempfile.TemporaryDirectory() as folder:
        return write_mask(Path(folder) / "label.nii.gz", volume.array > level, volume.geometry).read_bytes()


@contextmanager
def monailabel_settings(**values: Any) -> Iterator[None]:
    """Set MONAI Label's settings, which are one object for the whole process, and forget its app afterwards."""
    before = {name: getattr(settings, name) for name in values}
    for name, value in values.items():
        setattr(settings, name, value)
    instances.clear_cache()
    try:
        yield
    finally:
        instances.clear_cache()
        for name, value in before.items():
            setattr(settings, name, value)


@contextmanager
def app_settings(app_dir: Path, studies: Path | str, conf: dict[str, str] | None = None, **more: Any) -> Iterator[None]:
    """Set MONAI Label's settings for an app, copied to `app_dir` if it is not there yet, and its studies."""
    if not app_dir.exists():
        copy_app(app_dir)
    chosen = {
        "MONAI_LABEL_APP_DIR": str(app_dir),
        "MONAI_LABEL_STUDIES": str(studies),
        "MONAI_LABEL_APP_CONF": conf or {},
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
        **more,
    }
    with monailabel_settings(**chosen):
        yield


def another_server(studies: Path) -> FileLock:
    """Return what another server holds while it serves the studies; use it in a `with` block."""
    (studies / ".slicecast").mkdir(exist_ok=True)
    return FileLock(studies / ".slicecast" / "server.lock")


@contextmanager
def serving(app_dir: Path, studies: Path, conf: dict[str, str], **client: Any) -> Iterator[TestClient]:
    """Run the whole application in this process; `conf` is the app's, `client` the client's options."""
    options = {"raise_server_exceptions": False, **client}
    with app_settings(app_dir, studies, conf), TestClient(create_app(), **options) as requests:
        yield requests


def read_mask(content: bytes, folder: Path, *, name: str = "mask.nrrd") -> sitk.Image:
    """Read a mask that came over HTTP."""
    file = folder / name
    file.write_bytes(content)
    return sitk.ReadImage(str(file))


def upload_name(suffix: str) -> Path:
    """Return a path such as MONAI Label gives to a file that it receives."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        return Path(file.name)
