from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon_actors.cluster import ClusterSettings, LocalCluster

SUPPORT = Path(__file__).with_name("support")

# Drivers and workers alike import the stand-ins of actors from here.
sys.path.append(str(SUPPORT))


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """One private cluster for all tests, with an API server because jobs need one.

    Its second node offers one `elsewhere`. Both have one GPU, as far as Ray knows.
    """
    settings = ClusterSettings(
        num_cpus=2,
        dashboard=True,
        environment={"PYTHONPATH": str(SUPPORT)},
        resources={"num_gpus": 1},
        further_nodes=[{"elsewhere": 1.0, "num_gpus": 1}],
    )
    with LocalCluster(settings) as running:
        yield running
