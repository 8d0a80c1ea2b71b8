"""Structures of one scan, looked for in another."""

from dataclasses import replace

import numpy as np
import pytest
from builders import ball, grid

from slicecast.labelling.landmarks import find_body, landmarks, transfer
from slicecast.volume import Volume

SIZE = (40, 36, 20)


def person(*, size=SIZE, spacing_mm=(2, 2, 3), organ=(14, 20, 9), brightness=1.0):
    """A body with a bright organ and, for confusion, another structure as bright on the other side."""
    centre = np.array(size) / 2
    voxels = np.argwhere(np.ones(size[::-1]))[:, ::-1]
    body = (np.linalg.norm((voxels - centre) / centre, axis=1) < 0.9).reshape(size[::-1])
    label = ball(size, centre_ijk=organ, radius=4.0)
    twin = ball(size, centre_ijk=(size[0] - organ[0], *organ[1:]), radius=4.0)
    numbers = np.where(body, 60.0, 0.0)
    numbers[label | twin] = 100.0
    noise = np.random.default_rng(0).normal(0, 2, numbers.shape)
    return Volume(((numbers + noise) * brightness).astype(np.float32), grid(size, spacing_mm=spacing_mm)), label * 1


def test_a_structure_is_found_in_a_larger_and_brighter_body():
    scan, label = person()
    known = landmarks(scan, label, {"organ": 1, "absent": 2})
    assert set(known) == {"organ"}
    other, truth = person(size=(50, 44, 26), organ=(17, 25, 12), brightness=3.0)
    i, j, k = transfer(known, other)["organ"]
    assert truth[k, j, i] == 1


def test_its_own_scan_gives_its_own_place():
    scan, label = person()
    i, j, k = transfer(landmarks(scan, label, {"organ": 1}), scan)["organ"]
    assert label[k, j, i] == 1


def test_a_structure_whose_brightness_is_nowhere_near_is_left_out():
    scan, label = person()
    known = landmarks(scan, label, {"organ": 1})
    assert transfer({"organ": replace(known["organ"], brightness=2.0)}, scan) == {}


def test_bodies_of_another_part_or_kind_of_scan_are_not_compared():
    body = find_body(person()[0])
    near, wide = find_body(person(spacing_mm=(2.1, 2, 3))[0]), find_body(person(spacing_mm=(4, 2, 3))[0])
    scan, _ = person()
    hounsfield = scan.with_array((scan.array * 10 - 1000).round().astype(np.int16))
    ct = find_body(hounsfield)
    assert body.resembles(near) and not body.resembles(wide)
    assert ct.is_ct and not body.resembles(ct)


@pytest.mark.parametrize("value", [0, 7])
def test_an_empty_scan_has_a_body(value):
    empty = Volume(np.full(SIZE[::-1], value, np.int16), grid(SIZE))
    assert np.isfinite(find_body(empty).low_mm).all()
