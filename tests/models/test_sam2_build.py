from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from sam2.build_sam import build_sam2_video_predictor
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor

from slicecast.errors import ConfigError
from slicecast.models import sam2_forward as steps
from slicecast.models.sam2_build import VIDEO_PREDICTOR, SpatialMemoryAttention, build_sam2, write_architecture
from slicecast.models.sam2_forward import BankBatch, Features, Memory

HIERA_T = "configs/sam2.1/sam2.1_hiera_t.yaml"
NANO = Path(__file__).parents[2] / "configs" / "sam2_nano.yaml"


def plain_attributes(model):
    return {k: v for k, v in vars(model).items() if isinstance(v, bool | int | float | str)} | {
        f"decoder.{k}": v for k, v in vars(model.sam_mask_decoder).items() if isinstance(v, bool | int | float | str)
    }


def test_it_is_the_network_that_sam2_itself_builds():
    theirs = build_sam2_video_predictor(HIERA_T, device="cpu")
    ours = build_sam2(HIERA_T, target=VIDEO_PREDICTOR)
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (theirs, ours)]
    assert shapes[0] == shapes[1]
    differences = dict(plain_attributes(theirs).items() ^ plain_attributes(ours).items())
    assert differences.keys() <= {"fill_hole_area"}  # a setting of their predictor's output, not of the network


def test_the_image_size_reaches_every_part(hiera):
    assert isinstance(hiera, SAM2VideoPredictor) and hiera.image_size == 128
    assert hiera.sam_prompt_encoder.image_embedding_size == (8, 8)


def test_an_own_yaml_gets_only_what_it_says(nano):
    assert not isinstance(nano, SAM2VideoPredictor) and isinstance(nano, SAM2Base)
    assert not nano.sam_mask_decoder.dynamic_multimask_via_stability and not nano.training
    stock = build_sam2(NANO, image_size=64, stock_defaults=True)
    assert stock.sam_mask_decoder.dynamic_multimask_via_stability


def test_hydra_is_left_as_it_was():
    before = GlobalHydra.instance().hydra
    build_sam2(NANO, image_size=64)
    assert GlobalHydra.instance().hydra is before


def test_the_seed_decides_the_weights():
    def weights():
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return build_sam2(NANO, image_size=64).state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("size", [0, 48, 100, -64])
def test_a_size_that_does_not_suit_is_refused(size):
    with pytest.raises(ConfigError, match=f"image_size is {size}; SAM 2 needs a multiple of 16"):
        build_sam2(NANO, image_size=size)


@pytest.mark.parametrize("name", ["configs/sam2.1/sam9.yaml", "/nowhere/at_all.yaml"])
def test_an_unknown_architecture_is_named(name):
    with pytest.raises(ConfigError, match="No SAM 2 architecture"):
        build_sam2(name)


@pytest.mark.parametrize("content", ["windows: {}", "- a\n- b"])
def test_a_yaml_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "other.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"other\.yaml does not describe a SAM 2"):
        build_sam2(path)


def test_an_architecture_is_written_for_tools_that_read_a_file(tmp_path):
    write_architecture(NANO, tmp_path / "a.yaml", image_size=64)
    assert build_sam2(tmp_path / "a.yaml").image_size == 64


def test_a_network_without_pointers_has_the_same_weights_also_from_a_written_file(tmp_path, nano):
    write_architecture(NANO, tmp_path / "a.yaml", image_size=64, pointers=False)
    for model in (build_sam2(NANO, image_size=64, pointers=False), build_sam2(tmp_path / "a.yaml")):
        assert isinstance(model.memory_attention, SpatialMemoryAttention)
        assert model.state_dict().keys() == nano.state_dict().keys()


SIZE = 64


@pytest.fixture(scope="module")
def spatial(nano):
    model = build_sam2(NANO, image_size=SIZE, pointers=False)
    model.load_state_dict(nano.state_dict())
    return model


@pytest.fixture(scope="module")
def features(spatial):
    with torch.no_grad():
        return steps.encode(spatial, torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def memory(spatial, features):
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[:, :, 16:40, 20:44] = 1
    with torch.no_grad():
        return steps.remember(spatial, features, steps.prompt_with_mask(spatial, features, mask), prompted=True)


def tracked(model, features: Features, memory: Memory) -> torch.Tensor:
    with torch.no_grad():
        return steps.track(model, features, BankBatch({0: memory}, {1: memory}), time=2, num_slices=8).candidates


def test_pointers_change_nothing_and_maps_do(spatial, nano, features, memory):
    other = replace(memory, pointer=memory.pointer + 1)
    blank = replace(memory, features=torch.zeros_like(memory.features))
    answer = tracked(spatial, features, memory)
    assert torch.equal(answer, tracked(spatial, features, other))
    assert not torch.allclose(answer, tracked(spatial, features, blank))
    assert not torch.allclose(tracked(nano, features, memory), tracked(nano, features, other))


def test_memory_kept_in_bfloat16_is_taken(spatial, features, memory):
    stored = replace(memory, features=memory.features.to(torch.bfloat16))
    promoted = replace(memory, features=stored.features.float())
    answer = tracked(spatial, features, stored)
    assert answer.dtype == torch.float32
    assert torch.allclose(answer, tracked(spatial, features, promoted), atol=1e-5)
