"""A browser, a PACS, and generated DICOM studies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clinic import CHROMIUM_FLAGS, PICTURES, find_chromium, find_orthanc, running_orthanc, write_dicom_studies

INSTALL = "; `make test-browser` installs it where it may"
PATIENCE_MS = 180_000
"""Chromium draws without a GPU, on whatever cores are left."""
HARMLESS = "getRegistrations"
"""OHIF looks for service workers, which a browser has on encrypted or local pages only; it goes on without."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window; one for all tests of a process, for it takes most of a core."""
    sync_api = pytest.importorskip("playwright.sync_api", reason=f"playwright is not installed{INSTALL}")
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(f"no chromium on the PATH{INSTALL}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, request) -> Iterator[Any]:
    """A page whose script errors fail the test; its last state is kept as a picture."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{request.node.name}-end.png")
    context.close()
    assert [error for error in errors if HARMLESS not in error] == []


@pytest.fixture(scope="session")
def dicom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generated CT series."""
    return write_dicom_studies(tmp_path_factory.mktemp("dicom") / "studies")


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory, dicom_folder: Path) -> Iterator[str]:
    """Orthanc with those series; its DICOMweb address."""
    program = find_orthanc()
    if program is None:
        pytest.skip(f"no Orthanc with the DICOMweb plugin{INSTALL}")
    with running_orthanc(program, dicom_folder, tmp_path_factory.mktemp("orthanc")) as address:
        yield address
