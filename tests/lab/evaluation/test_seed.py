"""Each quirk of the published protocol, on volumes small enough to check by hand."""

import contextlib

import numpy as np
import pytest
from builders import grid
from nets import tiny_video_model

from slicecast.errors import ConfigError, PromptError
from slicecast.volume import Reorientation, SliceAxis, Volume
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import CaseFiles, TruthCase
from slicecast_lab.evaluation.seed import (
    choose_click,
    clip_range,
    evaluate_seed,
    evaluate_seed_case,
    plain_surface_dice,
    pole,
    to_frame,
)
from slicecast_lab.evaluation.settings import SeedSettings
from slicecast_lab.evaluation.video import VideoTracker

WIDTH, HEIGHT, DEPTH = 44, 36, 12


@pytest.fixture(scope="module")
def tracker() -> VideoTracker:
    return VideoTracker(tiny_video_model())


def block(*, first: int = 2, last: int = 9, side: int = 18) -> TruthCase:
    """A bright block on noise; its truth has `side` x `side` voxels on each of its slices."""
    truth = np.zeros((DEPTH, HEIGHT, WIDTH), dtype=bool)
    truth[first : last + 1, 6 : 6 + side, 20 : 20 + side] = True
    array = (truth * 200 + np.random.default_rng(0).normal(0, 5, truth.shape)).astype(np.float32)
    volume = Volume(array, grid((WIDTH, HEIGHT, DEPTH)))
    files = CaseFiles("block", None, None, (), "block")
    return TruthCase(files, volume, truth, Reorientation.of(volume.geometry), SliceAxis.AXIAL)


class Recorder:
    """Answers nothing anywhere, and writes down what it is asked."""

    def __init__(self, *, answer: np.ndarray | None = None) -> None:
        self.frames: list[np.ndarray] = []
        self.asked: list[tuple] = []
        self.answer = answer

    @contextlib.contextmanager
    def open(self, frames):
        self.frames = list(frames)
        yield self

    def _logits(self, frame):
        return np.full(self.frames[frame].shape, -1, np.float32) if self.answer is None else self.answer

    def click(self, frame, points_xy, labels):
        self.asked.append(("click", frame, tuple(points_xy), tuple(labels)))
        return self._logits(frame)

    def paint(self, frame, mask):
        self.asked.append(("paint", frame, int(mask.sum())))
        return self._logits(frame)

    def propagate(self, *, start=None, reverse=False):
        self.asked.append(("propagate", start, reverse))
        first = len(self.frames) // 2 if start is None else start
        places = (range(first, -1, -1) if start else []) if reverse else range(first, len(self.frames))
        return [(frame, self._logits(frame)) for frame in places]


def run(case, tracker, **settings):
    return evaluate_seed_case(case, tracker, SeedSettings(**settings), np.random.default_rng(0))


def test_every_slice_is_stretched_on_its_own():
    faint, strong = np.array([[10, 11], [12, 14]]), np.array([[0, 1000], [2000, 4000]])
    assert np.array_equal(to_frame(faint), to_frame(strong))
    assert to_frame(faint).tolist() == [[0, 63], [127, 255]] and to_frame(faint).dtype == np.uint8
    assert not to_frame(np.full((2, 2), 7)).any()


def test_the_last_salient_slice_is_dropped():
    truth = np.zeros((8, 20, 20), dtype=bool)
    truth[1, :8, :8] = truth[6, :8, :8] = True  # 64 voxels: not salient
    truth[2:6, :17, :17] = True  # 289 voxels
    truth[4] = False  # inside: stays in the clip
    assert clip_range(truth, salient=256, rng=np.random.default_rng(0)) == (2, 5)
    assert clip_range(truth, salient=63, rng=np.random.default_rng(0)) == (1, 6)


def test_salient_means_more_than_the_threshold():
    truth = np.zeros((3, 16, 16), dtype=bool)
    truth[:] = True  # exactly 256
    with pytest.raises(PromptError, match="256"):
        clip_range(truth, salient=256, rng=np.random.default_rng(0))
    assert clip_range(truth, salient=255, rng=np.random.default_rng(0)) == (0, 2)


def test_one_salient_slice_leaves_nothing():
    truth = np.zeros((3, 20, 20), dtype=bool)
    truth[1] = True
    with pytest.raises(PromptError, match="drops the last"):
        clip_range(truth, salient=256, rng=np.random.default_rng(0))


def test_without_a_threshold_slices_are_added_at_both_ends():
    truth = np.zeros((60, 4, 4), dtype=bool)
    truth[25:35, 0, 0] = True
    ranges = [clip_range(truth, salient=0, rng=np.random.default_rng(n)) for n in range(50)]
    assert {25 - first for first, _ in ranges} == {stop - 34 for _, stop in ranges} == {5, 6, 7, 8, 9}
    assert clip_range(truth[22:37], salient=0, rng=np.random.default_rng(0)) == (0, 15)


def test_frames_are_seen_as_i_j_along_the_last_stored_axis():
    recorder = Recorder()
    run(block(), recorder)
    assert len(recorder.frames) == 9 - 2 and recorder.frames[0].shape == (WIDTH, HEIGHT)
    assert recorder.frames[0][20 + 9, 6 + 9] > 150


def test_the_prompt_goes_to_the_middle_of_the_clip_and_back_without_a_reset():
    recorder = Recorder()
    result = run(block(), recorder)
    assert recorder.asked == [("paint", 3, 18 * 18), ("propagate", None, False), ("propagate", 2, True)]
    assert (result.slices, result.prompted, result.visited) == ((2, 9), 3, 7)


def test_with_the_prompt_on_slice_one_slice_zero_is_never_visited(tracker):
    assert run(block(first=3, last=5), tracker).visited == 1  # clip of two slices, prompt on the second
    assert run(block(first=3, last=6), tracker).visited == 2


def test_the_deepest_pixel_and_the_first_of_equals():
    region = np.zeros((12, 20), dtype=bool)
    region[1:4, 1:4] = region[6:11, 10:15] = True
    assert pole(region) == (3.0, (12, 8))
    region[6:11, 2:7] = True  # as deep; its label comes first
    assert pole(region) == (3.0, (4, 8))
    assert pole(region[:5]) == (2.0, (2, 2))


def test_thin_errors_are_left_alone():
    line = np.zeros((9, 9), dtype=bool)
    line[4, 1:8] = True
    assert pole(line) == (0.0, (1, 4)) and choose_click(line, np.zeros_like(line)) is None


def test_the_image_border_counts_as_an_edge():
    corner = np.zeros((9, 9), dtype=bool)
    corner[:4, :5] = True
    assert pole(corner)[0] == 2.0


def test_a_click_is_positive_on_a_tie_and_negative_where_too_much_is_deeper():
    truth, found = np.zeros((2, 12, 24), dtype=bool)
    truth[1:6, 1:6] = found[1:6, 10:15] = True
    assert choose_click(truth, found) == ((3, 3), 1)
    found[1:8, 10:17] = True
    assert choose_click(truth, found) == ((13, 4), 0)


def test_all_clicks_are_sent_again_on_the_middle_slice_only():
    recorder = Recorder()
    result = run(block(), recorder, prompt="clicks", clicks=3)
    clicks = [asked for asked in recorder.asked if asked[0] == "click"]
    assert [len(points) for _, _, points, _ in clicks] == [1, 2, 3] and {frame for _, frame, _, _ in clicks} == {3}
    assert clicks[2][2][:2] == clicks[1][2] and result.clicks_used == 3
    x, y = clicks[0][2][0]
    assert case_truth(block())[y, x]


def case_truth(case: TruthCase) -> np.ndarray:
    return case.truth[5].T


def test_who_has_no_error_left_to_click_on_stops():
    perfect = Recorder(answer=np.where(case_truth(block()), 1, -1).astype(np.float32))
    result = run(block(), perfect, prompt="clicks", clicks=5)
    assert result.clicks_used == 1 and result.dice == result.nsd == 1.0


def test_small_objects_are_skipped_with_clicks_only():
    small = block(side=10)  # 100 voxels a slice
    with pytest.raises(PromptError, match="100 voxels"):
        run(small, Recorder(), prompt="clicks", salient=50)
    assert run(small, Recorder(), salient=50).visited == 7


def test_surface_dice_is_taken_in_the_order_of_the_visits(tracker):
    case = block()
    ordered = evaluate_seed_case(case, Shifted(), SeedSettings(), np.random.default_rng(0))
    truth = np.stack([case.truth[k].T for k in range(2, 9)])
    found = np.stack([Shifted.logits(k) > 0 for k in range(7)])
    assert ordered.dice == dice(found, truth)
    straight = plain_surface_dice(found, truth, tolerance=1.0)
    visits = [3, 4, 5, 6, 2, 1, 0]
    assert ordered.nsd == plain_surface_dice(found[visits], truth[visits], tolerance=1.0) != straight


class Shifted(Recorder):
    """Finds a block that becomes smaller from slice to slice."""

    @staticmethod
    def logits(frame):
        found = np.full((WIDTH, HEIGHT), -1, np.float32)
        found[20 : 38 - 2 * frame, 6 : 24 - 2 * frame] = 1
        return found

    def _logits(self, frame):
        return self.logits(frame)


def test_a_run_with_sam2s_own_predictor(tracker):
    result = run(block(), tracker, prompt="clicks", clicks=2)
    assert 0 <= result.dice <= 1 and result.visited == 7
    assert set(result.seconds) == {"load", "prompt", "forward", "reverse"}


def test_cases_that_cannot_be_used_are_listed(folder, cases, tracker):
    done = evaluate_seed(cases, tracker, SeedSettings(salient=10_000))
    assert not done.results and set(done.skipped) == {files.id for files in cases}


@pytest.mark.parametrize("wrong", [{"prompt": "box"}, {"clicks": 0, "prompt": "clicks"}, {"salient": -1}])
def test_settings_the_protocol_does_not_have_are_refused(wrong):
    with pytest.raises(ConfigError):
        SeedSettings(**wrong)
