"""The contestants of the speed benchmark, on a small scan with the bundled model."""

import sys

import numpy as np
import pytest
from builders import phantom

from slicecast.models.registry import bundled_spec
from slicecast.volume import read_volume
from slicecast_lab.benchmarks import speed_scans
from slicecast_lab.benchmarks.speed import WHOLE, Contestant, Direct, Product, in_its_own_process
from slicecast_lab.benchmarks.speed_scans import write_scan
from slicecast_lab.evaluation.provenance import peak_rss_mib


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """A phantom, stored for all contestants."""
    volume, truth = phantom("sphere")
    monkeypatch.setitem(speed_scans.SCANS, "sphere", lambda: ("a sphere", (volume, [truth])))
    return write_scan("sphere", tmp_path)


def test_the_product_uses_what_it_knows_until_it_is_fresh(scan):
    product, clicks = Product(bundled_spec().name), {"object": scan.objects[0].clicks[:1]}
    first, again = product.segment(scan.image, clicks), product.segment(scan.image, clicks)
    assert first.voxels == again.voxels > 0 and first.recomputed > 0 == again.recomputed
    product.fresh()
    assert product.segment(scan.image, clicks).recomputed == first.recomputed
    assert first.seconds >= sum(first.parts[name] for name in ("read", "encode", "propagate", "post"))


def test_both_do_the_whole_volume_where_they_are_compared(scan):
    clicks = {"object": scan.objects[0].clicks[:1]}
    ours = Product(bundled_spec().name).segment(scan.image, clicks, WHOLE)
    direct = Direct(bundled_spec().name).segment(scan.image, clicks)
    assert ours.propagated == ours.encoded == direct.propagated == scan.slices
    assert read_volume(scan.image.with_suffix(".direct.nii.gz")).array.shape == read_volume(scan.image).array.shape


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="cProfile of Python 3.12 loses calls of the network")
def test_a_profile_has_shares(scan):
    shares = Product(bundled_spec().name).profile(scan.image, {"object": scan.objects[0].clicks[:1]})
    assert len(shares) > 3 and all(0 < share <= 1 for _, share in shares)
    assert {"encode (with all below)", "track (with all below)"} <= {name for name, _ in shares}


@pytest.mark.slow
def test_a_contestant_works_in_another_process(scan):
    with Contestant("ours", bundled_spec().name, threads=1) as ours:
        clicks = {"object": scan.objects[0].clicks[:1]}
        assert ours.ask("segment", scan.image, clicks).voxels > 0


def test_memory_of_a_process_of_its_own_is_not_this_ones():
    keep = np.ones(400 << 20, dtype=np.uint8)
    assert peak_rss_mib() >= keep.nbytes >> 20
    assert in_its_own_process(peak_rss_mib) < peak_rss_mib()
