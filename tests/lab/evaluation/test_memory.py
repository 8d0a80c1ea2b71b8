"""The memory report, on a network of random weights: it must see what it takes away."""

import pytest
import torch

from slicecast.config import config_dir
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2_build import build_sam2
from slicecast_lab.evaluation.memory import (
    ABLATIONS,
    TARGETS,
    Ablation,
    attention_watched,
    case_report,
    grouped_by_distance,
    mean_attention,
    memory_report,
    silenced,
)
from slicecast_lab.generated.batches import BatchSpec, GeneratedBatches


def network(*, pointers: bool = True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_sam2(config_dir() / "sam2_nano.yaml", image_size=64, pointers=pointers)


@pytest.fixture(scope="module")
def batch():
    return GeneratedBatches(BatchSpec(frames=8, slices=(4,), size_px=64), seed=3)[0]


def attend(model, tokens: torch.Tensor, pointers: int) -> torch.Tensor:
    with torch.no_grad():
        place = torch.zeros(16, 1, 96)
        return model.memory_attention(
            curr=[place], curr_pos=[place], memory=tokens, memory_pos=tokens * 0, num_obj_ptr_tokens=pointers
        )


def test_what_is_silenced_no_longer_matters_and_comes_back():
    model = network()
    one, other = torch.randn(2, 34, 1, 48, generator=torch.Generator().manual_seed(0))
    mixed = torch.cat([one[:32], other[32:]])
    assert not torch.equal(attend(model, one, 2), attend(model, mixed, 2))
    with silenced(model, Ablation(pointers=True)):
        assert torch.equal(attend(model, one, 2), attend(model, mixed, 2))
    with silenced(model, Ablation(maps=True)):
        assert torch.equal(attend(model, mixed, 2), attend(model, other, 2))
    assert not torch.equal(attend(model, one, 2), attend(model, mixed, 2))


def test_equal_tokens_get_attention_by_their_number():
    model = network()
    with attention_watched(model) as seen:
        attend(model, torch.zeros(16 + 16 + 4, 1, 48), 4)
    shares = mean_attention(seen)
    assert len(seen) == 2
    assert list(shares) == list(TARGETS)
    assert shares["pointers"] == pytest.approx(4 / 36, abs=0.02)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)


def test_the_report_on_clips_names_every_ablation(batch):
    report = memory_report(network(pointers=False), [batch], carry=True)
    assert report.attention["pointers"] == 0
    assert list(report.without) == list(ABLATIONS)
    assert report.without["pointers"] == report.without["nothing"]
    assert report.memory_worth == report.without["nothing"] - report.without["memory maps"]
    assert sum(count for *_, count in report.by_distance) == int(batch.masks[:, 1:].flatten(2).any(2).sum())


def test_without_a_carried_mask_withholding_it_changes_nothing(batch):
    report = memory_report(network(), [batch], carry=False)
    assert report.without["previous mask"] == report.without["nothing"]


def test_the_report_on_scans_goes_through_the_product(cases):
    report = case_report(bundled_spec(), cases[:1])
    assert 0.3 < report.without["nothing"] <= 1
    assert all(0 <= value <= 1 for value in report.without.values())
    assert report.by_distance[0][:2] == (1, 1)


def test_distances_are_grouped():
    assert grouped_by_distance([(1, 0.5), (3, 0.2), (4, 0.4)]) == ((1, 1, 0.5, 1), (3, 4, pytest.approx(0.3), 2))
