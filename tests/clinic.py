"""What tests of real clients need: generated DICOM studies, a PACS, a browser, a labelling server."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from labelserver import ROOT, copy_app

from slicecast.demo.server_process import free_port, running_server, serving
from slicecast.volume import Geometry, read_volume
from slicecast_lab.generated.sample_data import DICOM_CASE, write_dicom_series

SAMPLES = ROOT / "sample-data"
PICTURES = ROOT / "build" / "browser"
SECOND_CASE = "ct_abdomen_b"
LABELS = ("liver", "spleen", "kidney_left")
TRUTH_VALUES = {"liver": 1, "spleen": 2, "kidney_right": 3, "kidney_left": 4}
"""Of sample-data/dataset.json."""

CLINIC = "clinic.test"
"""This machine, to the browser: a name that is not `localhost`, as that of a server on a network."""
CHROMIUM_FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox",
                  f"--host-resolver-rules=MAP {CLINIC} 127.0.0.1"]  # fmt: skip
"""Draw without a GPU; a container's root has no sandbox."""
ORTHANC_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Place:
    """A running labelling server.

    Args:
        url: where, without a slash at the end.
        folder: of the app and of what else belongs to the server.
    """

    url: str
    folder: Path


def find_chromium() -> str | None:
    """Return the browser's program."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def find_orthanc() -> str | None:
    """Return the PACS' program if its DICOMweb plugin is there too."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    return program if ORTHANC_PLUGIN.exists() else None


@contextmanager
def labelling(studies: str | Path, folder: Path) -> Iterator[Place]:
    """Serve studies as a user would."""
    options = ["--labels", ",".join(LABELS)]
    with serving(studies, app=copy_app(folder / "app"), log=folder / "server.log", options=options) as server:
        yield Place(server.url, folder)


@contextmanager
def running_orthanc(program: str, dicom_folder: Path, folder: Path) -> Iterator[str]:
    """Run Orthanc on loopback, holding the studies of a folder; its DICOMweb address."""
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(ORTHANC_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    url = f"http://127.0.0.1:{port}"
    command = [program, str(folder / "orthanc.json")]
    with running_server(command, url=url, log=folder / "orthanc.log", probe="/system"):
        for file in sorted(dicom_folder.rglob("*.dcm")):
            upload = urllib.request.Request(f"{url}/instances", data=file.read_bytes(), method="POST")
            urllib.request.urlopen(upload, timeout=60).close()
        yield f"{url}/dicom-web"


def write_dicom_studies(folder: Path) -> Path:
    """Write two generated CT series, each in a folder of its own."""
    shutil.copytree(SAMPLES / "dicom" / DICOM_CASE, folder / DICOM_CASE)
    second = read_volume(SAMPLES / "studies" / f"{SECOND_CASE}.nii.gz")
    write_dicom_series(folder / SECOND_CASE, second, name=SECOND_CASE)
    return folder


def study_uids(dicom_folder: Path) -> dict[str, str]:
    """Return the StudyInstanceUID of each case of `write_dicom_studies`."""
    firsts = {folder.name: next(folder.glob("*.dcm")) for folder in sorted(dicom_folder.iterdir())}
    return {name: str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID) for name, file in firsts.items()}


def write_nifti_studies(folder: Path) -> Path:
    """Write the same scans as NIfTI files, the first one stored as RAS."""
    folder.mkdir(parents=True)
    scan = read_volume(SAMPLES / "dicom" / DICOM_CASE)
    image = sitk.GetImageFromArray(scan.array)
    image.CopyInformation(sitk.ReadImage(str(SAMPLES / "truth" / f"{DICOM_CASE}.nii.gz")))
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(folder / f"{DICOM_CASE}.nii.gz"))
    shutil.copy(SAMPLES / "studies" / f"{SECOND_CASE}.nii.gz", folder)
    return folder


def served_uids(url: str, *, token: str = "") -> dict[str, str]:
    """Ask a labelling server, as OHIF does, for the StudyInstanceUID of each patient."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}/proxy/dicom/qido/studies", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    return {study["00100020"]["Value"][0]: study["0020000D"]["Value"][0] for study in found}


def truth_on(grid: Geometry, case: str, label: str) -> np.ndarray:
    """Return the true voxels [k, j, i] of a label, on the grid on which a viewer shows the case."""
    truth = read_volume(SAMPLES / "truth" / f"{case}.nii.gz")
    i, j, k = np.meshgrid(*(np.arange(n) for n in grid.size_ijk), indexing="ij")
    exact = truth.geometry.world_to_index(grid.index_to_world(np.stack([i, j, k], axis=-1).reshape(-1, 3)))
    index = exact.round().astype(int)
    assert np.abs(exact - index).max() < 0.01, "the viewer's voxels are not those of the file"
    values = truth.array[index[:, 2], index[:, 1], index[:, 0]]
    return (values == TRUTH_VALUES[label]).reshape(grid.size_ijk).transpose(2, 1, 0)


def inside(mask: np.ndarray) -> tuple[int, int, int]:
    """Return a voxel (i, j, k) well inside a mask, on its largest slice."""
    k = int(mask.sum(axis=(1, 2)).argmax())
    places = np.argwhere(mask[k])
    j, i = places[np.abs(places - np.median(places, axis=0)).sum(axis=1).argmin()]
    return int(i), int(j), k


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return how alike two masks are, 0 to 1."""
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())
