"""A Ray cluster on this machine, of one node or two."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node, with one core."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    handler = signal.getsignal(signal.SIGTERM)
    found = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield found
    ray.shutdown()
    found.shutdown()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def remove_node(cluster):
    """Add a second node for the test. Returns a function that removes it."""
    node = cluster.add_node(**NODE)
    yield lambda: cluster.remove_node(node)
    with suppress(Exception):  # the test has removed it
        cluster.remove_node(node)
