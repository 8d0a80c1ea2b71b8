"""The step without branches against SAM 2's own building blocks, and compiled graphs against PyTorch."""

import logging
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from slicecast.engine.ports import Bank, ModelPrompt, PromptJob, TrackJob
from slicecast.models import graphs
from slicecast.models.graphs import compile_graphs
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2 import Sam2Predictor, load_predictor
from slicecast.models.sam2_graphs import TrackGraph

TOLERANCE = 1e-4
COUNT = 9

needs_openvino = pytest.mark.skipif(not graphs.available(), reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _caches(home, monkeypatch):
    monkeypatch.setenv("SLICECAST_HOME", str(home))


@pytest.fixture(scope="module")
def bundled():
    return load_predictor(bundled_spec(), device="cpu")


@pytest.fixture(scope="module")
def stock(bundled):
    """The same network by SAM 2's own building blocks."""
    predictor = Sam2Predictor(bundled.network, dense_prompts=True, appearance_prior=True)
    predictor._flat = None
    return predictor


@pytest.fixture(scope="module")
def compiled(bundled, home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLICECAST_HOME", str(home))
        return load_predictor(bundled_spec(), device="cpu", openvino=True)


def jobs_of_unlike_tracks(predictor):
    """Return jobs of five tracks: of one memory to nine, with and without an anchor ahead, with and without
    a prior and a bias."""
    rng = np.random.default_rng(0)
    grid = np.mgrid[:128, :128] / 128
    frames = np.stack([((grid[0] - 0.5) ** 2 + (grid[1] - 0.4 - n / 100) ** 2 < 0.06) for n in range(COUNT)])
    frames = (0.6 * frames + 0.3 * rng.random(frames.shape)).astype(np.float32)
    encoded = predictor.encode(frames)
    click = ModelPrompt(np.array([[52, 64]], dtype=np.float32), np.array([1], dtype=np.int32))
    anchors = predictor.prompt([PromptJob(encoded[n], click) for n in (0, COUNT - 1)], num_slices=COUNT)
    bank = Bank(((0, anchors[0].memory),))
    jobs = [TrackJob(encoded[1], bank)]
    for number in range(1, COUNT - 1):
        found = predictor.track([TrackJob(encoded[number], bank)], num_slices=COUNT)[0]
        bank = bank.push(found.memory, keep=predictor.memory_length)
        jobs.append(TrackJob(encoded[number + 1], bank))
    towards = replace(jobs[2].bank, anchors=(*bank.anchors, (1 << 20, anchors[1].memory)))
    prior = rng.normal(size=(128, 128)).astype(np.float32)
    return [
        jobs[0],
        jobs[3],
        TrackJob(jobs[2].embedding, towards),
        replace(jobs[4], prior=prior),
        replace(jobs[-1], bias=0.7),
    ]


def assert_alike(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one.logits - other.logits).max() <= TOLERANCE
        assert abs(one.predicted_iou - other.predicted_iou) <= TOLERANCE
        assert abs(one.object_score - other.object_score) <= TOLERANCE
        mine, another = one.memory.memory.features.float(), other.memory.memory.features.float()
        assert ((mine - another).abs() <= TOLERANCE + another.abs() / 64).all()  # two steps of bfloat16
        assert (one.memory.memory.pointer - other.memory.memory.pointer).abs().max() <= TOLERANCE


def test_one_batch_of_unlike_tracks_equals_sam2s_building_blocks(bundled, stock):
    jobs = jobs_of_unlike_tracks(bundled)
    theirs = stock.track(jobs, num_slices=COUNT)
    assert_alike(bundled.track(jobs, num_slices=COUNT), theirs)
    assert all((seen.logits > 0).any() for seen in theirs)  # there is something to compare
    assert all(np.abs(one.logits - other.logits).max() > TOLERANCE for one, other in pairwise(theirs))


@needs_openvino
def test_compiled_graphs_equal_pytorch(compiled, bundled):
    jobs = jobs_of_unlike_tracks(bundled)
    assert_alike(compiled.track(jobs, num_slices=COUNT), bundled.track(jobs, num_slices=COUNT))
    frames = np.random.default_rng(1).random((7, 128, 128), dtype=np.float32)
    for one, other in zip(compiled.encode(frames), bundled.encode(frames), strict=True):
        for mine, another in zip(one.features.maps, other.features.maps, strict=True):
            assert (mine - another).abs().max() <= TOLERANCE
    assert compiled.fingerprint == bundled.fingerprint  # so that both share what is cached
    assert not any(isinstance(graph, nn.Module) for graph in (*compiled._step.values(), *compiled._encode.values()))


@needs_openvino
def test_compiled_prompts_equal_pytorch(compiled, bundled):
    tracks = jobs_of_unlike_tracks(bundled)
    said = [
        ModelPrompt(np.array([[50 + n, 60]], dtype=np.float32), np.array([n % 2], dtype=np.int32)) for n in range(5)
    ]
    alone = [PromptJob(job.embedding, words) for job, words in zip(tracks, said, strict=True)]
    before = bundled.track(tracks, num_slices=COUNT)
    corrections = [
        PromptJob(job.embedding, words, bank=job.bank, previous=seen.logits)
        for job, words, seen in zip(tracks, said, before, strict=True)
    ]
    masks = [PromptJob(tracks[0].embedding, replace(said[0], mask=np.tri(128, dtype=bool)))]
    jobs = [*alone, *corrections, *masks]
    assert_alike(compiled.prompt(jobs, num_slices=COUNT), bundled.prompt(jobs, num_slices=COUNT))
    kinds = {("click", 4), ("click", 2), ("click", 1), ("correction", 1), ("mask", 1)}
    assert compiled._prompts.keys() == kinds
    assert not any(isinstance(graph, nn.Module) for graph in compiled._prompts.values())


@needs_openvino
def test_what_was_compiled_is_found_on_the_disk(compiled, home, caplog):
    caplog.set_level(logging.INFO)
    compile_graphs("double", Doubled(), [(torch.rand(2, 3),)], key="a")
    assert "Compiling double" in caplog.text
    caplog.clear()
    (again,) = compile_graphs("double", Doubled(), [(torch.rand(2, 3),)], key="a")
    assert "Compiling" not in caplog.text
    assert torch.equal(again(torch.ones(2, 3))[0], torch.full((2, 3), 2.0))


@needs_openvino
def test_a_file_of_other_weights_or_of_nonsense_is_not_used(home, caplog):
    example = (torch.rand(2, 5),)
    compile_graphs("double", Doubled(), [example], key="b")
    (file,) = sorted((home / "graphs").glob("*.blob"), key=lambda f: f.stat().st_mtime)[-1:]
    file.write_bytes(b"nonsense")
    (graph,) = compile_graphs("double", Doubled(), [example], key="b")
    assert torch.equal(graph(*example)[0], 2 * example[0])
    tripled = Doubled(3.0)
    (graph,) = compile_graphs("double", tripled, [example], key="b")  # the file says two
    assert graph is tripled and "error of" in caplog.text


@needs_openvino
def test_a_folder_that_cannot_be_written_costs_time_only(monkeypatch, tmp_path, caplog):
    (tmp_path / "graphs").write_text("a file")
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path))
    (graph,) = compile_graphs("double", Doubled(), [(torch.rand(2, 2),)], key="c")
    assert torch.equal(graph(torch.ones(2, 2))[0], torch.full((2, 2), 2.0))
    assert "could not be kept" in caplog.text


@needs_openvino
def test_nobody_is_told_that_a_graph_was_compiled():
    """In an interpreter of its own, since this one may have imported OpenVINO by another way."""
    code = """
import sys
asked = []
sys.addaudithook(lambda event, given: asked.append(event) if event.startswith("socket.") else None)
import torch
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2 import load_predictor
load_predictor(bundled_spec(), device="cpu", openvino=True)
assert "openvino" in sys.modules, "nothing was compiled"
told = [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
assert (asked, told) == ([], []), (asked, told)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_openvino
def test_without_openvino_pytorch_answers(monkeypatch, tmp_path):
    monkeypatch.setattr("slicecast.models.sam2.available", lambda: False)
    predictor = load_predictor(bundled_spec(), device="cpu", openvino=True)
    assert isinstance(predictor._encode[1], nn.Module) and isinstance(predictor._step[1], TrackGraph)


class Doubled(nn.Module):
    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x * self.factor,)


def test_networks_of_other_kinds_keep_sam2s_own_step(hiera, nano):
    assert not TrackGraph.suits(hiera) and not TrackGraph.suits(nano)
    assert Sam2Predictor(nano).memory_length > nano.num_maskmem
