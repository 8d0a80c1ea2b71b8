"""The bar above OHIF: a case from the first click to its label, and to the next case, without leaving the viewer."""

from collections.abc import Iterator

import pytest
from accessible import serious
from clinic import PICTURES, SECOND_CASE, Place, inside, labelling, truth_on, write_nifti_studies
from viewer import WAIT_MS, Viewer

from slicecast.volume import read_volume
from slicecast_lab.generated.sample_data import DICOM_CASE

pytestmark = pytest.mark.browser


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    """A server on two scans."""
    with labelling(write_nifti_studies(tmp_path / "studies"), tmp_path) as place:
        yield place


@pytest.fixture
def viewer(page, place) -> Viewer:
    """The viewer, of a person with a name."""
    page.context.add_cookies([{"name": "slicecast_user", "value": "Anna", "url": place.url}])
    return Viewer(page, place.url, PICTURES / "bar")


def told(viewer: Viewer, part: str) -> str:
    """Wait until the bar says something, and return all that it says."""
    viewer.page.wait_for_selector(f"#slicecast #told:has-text('{part}')", timeout=WAIT_MS)
    return str(viewer.page.inner_text("#slicecast #told"))


def run(viewer: Viewer, name: str, truth) -> None:
    viewer.choose(name)
    viewer.click_voxel(inside(truth))
    viewer.run()


def test_a_case_without_leaving_the_viewer(viewer, place):
    viewer.page.goto(f"{viewer.url}/campaign/case/{DICOM_CASE}", timeout=WAIT_MS)
    with viewer.page.expect_navigation(url="**/ohif/monai-label**", timeout=WAIT_MS):
        viewer.page.get_by_text("Open in OHIF", exact=True).click()
    viewer.wait_for_volume()
    viewer.connect()
    told(viewer, "No structure yet")
    assert serious(viewer.page, "#slicecast") == []
    assert viewer.page.inner_text("#slicecast #name") == DICOM_CASE
    assert viewer.page.is_disabled("#slicecast #submit") and viewer.page.is_disabled("#slicecast #back")
    viewer.point_prompts("sam2")
    grid = viewer.grid()
    run(viewer, "liver", truth_on(grid, DICOM_CASE, "liver"))
    told(viewer, "liver")
    run(viewer, "spleen", truth_on(grid, DICOM_CASE, "spleen"))
    assert "liver" in told(viewer, "spleen")
    viewer.picture("two-structures")
    assert serious(viewer.page, "#slicecast") == []

    number = viewer.page.inner_text("#slicecast #go").split()[-1]
    viewer.page.click("#slicecast #go")
    viewer.page.wait_for_timeout(1000)
    assert viewer.slice_number().startswith(f"{number}/")
    viewer.page.click("#slicecast #back")
    viewer.page.wait_for_selector("#slicecast #told:not(:has-text('spleen'))")
    shown, numbers = viewer.labelmap()
    liver = int((shown == numbers["liver"]).sum())
    assert liver and not (shown == numbers["spleen"]).any()

    viewer.page.once("dialog", lambda dialog: dialog.accept())
    viewer.page.click("#slicecast #submit")
    told(viewer, "Submitted: liver")
    viewer.picture("submitted")
    label = read_volume(place.folder / "studies" / "labels" / "final" / f"{DICOM_CASE}.nii.gz").array
    assert (label > 0).sum() == (label == 1).sum() == liver
    with viewer.page.expect_navigation(url="**/ohif/monai-label**", timeout=WAIT_MS):
        viewer.page.click("#slicecast #next")
    viewer.wait_for_volume()
    viewer.page.wait_for_selector(f"#slicecast #name:text-is('{SECOND_CASE}')", timeout=WAIT_MS)
