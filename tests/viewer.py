"""OHIF's MONAI Label mode in a browser, driven as a user would; voxels are read back from the viewer's own memory."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slicecast.volume import Geometry

WAIT_MS = 180_000
"""SwiftShader draws without a GPU, on whatever cores are left."""

AXIAL = "window.cornerstone?.getRenderingEngines().map((one) => one.getViewport('mpr-axial')).find(Boolean)"
"""The axial view; thumbnails have an engine of their own, which on a slow machine is the first."""

VOLUME = f"""() => {{
    const viewport = {AXIAL};
    const volume = viewport && window.cornerstone.cache.getVolume(viewport.getVolumeId?.() ?? '');
    return volume?.loadStatus?.loaded ? volume.dimensions : null;
}}"""
"""Size (i, j, k) of the loaded volume, or null."""

GRID = f"""() => {{
    const viewport = {AXIAL};
    const {{dimensions, spacing, origin, direction}} = window.cornerstone.cache.getVolume(viewport.getVolumeId());
    return [dimensions, spacing, origin, direction].map((numbers) => Array.from(numbers));
}}"""
"""Where the volume's voxels lie in the patient."""

SHOW_VOXEL = f"""(ijk) => {{
    const viewport = {AXIAL};
    const volume = window.cornerstone.cache.getVolume(viewport.getVolumeId());
    const world = volume.imageData.indexToWorld(ijk);
    const camera = viewport.getCamera();
    const depth = camera.viewPlaneNormal.reduce((sum, n, a) => sum + n * (world[a] - camera.focalPoint[a]), 0);
    const moved = (point) => point.map((value, a) => value + depth * camera.viewPlaneNormal[a]);
    viewport.setCamera({{focalPoint: moved(camera.focalPoint), position: moved(camera.position)}});
    viewport.render();
    const [x, y] = viewport.worldToCanvas(world);
    const box = viewport.element.getBoundingClientRect();
    return [box.x + x, box.y + y];
}}"""
"""Bring a voxel's slice to the front; return where on the page the voxel is."""

LABELMAP = """() => {
    const volume = window.services.segmentationService.getLabelmapVolume('1');
    if (!volume) return null;
    const data = Uint8Array.from(volume.voxelManager.getCompleteScalarDataArray());
    let text = '';
    for (let start = 0; start < data.length; start += 32768)
        text += String.fromCharCode(...data.subarray(start, start + 32768));
    const {segments, config} = window.services.segmentationService.getSegmentation('1');
    const names = Object.fromEntries(Object.values(segments ?? config.segments).map((s) => [s.label, s.segmentIndex]));
    return {voxels: btoa(text), size: volume.dimensions, names};
}"""
"""The labelmap that the viewer shows, and the number of each label in it."""


@dataclass
class Viewer:
    """One page of OHIF.

    Args:
        page: of the browser.
        url: of the labelling server, without a slash at the end.
        pictures: folder for screenshots.
    """

    page: Any
    url: str
    pictures: Path

    def open(self, study_uid: str) -> tuple[int, int, int]:
        """Open a study in the mode MONAI Label; return the volume's size (i, j, k)."""
        self.page.goto(f"{self.url}/ohif/monai-label?StudyInstanceUIDs={study_uid}", timeout=WAIT_MS)
        return self.wait_for_volume()

    def wait_for_volume(self) -> tuple[int, int, int]:
        """Wait until every slice is loaded."""
        size = self.page.wait_for_function(VOLUME, timeout=WAIT_MS).json_value()
        notice = self.page.get_by_role("button", name="Confirm and Hide")
        if notice.is_visible():
            notice.click()
        return tuple(size)

    def grid(self) -> Geometry:
        """Return where the viewer's voxels lie in the patient."""
        size, spacing, origin, direction = self.page.evaluate(GRID)
        rows = np.array(direction).reshape(3, 3)  # one axis a row; ours are columns
        return Geometry(tuple(size), tuple(spacing), tuple(origin), rows.T)

    def connect(self) -> None:
        """Wait until the panel has connected by itself, and shows what there is of the case."""
        self.page.get_by_text("Point Prompts").wait_for(timeout=WAIT_MS)
        self.page.wait_for_timeout(3000)  # the panel colours its segments one second after it has connected

    def server(self) -> str:
        """Return what the panel's address field says."""
        return self.page.locator("#monailabelServerURL").input_value()

    def point_prompts(self, model: str) -> None:
        """Open Point Prompts and choose a model."""
        self.page.locator("label.tab-label", has_text="Point Prompts").click()
        self._tab("Point Prompts").locator("select").select_option(model)

    def models(self) -> list[str]:
        """Return the models that Point Prompts offers."""
        return list(self._tab("Point Prompts").locator("select option").evaluate_all("all => all.map((o) => o.value)"))

    def choose(self, label: str) -> None:
        """Choose the label that is clicked for."""
        row = self._tab("Point Prompts").locator("tr.clickable-row", has_text=label).first
        row.click()
        self.page.wait_for_function("(row) => row.style.backgroundColor !== 'transparent'", arg=row.element_handle())

    def click_voxel(self, ijk: tuple[int, int, int]) -> None:
        """Click on a voxel in the axial view."""
        x, y = self.page.evaluate(SHOW_VOXEL, list(ijk))
        self.page.wait_for_timeout(500)
        self.page.mouse.move(x, y)
        self.page.mouse.click(x, y)
        self.page.wait_for_timeout(500)

    def show(self, ijk: tuple[int, int, int]) -> None:
        """Bring a voxel's slice to the front."""
        self.page.evaluate(SHOW_VOXEL, list(ijk))
        self.page.wait_for_timeout(1000)

    def run(self) -> Any:
        """Press Run; return the server's answer once the viewer has it."""
        button = self._tab("Point Prompts").get_by_title("Run PointPrompts")
        with self.page.expect_response(lambda answer: "/infer/" in answer.url, timeout=WAIT_MS) as caught:
            button.click()
        self.page.wait_for_timeout(3000)  # the viewer copies the mask and draws
        return caught.value

    def next_sample(self) -> dict[str, Any]:
        """Press Next Sample; return what the server chose."""
        self.page.locator("label.tab-label", has_text="Active Learning").click()
        with self.page.expect_response(lambda answer: "/activelearning/" in answer.url, timeout=WAIT_MS) as caught:
            self.page.get_by_role("button", name="Next Sample").click()
        return dict(caught.value.json())

    def accept_sample(self) -> tuple[int, int, int]:
        """Press OK in the dialog; the page goes to the study that was chosen."""
        self.page.on("dialog", lambda dialog: dialog.accept())
        with self.page.expect_navigation(timeout=WAIT_MS):
            self.page.get_by_role("button", name="OK").click()
        return self.wait_for_volume()

    def labelmap(self) -> tuple[np.ndarray, dict[str, int]]:
        """Return the shown labelmap, uint8 [k, j, i], and the number of each label."""
        shown = self.page.evaluate(LABELMAP)
        flat = np.frombuffer(base64.b64decode(shown["voxels"]), dtype=np.uint8)
        return flat.reshape(shown["size"][::-1]), shown["names"]

    def slice_number(self) -> str:
        """Return the number of the axial slice as the viewer writes it, such as 26/34."""
        return re.findall(r"\d+/\d+", self.page.locator("[data-cy=viewport-pane]").first.inner_text())[-1]

    def picture(self, name: str) -> Path:
        """Keep a screenshot."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        path = self.pictures / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def _tab(self, title: str) -> Any:
        return self.page.locator("div.tab", has=self.page.locator("label.tab-label", has_text=title))
