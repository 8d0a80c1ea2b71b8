"""Drive napari and its nnInteractive plugin as a person would: connect, send the image, click, take the click back.

Run by `test_napari.py` in a venv of its own: python drive_napari.py ADDRESS IMAGE K J I PICTURE. Prints JSON.
"""

import json
import sys
import time
from collections.abc import Callable

import napari
import numpy as np
from napari_nninteractive import nnInteractiveWidget
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

WAIT_S = 120.0


def wait(until: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not until():
        assert time.monotonic() < end, f"waited in vain: {what}"
        QApplication.processEvents()
        time.sleep(0.02)


def canvas_place(viewer: napari.Viewer, voxel: np.ndarray) -> QPoint:
    """Return where on the canvas a voxel of the shown slice is."""
    canvas = viewer.window._qt_viewer.canvas
    world = viewer.layers[0].data_to_world(voxel)
    shown = [world[axis] for axis in viewer.dims.displayed][::-1]
    x, y = canvas.view.scene.transform.map([*shown, 0, 1])[:2]
    return QPoint(round(float(x)), round(float(y)))


def main(address: str, image: str, voxel: np.ndarray, picture: str) -> None:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 780)
    viewer.open(image, plugin="napari-nifti")
    widget = nnInteractiveWidget(viewer)
    viewer.window.add_dock_widget(widget, name="nnInteractive")
    widget.server_url_edit.setText(address)
    QTest.mouseClick(widget.init_button, Qt.MouseButton.LeftButton)
    wait(lambda: widget.point_layer_name in viewer.layers, f"the image is sent; {widget.remote_status_label.text()}")
    viewer.dims.set_point(0, viewer.layers[0].data_to_world(voxel)[0])
    viewer.reset_view()
    mask = viewer.layers[widget.label_layer_name].data
    QApplication.processEvents()
    canvas = viewer.window._qt_viewer.canvas
    QTest.mouseClick(canvas.native, Qt.MouseButton.LeftButton, pos=canvas_place(viewer, voxel))
    wait(lambda: mask.any(), "the mask")
    QApplication.processEvents()
    viewer.screenshot(picture, canvas_only=False, flash=False)
    told = {"license": widget.model_license_label.text(), "status": widget.remote_status_label.text()}
    told |= {"voxels": int(mask.sum()), "hit": bool(mask[tuple(voxel)]), "shape": mask.shape}
    np.save(f"{picture}.npy", mask)
    QTest.mouseClick(widget.undo_button, Qt.MouseButton.LeftButton)
    wait(lambda: not mask.any(), "undo")
    print(json.dumps(told))
    widget._release_session()
    viewer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], np.array([int(n) for n in sys.argv[3:6]]), sys.argv[6])
