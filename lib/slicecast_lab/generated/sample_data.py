"""Write the generated volumes of `sample-data/`: scans for first steps, with the truth, free of any patient.

`python -m slicecast_lab.generated.sample_data --out sample-data` makes the same files again, from fixed seeds.
"""

import argparse
import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from slicecast.volume import Geometry, Reorientation, Volume, write_mask, write_volume
from slicecast.volume.grid import all_orientations
from slicecast_lab.generated import sample_ct, sample_mr

COMMAND = "python -m slicecast_lab.generated.sample_data --out sample-data"
LABELS = {**sample_ct.LABELS, **sample_mr.LABELS}
DICOM_CASE = "ct_abdomen_dicom"

Scene = Callable[[Geometry], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class GeneratedCase:
    """One scan to generate."""

    name: str  # file name without ending
    modality: str  # 'CT' or 'MR'
    geometry: Geometry  # canonical grid on which it is drawn
    axcodes: str  # how it is stored, such as 'RAS'
    scene: Scene  # draws numbers and labels on the grid


def cases() -> list[GeneratedCase]:
    """List the scans of `sample-data/`, the DICOM one last."""
    thin, thick = (2.4, 2.4, 3.0), (2.4, 2.4, 5.0)
    broad = sample_ct.Torso(half_width_mm=158, half_depth_mm=106, fat_mm=22, dome_mm=150, lesion=False)
    slim = sample_ct.Torso(half_width_mm=142, half_depth_mm=104, fat_mm=9, dome_mm=154)
    first = sample_mr.Head()
    second = sample_mr.Head(74.0, 92.0, lesion_mm=(30, -24, 30), lesion_radius_mm=17, ventricle_scale=1.3)
    torso_origin, head_origin = (-171.6, -132.0, 2.0), (-83.0, -100.0, -52.0)
    return [
        GeneratedCase(
            "ct_abdomen_a", "CT", Geometry((144, 116, 56), thin, torso_origin), "RAS", _ct(sample_ct.Torso(), 11)
        ),
        GeneratedCase("ct_abdomen_b", "CT", Geometry((144, 116, 34), thick, torso_origin), "LPS", _ct(broad, 23)),
        GeneratedCase(
            "mr_brain_a", "MR", Geometry((116, 138, 46), (1.45, 1.45, 3.0), head_origin), "RAS", _mr(first, 3)
        ),
        GeneratedCase(
            "mr_brain_b", "MR", Geometry((40, 124, 90), (4.0, 1.6, 1.6), (-78, -99, -55)), "PIR", _mr(second, 8, True)
        ),
        GeneratedCase(
            DICOM_CASE, "CT", Geometry((96, 96, 24), (3.6, 3.6, 5.0), (-171, -171, 40)), "LPS", _ct(slim, 41)
        ),
    ]


def write_sample_data(folder: Path) -> None:
    """Generate every scan into `folder`, with truth and `dataset.json`; existing files are replaced."""
    for name in ("studies", "truth", "dicom"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    made = cases()
    for case in made:
        numbers, labels = case.scene(case.geometry)
        storage = _storage(case.geometry, case.axcodes)
        scan = Volume(storage.to_canonical_array(numbers), storage.geometry)
        write_mask(folder / "truth" / f"{case.name}.nii.gz", storage.to_canonical_array(labels), storage.geometry)
        if case.name == DICOM_CASE:
            write_dicom_series(folder / "dicom" / case.name, scan, name=case.name)
        else:
            write_volume(folder / "studies" / f"{case.name}.nii.gz", scan)
    description = {
        "description": "Generated scans for first steps. They look like patients and are none.",
        "modality": {case.name: case.modality for case in made},
        "labels": LABELS,
        "licence": "CC0-1.0",
        "generator": COMMAND,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def write_dicom_series(folder: Path, scan: Volume, *, name: str) -> None:
    """Write an int16 scan in HU as a CT series, one file a slice, replacing the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, pixels in enumerate(scan.array):
        slice_data = _ct_slice(scan.geometry, pixels, number, name=name)
        slice_data.save_as(folder / f"slice_{number + 1:03}.dcm", write_like_original=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Generate the volumes of sample-data/.")
    parser.add_argument("--out", type=Path, default=Path("sample-data"), help="folder to write (default: sample-data)")
    write_sample_data(parser.parse_args(arguments).out)


def _ct(torso: sample_ct.Torso, seed: int) -> Scene:
    return lambda geometry: sample_ct.abdomen(geometry, torso, seed=seed)


def _mr(patient: sample_mr.Head, seed: int, standardised: bool = False) -> Scene:
    """Draw a head as whole numbers, or standardised (mean 0, deviation 1) as many data sets are."""

    def draw(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
        signal, labels = sample_mr.head(geometry, patient, seed=seed)
        if not standardised:
            return (signal * 900).round().astype(np.uint16), labels
        steps = 64  # few digits, so that the file stays small
        return (((signal - signal.mean()) / signal.std() * steps).round() / steps).astype(np.float32), labels

    return draw


def _storage(geometry: Geometry, axcodes: str) -> Reorientation:
    """Find the reorientation that stores an LPS grid as `axcodes`."""
    candidates = (Reorientation(geometry, *orientation) for orientation in all_orientations())
    return next(storage for storage in candidates if storage.geometry.axcodes == axcodes)


def _ct_slice(geometry: Geometry, pixels: np.ndarray, number: int, *, name: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(f"{name}/{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for keyword, value in {**_series_tags(name), **_slice_tags(geometry, number)}.items():
        setattr(data, keyword, value)
    stored = np.ascontiguousarray(pixels + 1024, dtype=np.uint16)
    data.Rows, data.Columns = stored.shape
    data.PixelData = stored.astype("<u2").tobytes()
    return data


def _series_tags(name: str) -> dict[str, object]:
    return {
        "PatientName": "Generated^Abdomen",
        "PatientID": "SLICECAST-SAMPLE",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "StudyInstanceUID": _uid(f"{name}/study"),
        "SeriesInstanceUID": _uid(f"{name}/series"),
        "FrameOfReferenceUID": _uid(f"{name}/frame"),
        "StudyDate": "20240805",
        "StudyTime": "120000",
        "StudyID": "1",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyDescription": "Generated scan, no patient",
        "SeriesDescription": "Abdomen 5 mm, generated",
        "SeriesNumber": 1,
        "Modality": "CT",
        "Manufacturer": "Slicecast sample data",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "PatientPosition": "HFS",
        "PositionReferenceIndicator": "",
        "KVP": "120",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "WindowCenter": "40",
        "WindowWidth": "400",
    }


def _slice_tags(geometry: Geometry, number: int) -> dict[str, object]:
    spacing, direction = geometry.spacing_mm, geometry.direction_matrix
    position = geometry.index_to_world((0, 0, number))
    return {
        "InstanceNumber": number + 1,
        "AcquisitionNumber": 1,
        "ImagePositionPatient": [f"{value:.4f}" for value in position],
        "ImageOrientationPatient": [f"{value:.6f}" for value in (*direction[:, 0], *direction[:, 1])],
        "SliceLocation": f"{position[2]:.4f}",
        "SliceThickness": f"{spacing[2]:.4f}",
        "PixelSpacing": [f"{spacing[1]:.4f}", f"{spacing[0]:.4f}"],
    }


def _uid(text: str) -> UID:
    """Make the same DICOM UID for the same text in every run (a UUID under the root 2.25)."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'slicecast/sample-data/{text}').int}")


if __name__ == "__main__":
    main()
