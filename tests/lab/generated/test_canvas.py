"""Shapes of the generated scans, where they can be worked out."""

import numpy as np
import pytest

from slicecast.volume import Geometry
from slicecast_lab.generated.canvas import Canvas, blend, inside_both, without


@pytest.fixture
def canvas():
    return Canvas(Geometry((30, 20, 10), (1, 1, 2), (-15, -10, 0)), background=-1000, seed=3)


def test_an_ellipsoid_is_where_it_should_be(canvas):
    depth = canvas.ellipsoid((0, 0, 8), (6, 4, 5))
    canvas.paint(depth, 50, edge_mm=0.2, label=2)
    assert canvas.numbers[4, 10, 15] == pytest.approx(50, abs=1)
    assert canvas.numbers[4, 10, 15 + 8] == pytest.approx(-1000, abs=1)
    assert canvas.labels[4, 10, 15 + 5] == 2
    assert canvas.labels[4, 10 + 5, 15] == 0
    assert np.count_nonzero(canvas.labels) * 2 == pytest.approx(4 / 3 * np.pi * 6 * 4 * 5, rel=0.15)


def test_edges_are_mixed(canvas):
    canvas.paint(np.broadcast_to(canvas.x, canvas.numbers.shape), 0.0, edge_mm=4.0)
    line = canvas.numbers[0, 0]
    assert line[15] == pytest.approx(-500, abs=1)  # the voxel on the edge is half and half
    assert (np.diff(line) <= 0).all()


def test_a_tube_thins_out(canvas):
    depth = canvas.tube([(-10, 0, 8), (10, 0, 8)], [5, 2])
    assert depth[4, 10, 5] == pytest.approx(-5, abs=0.1)
    assert depth[4, 10, 25] == pytest.approx(-2, abs=0.1)


def test_shapes_combine():
    a, b = np.array([-3.0, -1.0, 2.0]), np.array([1.0, -2.0, 4.0])
    assert inside_both(a, b).tolist() == [1, -1, 4]
    assert without(a, b).tolist() == [-1, 2, 2]
    assert (blend(a, b, round_mm=1) <= np.minimum(a, b)).all()


def test_noise_has_unit_deviation(canvas):
    field = canvas.noise(6.0)
    assert field.std() == pytest.approx(1, rel=1e-3)
    assert np.abs(np.diff(field, axis=2)).mean() < 0.6


def test_the_truth_has_no_specks(canvas):
    canvas.labels[2:8, 4:9, 4:9] = 1
    canvas.labels[0, 0, 0] = 1
    assert canvas.truth()[0, 0, 0] == 0
    assert np.count_nonzero(canvas.truth()) == 150
