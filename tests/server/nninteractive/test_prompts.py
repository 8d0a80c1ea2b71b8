"""Arrays on the wire: the client's own are read, and no other body does more than get a sentence."""

import struct

import numpy as np
import pytest
from nnclient import pack_array, unpack_array

from slicecast.errors import InputError, TooLarge
from slicecast.server.nninteractive.prompts import announced, pack, unpack

MOST = 1 << 20
TYPES = ("uint8", "int16", "uint16", "int32", "float16", "float32", "float64", "bool")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 1, 7), (20, 21, 22), (1, 3, 4, 5)])
def test_both_sides_read_each_other(rng, dtype, shape):
    for array in (rng.integers(0, 2, shape).astype(dtype), np.zeros(shape, dtype)):
        assert (unpack(pack_array(array), most_bytes=MOST) == array).all()
        assert (unpack_array(pack(array)) == array).all()


def test_damaged_bodies_get_a_sentence(rng):
    good = pack_array(rng.integers(0, 50, (1, 20, 21, 22)).astype(np.int16))
    refused = 0
    for _ in range(3000):
        body = bytearray(good)
        for place in rng.integers(0, rng.choice([90, len(body)]), size=3):
            body[place] = rng.integers(256)
        cut = bytes(body[: rng.integers(len(body))] if rng.random() < 0.3 else body)
        try:
            assert unpack(cut, most_bytes=MOST).nbytes <= MOST
        except InputError as error:
            refused += 1
            assert str(error).endswith(".")
    assert refused > 1000


def bomb(shape: tuple[int, ...]) -> bytes:
    """Return a body of a hundred bytes whose array of zeros is huge, as blosc2 packs zeros."""
    zeros = pack_array(np.zeros(64, np.uint8))
    frame = bytearray(zeros[-32:])
    nbytes = int(np.prod(shape, dtype=object))
    frame[4:8] = struct.pack("<I", min(nbytes, 2**31 - 100))
    head = struct.pack("<4s4B5s", b"NNIA", 1, 1, len(shape), 5, b"uint8") + struct.pack(f"<{len(shape)}q", *shape)
    return head + struct.pack("<IQQ", 1, nbytes, len(frame)) + bytes(frame)


def test_a_bomb_is_not_unpacked():
    body = bomb((1, 1 << 15, 1 << 15, 1 << 15))
    assert len(body) < 150 and announced(body).nbytes == 1 << 45
    with pytest.raises(TooLarge, match="at most 1 MiB"):
        unpack(body, most_bytes=MOST)


def test_a_chunk_that_needs_a_plug_in_is_refused():
    body = bytearray(pack_array(np.arange(64, dtype=np.uint8)))
    start = len(body) - struct.unpack_from("<Q", body, announced(bytes(body)).start + 12)[0]
    body[start + 16] = 35
    with pytest.raises(InputError, match="not of blosc2"):
        unpack(bytes(body), most_bytes=MOST)
