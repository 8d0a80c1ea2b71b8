"""Parts of a training in processes, and on a Ray cluster of two nodes on this machine."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from slicecast.errors import ConfigError
from slicecast.training.executor import run_parts


def square(n):
    return n * n, os.getpid()


def die_once(folder: Path, n):
    """Leave a mark and be killed; the second time, find the mark."""
    mark = folder / str(n)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def where():
    import time

    import ray

    time.sleep(2)  # long enough that both nodes get a part
    return ray.get_runtime_context().get_node_id()


@pytest.mark.parametrize("workers", [1, 2])
def test_parts_answer_in_their_order(workers):
    answers = run_parts([partial(square, n) for n in range(3)], workers=workers)
    assert [value for value, _ in answers] == [0, 1, 4]
    assert (os.getpid() in {pid for _, pid in answers}) == (workers == 1)


@pytest.mark.slow
def test_two_nodes_share_the_parts_and_a_killed_worker_loses_none(tmp_path):
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        assert len(set(run_parts([where] * 4, workers=1, ray=cluster.address))) == 2
        parts = [partial(die_once, tmp_path, n) for n in range(3)]
        assert run_parts(parts, workers=1, ray=cluster.address) == [0, 1, 2]
    finally:
        cluster.shutdown()


def test_an_address_without_a_cluster_is_said():
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    with pytest.raises(ConfigError, match=r"no Ray cluster at 127\.0\.0\.1:9"):
        run_parts([partial(square, 1)], workers=1, ray="127.0.0.1:9")
