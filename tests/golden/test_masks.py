"""Masks byte for byte of further requests: axes, orders of voxels, DICOM, boxes in space, the wire."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from golden.product import SAMPLES
from golden.work import digest, infer

import slicecast

CT_A, CT_B, MR_A = (SAMPLES / "studies" / f"{name}.nii.gz" for name in ("ct_abdomen_a", "ct_abdomen_b", "mr_brain_a"))
KIDNEY, BESIDE = (98, 73, 11), (108, 66, 11)
Request = tuple[Path, dict[str, Any]]


def painted(case: Path, value: int, k: int) -> np.ndarray:
    """Return one slice of a true label, bool [k, j, i]."""
    truth = slicecast.read_volume(SAMPLES / "truth" / case.name).array
    mask = np.zeros(truth.shape, bool)
    mask[k] = truth[k] == value
    return mask


def stored_as(axes: str, folder: Path) -> Path:
    """Write the second CT with its voxels in another order."""
    file = folder / f"{axes}.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(CT_B)), axes), str(file))
    return file


REQUESTS: dict[str, Callable[[Path], Request]] = {
    "box_in_space": lambda _: (CT_B, {"boxes": {"spleen": [((88, 49, 13), (118, 78, 18))]}, "range": (12, 20)}),
    "true_slice": lambda _: (CT_B, {"masks": {"spleen": [painted(CT_B, 2, 16)]}, "range": (14, 19)}),
    "three_objects": lambda _: (
        CT_B,
        {"points": {"liver": [(54, 49, 12)], "kidney": [(98, 73, 12)], "aorta": [(74, 64, 12)]}, "range": (10, 15)},
    ),
    "whole_volume": lambda _: (CT_B, {"points": {"spleen": [(108, 60, 16)]}}),
    "sagittal_axis": lambda _: (CT_A, {"points": {"aorta": [(68, 50, 20)]}, "axis": "sagittal", "range": (66, 70)}),
    "coronal_axis": lambda _: (MR_A, {"points": {"lesion": [(81, 55, 27)]}, "axis": "coronal", "range": (53, 57)}),
    "stored_as_LPS": lambda _: (CT_B, {"points": {"kidney": [KIDNEY]}, "range": (9, 14)}),
    "stored_as_RAS": lambda tmp: (stored_as("RAS", tmp), {"points": {"kidney": [(45, 42, 11)]}, "range": (9, 14)}),
    "stored_as_SAR": lambda tmp: (stored_as("SAR", tmp), {"points": {"kidney": [(11, 42, 45)]}, "range": (9, 14)}),
    "dicom": lambda _: (SAMPLES / "dicom" / "ct_abdomen_dicom", {"points": [(48, 48, 12)], "range": (10, 15)}),
}
"""An image and what is said about it, by name; the folder is for images that are made first."""

WIRE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wire_slicer": (
        "ct_abdomen_b",
        "sam2_single",
        {
            "label": "kidney",
            "foreground": [[*KIDNEY]],
            "background": [[*BESIDE]],
            "axis": "auto",
            "range": "9:14",
            "window": "auto",
            "reset_state": True,
            "client_id": "user-7f3a",
        },
    ),
    "wire_ohif": (
        "mr_brain_b",
        "sam2",
        {
            "background": [[60, 20, 13]],
            "liver": [[89, 75, 13]],
            "kidney": [[68, 70, 20]],
            "result_compress": False,
            "restore_label_idx": False,
        },
    ),
}
"""Image, model and params as 3D Slicer and OHIF send them, by name."""


@pytest.fixture(scope="module")
def service() -> slicecast.SegmentService:
    """The bundled model on the processor, whatever else there is."""
    return slicecast.SegmentService(model="sam2_nano", device="cpu")


@pytest.mark.parametrize("name", REQUESTS)
def test_the_mask_of_a_request(name, service, golden_mask, tmp_path):
    image, said = REQUESTS[name](tmp_path)
    result = slicecast.segment(image, service=service, **said)
    golden_mask(name, result.mask, axis=result.axis, labels=result.labels)


@pytest.mark.parametrize("name", WIRE)
def test_the_mask_over_the_wire(name, place, golden_mask):
    image, model, params = WIRE[name]
    golden_mask(name, infer(place.client, image, params, model))


def test_the_stored_masks_are_those_of_the_stored_hashes(files):
    known = json.loads((files / "masks.json").read_text(encoding="utf-8"))
    with np.load(files / "masks.npz") as arrays:
        hashes = {name: digest(arrays[name]) for name in arrays}
    assert hashes == {name: entry["sha256"] for name, entry in known.items()}
    assert set(known) == {*REQUESTS, *WIRE}
