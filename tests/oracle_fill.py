"""Deterministic weights and inputs for the parity oracles (numpy only).

fill_value(name, shape)   -> float32 array for one floating tensor of a state dict
fill_torch(module)        -> fills a torch module in place (torch imported lazily)
sam_med3d_volume()        -> (128,128,128) int16   raw test volume
ct_sam3d_patch(which)     -> (64,64,64)   float32  test patch in [0, 1], which = 0 or 1
"""

import math
import zlib

import numpy as np

TABLES = ("iou_token", "mask_tokens", "point_embeddings", "not_a_point_embed", "no_mask_embed")
POSITIONS = ("pos_embed", "rel_pos_d", "rel_pos_h", "rel_pos_w")


def draw(name, shape):
    """Raw standard-normal numbers of a tensor: seed = CRC-32 of the UTF-8 name."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode("utf-8"))))
    return rng.standard_normal(size=tuple(shape), dtype=np.float32)


def fill_value(name, shape):
    """First rule that matches wins.  None: leave the tensor as it is."""
    last = name.rsplit(".", 1)[-1]
    shape = tuple(int(s) for s in shape)
    f = np.float32
    if last == "num_batches_tracked":
        return None
    x = draw(name, shape)
    if last == "running_var":
        return f(1.0) + f(0.1) * np.abs(x)
    if last == "running_mean":
        return f(0.02) * x
    if last == "positional_encoding_gaussian_matrix":
        return x
    if last in POSITIONS:
        return f(0.2) * x
    if len(shape) >= 2:
        if len(shape) == 2 and any(t in name.split(".") for t in TABLES):
            return f(0.5) * x
        return f(1.0 / math.sqrt(math.prod(shape[1:]))) * x
    if last == "bias":
        return f(0.1) * x
    if shape == (1,):  # PReLU slope
        return f(0.25) + f(0.05) * x
    return f(1.0) + f(0.1) * x  # weight of a norm layer


def fill_torch(module):
    import torch

    state = module.state_dict()
    with torch.no_grad():
        for name, t in state.items():
            if not torch.is_floating_point(t):
                continue
            v = fill_value(name, t.shape)
            if v is not None:
                t.copy_(torch.from_numpy(np.ascontiguousarray(v)))
    return module


def _hash_noise(n, seed):
    """Integers 0..1023, exact on every platform (unsigned 32-bit arithmetic)."""
    i, j, k = (a.astype(np.uint64) for a in np.meshgrid(*[np.arange(n)] * 3, indexing="ij"))
    h = (i * np.uint64(73856093)) ^ (j * np.uint64(19349663)) ^ (k * np.uint64(83492791))
    h = (h + np.uint64(seed) * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(0x2C1B3C6D)) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(12)
    return (h & np.uint64(1023)).astype(np.int64)


def sam_med3d_volume():
    """int16 (128,128,128): axes (0,1,2).  Air, body ellipsoid, organ ellipsoid, hash noise."""
    a, b, c = np.meshgrid(*[np.arange(128, dtype=np.int64)] * 3, indexing="ij")
    v = np.full((128, 128, 128), -60, dtype=np.int64)
    body = 9 * (a - 64) ** 2 + 16 * (b - 60) ** 2 + 4 * (c - 70) ** 2
    v[body < 36000] = 40
    organ = 4 * (a - 50) ** 2 + 9 * (b - 70) ** 2 + 4 * (c - 60) ** 2
    v[organ < 3600] = 120
    v[(a - 90) ** 2 + (b - 50) ** 2 + (c - 80) ** 2 < 144] = -30
    return (v + _hash_noise(128, 1) // 16 - 32).astype(np.int16)


def ct_sam3d_patch(which=0):
    """float32 (64,64,64) in [0,1], axes (z,y,x): integers 0..1000 divided by 1000."""
    z, y, x = np.meshgrid(*[np.arange(64, dtype=np.int64)] * 3, indexing="ij")
    s = 11 * which
    v = np.full((64, 64, 64), 430, dtype=np.int64) + 2 * z - y + (x // 2)
    v[(z - 30 + s) ** 2 * 4 + (y - 28) ** 2 * 3 + (x - 36 - s) ** 2 * 5 < 1500] = 640
    v[(z - 45) ** 2 + (y - 50 + s) ** 2 + (x - 15) ** 2 < 100] = 980
    v[(y + which * x) < 6] = 0
    v = v + _hash_noise(64, 7 + which) // 8 - 64
    return (np.clip(v, 0, 1000).astype(np.float32) / np.float32(1000)).astype(np.float32)


PREP = {  # geometry of the small volume used for the pre/post-processing oracles (LPS, as ITK keeps it)
    "spacing": (0.9, 1.1, 2.5),
    "origin": (100.0, -50.0, -20.0),
    "direction": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
}


def prep_volume():
    """int16 image and uint8 label, both (24,36,40) in (z,y,x) order; geometry in PREP."""
    z, y, x = np.meshgrid(np.arange(24), np.arange(36), np.arange(40), indexing="ij")
    z, y, x = (a.astype(np.int64) for a in (z, y, x))
    noise = _hash_noise(40, 3)[:24, :36, :40]
    im = 5 * x - 3 * y + 20 * z + noise // 16 - 100
    lab = ((z - 10) ** 2 * 9 + (y - 15) ** 2 * 2 + (x - 22) ** 2 < 120).astype(np.uint8)
    im[lab > 0] += 150
    return im.astype(np.int16), lab
