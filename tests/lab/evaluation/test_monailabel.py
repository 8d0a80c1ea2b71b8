"""MONAI Label's own SAM 2 task as a baseline: what it is given, and that it really answers."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from slicecast.errors import ConfigError, ResourceError
from slicecast.models.registry import bundled_spec
from slicecast.volume import choose_window, normalise
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation import monailabel
from slicecast_lab.evaluation.monailabel import MonaiLabelAnswer, MonaiLabelProcess, answer_lines, segment_case
from slicecast_lab.evaluation.prompts import pick_slice, play
from slicecast_lab.evaluation.run import evaluate
from slicecast_lab.evaluation.settings import Settings
from slicecast_lab.evaluation.video import load_video_tracker


class Recorder:
    """Answers with everything that is bright, and keeps what it was given."""

    def write_scan(self, frames):
        self.frames = frames
        return frames

    def segment(self, scan, *, foreground=(), background=(), box=()):
        self.given = {"foreground": foreground, "background": background, "box": box}
        return MonaiLabelAnswer(scan > 0.6, 0.1, 1)


def prompts_of(case, service, **settings):
    return play(case, service, Settings(**settings), pick_slice(case, "largest"))[-1].prompts


def shown(case, number):
    return case.slices(case.truth).slice(number)


def test_slices_are_windowed_and_the_answer_lies_where_they_were(case, service):
    recorder = Recorder()
    answer = segment_case(recorder, case, prompts_of(case, service))
    stack, window = case.slices(case.volume.array), choose_window(case.volume)
    assert recorder.frames.shape[0] == stack.count and recorder.frames.max() <= 1
    assert answer.mask.shape == case.truth.shape
    assert np.array_equal(answer.mask, normalise(case.volume.array, window) > 0.6)


@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_a_painted_slice_is_given_as_the_box_around_it(case, service, prompt):
    recorder, number = Recorder(), pick_slice(case, "largest")
    segment_case(recorder, case, prompts_of(case, service, prompt=prompt))
    x0, y0, x1, y1, n = recorder.given["box"]
    assert n == number and not recorder.given["foreground"]
    inside = np.zeros_like(shown(case, number))
    inside[y0 : y1 + 1, x0 : x1 + 1] = True
    truth = shown(case, number)
    assert not (truth & ~inside).any()
    assert truth[y0].any() and truth[y1].any() and truth[:, x0].any() and truth[:, x1].any()


def test_clicks_are_given_as_they_were(case, service):
    recorder, number = Recorder(), pick_slice(case, "largest")
    segment_case(recorder, case, prompts_of(case, service, prompt="clicks", clicks=3))
    points = recorder.given["foreground"]
    assert points and all(n == number and shown(case, number)[y, x] for x, y, n in points)
    assert all(n == number and not shown(case, number)[y, x] for x, y, n in recorder.given["background"])


def test_the_baseline_needs_its_process(cases, service):
    with pytest.raises(ConfigError, match="MonaiLabelProcess"):
        evaluate(cases, service, Settings(baselines=("monailabel",)))


def test_the_baseline_is_scored_with_the_others(cases, service):
    done = evaluate(cases[:1], service, Settings(baselines=("copy", "monailabel")), monailabel=Recorder())
    assert list(done.results[0].baselines) == ["copy", "monailabel"]


def test_what_the_process_said_last_is_in_the_error(monkeypatch, tmp_path):
    monkeypatch.setattr(monailabel, "WORKER", "slicecast.nothing_of_that_name")
    with pytest.raises(ResourceError, match="nothing_of_that_name"), MonaiLabelProcess() as process:
        process.segment(process.write_scan(np.zeros((3, 8, 8), np.float32)), foreground=[(1, 1, 1)])


@pytest.mark.slow
def test_the_real_task_tracks_forward_as_sam2s_own_predictor_does():
    """Same frames, same click, same weights; the one difference is grey JPEG here and RGB JPEG there."""
    frames = np.random.default_rng(0).random((5, 40, 56), dtype=np.float32) / 4
    frames[:, 8:30, 10:40] += 0.6
    with MonaiLabelProcess("sam2_nano", threads=1) as process:
        scan = process.write_scan(frames)
        answer = process.segment(scan, foreground=[(22, 15, 2)], background=[(50, 35, 2)])
        again = process.segment(scan, foreground=[(22, 15, 2)], background=[(50, 35, 2)])
    seen = [np.clip(frame.T * 255, 0, 255).astype(np.uint8) for frame in frames]  # its rows are i
    with load_video_tracker(bundled_spec(), device="cpu").open(seen) as clip:
        clip.click(2, [(15, 22), (35, 50)], [1, 0])
        wanted = np.zeros(frames.shape, dtype=bool)
        for frame, logits in clip.propagate():
            wanted[frame] = logits.T > 0
    assert wanted[2:].any() and not answer.mask[:2].any()
    assert dice(answer.mask, wanted) > 0.9
    assert np.array_equal(answer.mask, again.mask)
    assert answer.seconds > 0 and answer.peak_rss_mib > 100


class Bright:
    """Finds what is bright."""

    def segment(self, request):
        return sitk.GetArrayFromImage(sitk.ReadImage(request["image"])) > 0


@pytest.fixture
def request_line(tmp_path) -> dict:
    scan = np.zeros((3, 40, 48), dtype=np.float32)
    scan[:, 10:25, 10:30] = 200
    sitk.WriteImage(sitk.GetImageFromArray(scan), tmp_path / "scan.nii.gz")
    points = {"foreground": [[20, 17, 1]], "background": [], "roi": []}
    return {"image": str(tmp_path / "scan.nii.gz"), "mask": str(tmp_path / "mask.npy"), **points}


def test_every_line_is_answered_with_a_mask_and_what_it_cost(request_line):
    answers = io.StringIO()
    answer_lines(Bright(), io.StringIO(f"{json.dumps(request_line)}\n" * 2), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert set(first) == set(second) == {"seconds", "peak_rss_mib"} and first["peak_rss_mib"] > 10
    assert np.load(request_line["mask"]).sum() == 3 * 15 * 20


@pytest.mark.slow
def test_it_answers_without_network_and_leaves_running_servers_caches_alone(request_line, tmp_path):
    """Importing the module empties the cache folder in the home directory, unless it is told of another."""
    other = tmp_path / "home" / ".cache" / "monailabel" / "sam2" / "frames_of_a_running_server"
    other.mkdir(parents=True)
    words = [sys.executable, "-m", "slicecast_lab.evaluation.monailabel", "--model", "sam2_nano", "--threads", "1"]
    done = subprocess.run(
        words,
        input=json.dumps(request_line) + "\n",
        env={**os.environ, "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["seconds"] > 0
    assert np.load(Path(request_line["mask"])).shape == (3, 40, 48)
    assert other.is_dir()
