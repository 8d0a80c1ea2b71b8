"""The steps of docs/clients/ohif.md, followed in a browser: two structures on two cases, submitted and exported."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clinic import PICTURES, SECOND_CASE, Place, dice, inside, labelling, served_uids, truth_on, write_nifti_studies
from viewer import WAIT_MS, Viewer

from slicecast.volume import read_volume
from slicecast_lab.generated.sample_data import DICOM_CASE

pytestmark = pytest.mark.browser

CASES = {DICOM_CASE: ("spleen", "liver"), SECOND_CASE: ("kidney_left", "liver")}
"""Each case with its structures, in the order in which they are run."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    """A server on two NIfTI files, one of which is stored as RAS."""
    folder = tmp_path_factory.mktemp("readme")
    with labelling(write_nifti_studies(folder / "studies"), folder) as place:
        yield place


@pytest.fixture
def viewer(page, place) -> Viewer:
    """The viewer."""
    return Viewer(page, place.url, PICTURES / "readme")


def open_from_the_list(viewer: Viewer, case: str) -> None:
    """README 1: open the list, choose a study, and open it in the mode MONAI Label."""
    viewer.page.goto(f"{viewer.url}/ohif/", timeout=WAIT_MS)
    viewer.page.get_by_text(case, exact=True).first.click()
    viewer.page.locator("[data-cy^='mode-monai-label']").first.click()
    viewer.wait_for_volume()
    viewer.connect()


def submit(viewer: Viewer, case: str) -> dict[str, int]:
    """README 3: press Submit on the case's page; return the voxels that it lists."""
    viewer.page.goto(f"{viewer.url}/campaign/", timeout=WAIT_MS)
    viewer.page.locator(f"a.case:text-is('{case}')").first.click()
    listed = structures(viewer)
    viewer.page.wait_for_load_state("networkidle")
    viewer.page.screenshot(path=viewer.pictures / f"{case}-submit.png", full_page=True)
    with viewer.page.expect_navigation():
        viewer.page.click("[data-action=submit]")
    return listed


def structures(viewer: Viewer) -> dict[str, int]:
    """Return the voxels of each structure that a case's page lists."""
    viewer.page.wait_for_selector("#structures")
    rows = [row.split("\t") for row in viewer.page.locator("#structures tbody tr").all_inner_texts()]
    return {name: int(voxels) for name, voxels, *_ in rows}


LISTED = "() => window.services.displaySetService.getActiveDisplaySets().map((set) => set.Modality)"
"""What the viewer lists of the study."""

STACK = """() => {
    const all = window.cornerstone?.getRenderingEngines().flatMap((engine) => engine.getViewports());
    const viewport = all?.find((one) => one.getCurrentImageIdIndex?.() > 0);
    return viewport ? [viewport.getCamera().viewUp.map(Math.round), viewport.getCurrentImageIdIndex()] : null;
}"""
"""What is above on the stack that is shown, and the place of its slice."""

THUMBNAILS_FIRST = """const timer = setInterval(() => {
    if (!window.cornerstone?.isCornerstoneInitialized?.()) return;
    clearInterval(timer);
    new window.cornerstone.RenderingEngine('_thumbnails');
}, 1);"""
"""The engine of thumbnails comes before that of the views, as on a slow machine."""


def test_two_structures_on_two_cases_give_two_labels(viewer, place, tmp_path):
    seen, quality = {}, {}
    for case, names in CASES.items():
        open_from_the_list(viewer, case)
        viewer.point_prompts("sam2")
        # The others of SAM 2 would not be told the label.
        assert viewer.models() == ["sam2", "ct_sam3d_nano", "sam2_nano+ct_sam3d_nano"]
        grid = viewer.grid()
        truth = {name: truth_on(grid, case, name) for name in names}
        for name in names:
            viewer.choose(name)
            viewer.click_voxel(inside(truth[name]))
            assert viewer.run().status == 200
        viewer.picture(f"{case}-run")
        shown, numbers = viewer.labelmap()
        seen[case] = {name: shown == numbers[name] for name in names}
        quality.update({(case, name): dice(seen[case][name], truth[name]) for name in names})
        listed = submit(viewer, case)
        assert listed == {name: int(mask.sum()) for name, mask in seen[case].items()}

    exported(place, tmp_path / "set")
    numbers = json.loads((tmp_path / "set" / "dataset.json").read_text())["labels"]
    assert list(numbers) == ["background", "liver", "spleen", "kidney_left"]
    for case, names in CASES.items():
        label = read_volume(next(tmp_path.rglob(f"labelsTr/{case}*")))
        for name in names:
            found = label.array == numbers[name]
            assert found.sum() == seen[case][name].sum()
            assert dice(found, truth_on(label.geometry, case, name)) == pytest.approx(quality[case, name])
        assert set(np.unique(label.array)) == {0, *(numbers[name] for name in names)}


def exported(place: Place, folder: Path) -> None:
    """Write what was submitted as a training set."""
    command = [sys.executable, "-m", "slicecast.cli.main", "campaign", "export", "--studies", place.folder / "studies"]
    subprocess.run([*command, "--out", folder, "--modality", "CT"], check=True, capture_output=True)


def test_work_goes_on_from_the_label(viewer, place):
    """Needs the labels of the test above."""
    viewer.page.goto(f"{viewer.url}/campaign/case/{SECOND_CASE}", timeout=WAIT_MS)
    before = structures(viewer)
    with viewer.page.expect_navigation(url="**/ohif/monai-label**", timeout=WAIT_MS):
        viewer.page.get_by_text("Open in OHIF", exact=True).click()
    viewer.wait_for_volume()
    viewer.connect()
    shown, numbers = viewer.labelmap()
    assert {name: int((shown == numbers[name]).sum()) for name in before} == before
    viewer.point_prompts("sam2")
    viewer.choose("spleen")
    viewer.click_voxel(inside(truth_on(viewer.grid(), SECOND_CASE, "spleen")))
    viewer.run()
    viewer.picture("third-structure")
    viewer.page.goto(f"{viewer.url}/campaign/case/{SECOND_CASE}", timeout=WAIT_MS)
    now = structures(viewer)
    assert set(now) == {*before, "spleen"} and {name: now[name] for name in before} == before

    there = viewer.page.get_by_text("Open in OHIF there").first
    axis, number = there.get_attribute("data-at").split(":")
    assert axis == "axial" and f"({number} in OHIF)" in viewer.page.inner_text("main")
    viewer.page.screenshot(path=viewer.pictures / "case.png", full_page=True)
    with viewer.page.expect_navigation(url="**/ohif/monai-label**", timeout=WAIT_MS):
        there.click()
    viewer.wait_for_volume()
    viewer.connect()
    viewer.picture("at-the-slice")
    assert viewer.page.evaluate(LISTED) == ["CT"], "a SEG would open in black views"
    assert viewer.slice_number() == f"{number}/34"


def test_a_file_stands_upright_in_the_viewers_own_mode(viewer, place):
    uid = served_uids(place.url)[DICOM_CASE]
    viewer.page.add_init_script(THUMBNAILS_FIRST)
    viewer.page.goto(f"{viewer.url}/ohif/viewer?StudyInstanceUIDs={uid}", timeout=WAIT_MS)
    up, index = viewer.page.wait_for_function(STACK, timeout=WAIT_MS).json_value()
    viewer.picture("upright")
    assert up == [0, -1, 0] and index == 12, "the front is above, and it opens in the middle"
