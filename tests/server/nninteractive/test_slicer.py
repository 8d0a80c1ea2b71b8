"""The requests of 3D Slicer's extension nnInteractive 1.0, in its order, without Slicer: a segment is a numpy array.

Arrays are [k, j, i] and spacings too, as `arrayFromVolume` has them. Before the first prompt on a segment, after a
switch or a change from outside, the extension resets the prompts and sends the segment's mask, unless that is empty.
"""

import numpy as np
import pytest
from builders import phantom
from nnclient import Session, SessionExpiredError

from slicecast.volume.metrics import dice

PHANTOM = phantom()
IMAGE, TRUTH = PHANTOM.volume.array, PHANTOM.truth
Z, Y, X = (int(n) for n in np.argwhere(TRUTH).mean(axis=0).round())


class Slicer:
    """The extension: a session, segments, and which of them is selected."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.segments = {"Segment_1": np.zeros(IMAGE.shape, np.uint8)}
        self.selected = "Segment_1"
        self._synced = None

    def test_connection(self) -> None:
        Session(self._address).close()

    def initialize(self) -> None:
        self.session = Session(self._address)
        self.session.set_do_autozoom(True)
        self.session.set_image(np.ascontiguousarray(IMAGE[None]), {"spacing": [1.0, 1.0, 1.0]})
        self._buffer = np.zeros(IMAGE.shape, np.uint8)
        self.session.set_target_buffer(self._buffer)
        self._seed()

    def uninitialize(self) -> None:
        self.session.close()

    def prompt(self, call: str, *given, **more) -> None:
        if self._synced != self._fingerprint():
            self._seed()
        self._apply(getattr(self.session, call)(*given, **more))

    def undo(self) -> bool:
        undone = self.session.undo()
        if undone:
            self._apply(self.session._last_paste_bbox)
        return undone

    def next_segment(self) -> None:
        self.session.reset_interactions()
        self.selected = f"Segment_{len(self.segments) + 1}"
        self.segments[self.selected] = np.zeros(IMAGE.shape, np.uint8)
        self._synced = None

    def select(self, name: str) -> None:
        self.session.reset_interactions()
        self.selected, self._synced = name, None

    @property
    def mask(self) -> np.ndarray:
        return self.segments[self.selected]

    def _seed(self) -> None:
        self.session.reset_interactions()
        if self.mask.any():
            self.session.add_initial_seg_interaction(self.mask.copy(), run_prediction=False)
        self._synced = self._fingerprint()

    def _fingerprint(self) -> tuple[str, int]:
        return self.selected, hash(self.mask.tobytes())

    def _apply(self, bounds) -> None:
        if bounds is not None:  # only what has changed is written into the segment
            place = tuple(slice(*bound) for bound in bounds)
            self.mask[place] = self._buffer[place]
        self._synced = self._fingerprint()


@pytest.fixture
def slicer(server):
    found = Slicer(f"{server[0]}/nninteractive")
    found.test_connection()
    found.initialize()
    yield found
    found.uninitialize()


def around(mask):
    """Return a crop of a mask and its bounds, as the extension sends strokes."""
    bounds = [[int(n.min()), int(n.max()) + 1] for n in np.nonzero(mask)]
    return mask[tuple(slice(*bound) for bound in bounds)].astype(np.uint8), bounds


def test_two_segments_a_correction_and_back_again(slicer):
    slicer.prompt("add_point_interaction", [Z, Y, X], True)
    slicer.prompt("add_point_interaction", [Z, 1, 1], False)
    first = slicer.mask.copy()
    assert dice(first == 1, TRUTH) > 0.8
    slicer.next_segment()
    slicer.prompt("add_bbox_interaction", [[Z, Z + 1], [Y - 6, Y + 7], [X - 6, X + 7]], True)
    assert dice(slicer.mask == 1, TRUTH) > 0.8 and slicer.undo() and not slicer.mask.any()
    assert (slicer.segments["Segment_1"] == first).all()
    slicer.select("Segment_1")
    stroke = np.zeros(IMAGE.shape, np.uint8)
    stroke[Z, Y, X - 2 : X + 3] = 1
    crop, bounds = around(stroke)
    slicer.prompt("add_scribble_interaction", crop, True, interaction_bbox=bounds)
    assert dice(slicer.mask == 1, TRUTH) > 0.8
    assert slicer.undo() and (slicer.mask == first).all()


def test_what_is_painted_in_slicer_stands(slicer):
    slicer.prompt("add_point_interaction", [Z, Y, X], True)
    slicer.mask[Z + 4, Y - 1 : Y + 2, X - 1 : X + 2] = 1
    slicer.mask[Z - 4, Y, X] = 0
    painted = slicer.mask.copy()
    slicer.prompt("add_point_interaction", [Z, Y, X + 1], True)
    assert (slicer.mask[Z + 4] == painted[Z + 4]).all() and (slicer.mask[Z - 4] == painted[Z - 4]).all()


def test_after_a_lost_connection_the_prompts_are_there_and_what_was_painted_since(slicer, server):
    slicer.prompt("add_point_interaction", [Z, Y, X], True)
    slicer.prompt("add_point_interaction", [Z, 1, 1], False)
    server[1].state.nninteractive.leases.end_all()
    with pytest.raises(SessionExpiredError):
        slicer.prompt("add_point_interaction", [Z, Y, X + 1], True)
    slicer.uninitialize()
    slicer.mask[Z + 3, Y - 2 : Y + 3, X - 2 : X + 3] = 1
    slicer.mask[Z + 3, 0, 0] = 1
    before = slicer.mask.copy()
    slicer.initialize()
    slicer.prompt("add_point_interaction", [Z - 2, Y, X], True)
    assert (slicer.mask[Z + 3] == before[Z + 3]).all()
    assert slicer.undo() and (slicer.mask == before).all()
    state = server[1].state.sessions.sessions.list()[-1]
    assert [type(prompt.item).__name__ for prompt in state.prompts] == ["Point", "Point", "Painted"]
