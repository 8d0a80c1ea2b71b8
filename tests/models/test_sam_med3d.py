"""SAM-Med3D against numbers of the published code: same names, same rule-made weights, same input, same output."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle_fill import fill_torch, sam_med3d_volume

from slicecast.models.sam_med3d import SamMed3D
from slicecast.models.volumetric import by_positive
from slicecast.volume import Window

ORACLES = Path(__file__).parent / "oracles"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def net():
    return fill_torch(SamMed3D().eval())


@pytest.fixture(scope="module")
def oracle():
    return np.load(ORACLES / "sam_med3d.npz")


@pytest.mark.slow
def test_names_shapes_and_filled_numbers_are_the_checkpoints(net):
    wanted = json.loads((ORACLES / "sam_med3d.json").read_text())
    state = net.state_dict()
    assert sorted(state) == sorted(wanted)
    for name, (shape, crc) in wanted.items():
        assert list(state[name].shape) == shape, name
        assert zlib.crc32(state[name].numpy().astype("<f4").tobytes()) == crc, name


@pytest.mark.slow
def test_embedding_and_two_clicks_agree_with_the_published_code(net, oracle):
    seen = {}

    def keep(name):
        return lambda module, args, output: seen.__setitem__(name, output)

    net.image_encoder.blocks[0].attn.register_forward_hook(keep("block0_attn"))
    net.image_encoder.blocks[2].attn.register_forward_hook(keep("block2_attn"))
    for number in (0, 2, 11):
        net.image_encoder.blocks[number].register_forward_hook(keep(f"block{number}"))
    net.mask_decoder.register_forward_hook(keep("answer"))
    net.mask_decoder.transformer.register_forward_hook(keep("transformer"))
    net.prompt_encoder.register_forward_hook(keep("prompts"))

    def agrees(name, found):
        np.testing.assert_allclose(found.numpy(), oracle[name], rtol=0, atol=TOLERANCE, err_msg=name)

    raw = torch.from_numpy(sam_med3d_volume().astype(np.float32))
    body = raw[raw > 0]
    with torch.inference_mode():
        embedding = net.encode(((raw - body.mean()) / body.std())[None, None])
        agrees("image_embedding", embedding)
        agrees("block0_attn_s", seen["block0_attn"][0, :8:2, :8:2, :8:2, ::32])
        agrees("block2_attn_s", seen["block2_attn"][0, ::2, ::2, ::2, ::16])
        for number in (0, 2, 11):
            agrees(f"block{number}_s", seen[f"block{number}"][0, ::2, ::2, ::2, ::16])
        agrees("dense_pe_s", net.prompt_encoder.grid_code()[0, ::3])
        clicks = torch.from_numpy(oracle["clicks"])[None]
        previous = torch.zeros(1, 1, 32, 32, 32)
        for n in (1, 2):
            answer = net.decode(embedding, clicks[:, :n, :3], clicks[:, :n, 3], previous)
            previous = answer.logits
            agrees(f"sparse_{n}", seen["prompts"][0])
            agrees(f"decoder_tokens_{n}", seen["transformer"][0])
            agrees(f"low_res_logits_{n}", previous)
            agrees(f"iou_{n}", seen["answer"].iou)
            fine = F.interpolate(previous, (128,) * 3, mode="trilinear", align_corners=False)
            agrees(f"hires_logits_{n}_s", fine[0, 0, 3::8, 5::8, 1::8])
            assert abs(int((fine > 0).sum()) - int(oracle[f"mask_voxels_{n}"])) <= 20
        agrees("dense_2_s", seen["prompts"][1][0, ::4])
        without = net.decode(embedding, clicks[:, :1, :3], clicks[:, :1, 3], None)
        agrees("nomask_low_res_logits_s", without.logits[0, 0, ::2, ::2, ::2])
        agrees("nomask_iou", without.iou)


def test_grey_values_are_standardised_as_in_the_published_code(oracle):
    cube = np.zeros((128,) * 3, dtype=np.float32)
    place = tuple(slice(a, a + n) for a, n in zip(oracle["prep_roi_block_start"], (23, 26, 40), strict=True))
    cube[place] = oracle["prep_canon_image"]
    found = by_positive(cube, Window("any", 0, 1))
    np.testing.assert_allclose(found[place], oracle["prep_roi_block"], rtol=0, atol=1e-5)
    assert found[0, 0, 0] == pytest.approx(float(oracle["prep_roi_pad_value"]), abs=1e-5)
