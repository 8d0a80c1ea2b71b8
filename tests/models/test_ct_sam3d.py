"""CT-SAM3D against numbers of the published code: same names, same rule-made weights, same input, same output."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle_fill import ct_sam3d_patch, fill_torch

from slicecast.models.ct_sam3d import CtSam3D, click_maps
from slicecast.models.volumetric import between

ORACLES = Path(__file__).parent / "oracles"


@pytest.fixture(scope="module")
def net():
    return fill_torch(CtSam3D().eval())


@pytest.fixture(scope="module")
def oracle():
    return np.load(ORACLES / "ct_sam3d.npz")


def patch(which):
    return torch.from_numpy(ct_sam3d_patch(which))[None, None]


def test_names_shapes_and_filled_numbers_are_the_checkpoints(net):
    wanted = json.loads((ORACLES / "ct_sam3d.json").read_text())
    state = net.state_dict()
    assert sorted(state) == sorted(wanted)
    for name, (shape, crc) in wanted.items():
        assert list(state[name].shape) == shape, name
        if state[name].is_floating_point():
            assert zlib.crc32(state[name].numpy().astype("<f4").tobytes()) == crc, name


def test_three_clicks_and_the_neighbours_heat_map_agree_with_the_published_code(net, oracle):
    seen = {}

    def keep(name):
        return lambda module, args, output: seen.__setitem__(name, output)

    encoder, decoder = net.image_encoder, net.mask_decoder
    encoder.stem.register_forward_hook(keep("stem"))
    encoder.stage1[0].attn.register_forward_hook(keep("attention"))
    encoder.stage4[-1].register_forward_hook(keep("stage4_last"))
    encoder.patch_2.register_forward_hook(keep("patch_2"))
    decoder.register_forward_hook(keep("answer"))
    decoder.spade1.norm_0.register_forward_hook(keep("norm"))
    for n in range(1, 6):
        decoder.get_submodule(f"spade{n}").register_forward_hook(keep(f"spade{n}"))
        decoder.get_submodule(f"upscale{n}").register_forward_hook(keep(f"upscale{n}"))

    def agrees(name, found, tolerance):
        np.testing.assert_allclose(found.numpy(), oracle[name], rtol=0, atol=tolerance, err_msg=name)

    with torch.inference_mode():
        features = net.encode(patch(0))
        agrees("feature_1", features[0][:, ::16], 3e-4)
        for n in (2, 3, 4):
            agrees(f"feature_{n}", features[n - 1], 3e-4)
        agrees("stem_tokens_s", seen["stem"][0, ::16, ::4], 3e-4)
        agrees("stage1_block0_attn_s", seen["attention"][0, ::16, ::4], 3e-4)
        agrees("patch_2_tokens_s", seen["patch_2"][0, ::4, ::4], 3e-4)
        agrees("stage4_last", seen["stage4_last"][0], 3e-4)
        clicks = oracle["clicks"]
        previous = torch.zeros(64, 64, 64)
        second = previous
        for n in (1, 2, 3):
            points = torch.from_numpy(clicks[:n, 2::-1].copy())
            maps = click_maps(points, torch.from_numpy(clicks[:n, 3] == 1), 64)
            answer = net.decode(features, torch.cat([previous[None], maps])[None])
            previous = answer.logits[0, 0].sigmoid()
            agrees(f"logits_{n}_s", seen["answer"].logits[0, :, ::4, ::4, ::4], 1e-4)
            agrees(f"prob_{n}_s", seen["answer"].logits.sigmoid()[0, :, ::4, ::4, ::4], 2e-5)
            agrees(f"iou_{n}", seen["answer"].iou, 1e-5)
            assert abs(int((previous > 0.5).sum()) - int(oracle[f"mask_voxels_{n}"])) <= 20
            if n == 2:
                second = previous
                agrees("prob_2", previous, 1e-3)
                agrees("spade1_norm0_2", seen["norm"][0], 1e-4)
                for level, stride in enumerate((1, 1, 2, 4, 8), start=1):
                    agrees(f"spade{level}_2_s", seen[f"spade{level}"][0, ::4, ::stride, ::stride, ::stride], 3e-4)
        heat = net.propose(patch(0), (second > 0.5).float()[None, None], patch(1))[0, 0]
        agrees("cpp_heatmap_s", heat[::4, ::4, ::4], 1e-4)
        agrees("cpp_heatmap", heat, 4e-3)


def test_clicks_overlap_and_end_at_the_border_as_in_the_published_code(oracle):
    points = torch.from_numpy(oracle["crowd_points"][:, ::-1].copy())
    labels = oracle["crowd_labels"]
    kept = labels != -1
    maps = click_maps(points[torch.from_numpy(kept)], torch.from_numpy(labels[kept] == 1), 64)
    np.testing.assert_allclose(maps.numpy(), oracle["crowd_map"], rtol=0, atol=1e-6)


def test_grey_values_are_mapped_as_in_the_published_code(oracle):
    low, high = oracle["prep_norm_bounds_example"]
    block = oracle["prep_patch_int16_block"].astype(np.float32)[::2, ::2, ::2]
    np.testing.assert_allclose(between(block, low, high), oracle["prep_norm_block"], rtol=0, atol=1e-6)
