"""OHIF in a real browser: open, connect, click, run, correct, next sample; with a PACS and without one."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import SimpleITK as sitk
from clinic import (
    LABELS,
    PICTURES,
    SECOND_CASE,
    Place,
    dice,
    inside,
    labelling,
    served_uids,
    study_uids,
    truth_on,
    write_dicom_studies,
    write_nifti_studies,
)
from labelserver import read_mask
from viewer import Viewer

from slicecast_lab.generated.sample_data import DICOM_CASE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=["orthanc", "dicom", "nifti"])
def place(request, tmp_path_factory) -> Iterator[Place]:
    """A labelling server on each kind of store."""
    stores = {
        "orthanc": lambda: request.getfixturevalue("orthanc"),
        "dicom": lambda: write_dicom_studies(tmp_path_factory.mktemp("dicom") / "studies"),
        "nifti": lambda: write_nifti_studies(tmp_path_factory.mktemp("nifti") / "studies"),
    }
    with labelling(stores[request.param](), tmp_path_factory.mktemp(request.param)) as place:
        yield place


@pytest.fixture
def uids(place: Place, request, dicom_folder) -> dict[str, str]:
    """The StudyInstanceUID of each case."""
    return served_uids(place.url) if request.node.callspec.params["place"] == "nifti" else study_uids(dicom_folder)


@pytest.fixture
def viewer(page, place: Place, request) -> Viewer:
    """The viewer, connected to nothing yet."""
    return Viewer(page, place.url, PICTURES / request.node.callspec.params["place"])


def sent(answer) -> dict:
    """Return the params of the request behind an answer."""
    body = answer.request.post_data
    return json.loads(body[body.index("{") : body.rindex("}") + 1])


def test_the_whole_way(viewer, uids, tmp_path):
    assert viewer.open(uids[DICOM_CASE]) == (96, 96, 24)
    spleen = truth_on(viewer.grid(), DICOM_CASE, "spleen")
    assert viewer.server() == f"{viewer.url}/"
    viewer.connect()
    viewer.point_prompts("sam2")

    viewer.choose("spleen")
    clicked = inside(spleen)
    viewer.click_voxel(clicked)
    first = viewer.run()
    viewer.picture("1-first-click")
    assert sent(first)["spleen"] == [list(clicked)]
    shown, numbers = viewer.labelmap()
    mask = shown == numbers["spleen"]
    assert np.array_equal(mask, volume_of(first, tmp_path) != 0)
    assert dice(mask, spleen) > 0.5

    wrong = inside(mask & ~spleen)
    viewer.choose("background")
    viewer.click_voxel(wrong)
    viewer.choose("spleen")
    second = viewer.run()
    viewer.show(clicked)
    viewer.picture("2-background-click")
    assert sent(second)["background"] == [list(wrong)]
    shown, _ = viewer.labelmap()
    corrected = shown == numbers["spleen"]
    i, j, k = wrong
    assert mask[k, j, i] and not corrected[k, j, i]
    assert np.array_equal(corrected, volume_of(second, tmp_path) != 0)

    chosen = viewer.next_sample()
    viewer.picture("3-next-sample")
    assert chosen["StudyInstanceUID"] in uids.values() and chosen["reason"]
    assert viewer.accept_sample() in ((96, 96, 24), (144, 116, 34))
    assert chosen["StudyInstanceUID"] in viewer.page.url


def test_every_label_keeps_its_name(viewer, uids):
    """The labels are visited in another order than the server lists them, with the background between."""
    viewer.open(uids[SECOND_CASE])
    viewer.connect()
    viewer.point_prompts("sam2")
    truth = {name: truth_on(viewer.grid(), SECOND_CASE, name) for name in LABELS}
    viewer.choose("spleen")
    viewer.choose("kidney_left")
    viewer.click_voxel(inside(truth["kidney_left"]))
    viewer.choose("background")
    viewer.choose("liver")
    viewer.click_voxel(inside(truth["liver"]))
    viewer.run()
    viewer.show(inside(truth["kidney_left"]))
    viewer.picture("4-several-labels")
    shown, numbers = viewer.labelmap()
    for name in ("liver", "kidney_left"):
        i, j, k = inside(truth[name])
        assert shown[k, j, i] == numbers[name], name
        assert dice(shown == numbers[name], truth[name]) > 0.4, name
    assert not (shown == numbers["spleen"]).any()


def volume_of(answer, folder) -> np.ndarray:
    """Return the mask [k, j, i] that the server sent."""
    return sitk.GetArrayFromImage(read_mask(answer.body(), folder))
