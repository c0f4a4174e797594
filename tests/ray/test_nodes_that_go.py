"""Nodes that are lost or taken away, and a first agent that is restarted."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.ray.conftest import SUPPORT

from antiphon_actors.cluster_environment import python_path

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]


def test_the_rest_goes_on() -> None:
    ran = subprocess.run(
        [sys.executable, str(SUPPORT / "antiphon_nodes_program.py")],
        env={**os.environ, "PYTHONPATH": python_path(os.environ)},
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    # A restarted first agent knows the places elsewhere, and those that it gives are others.
    assert seen["after a restart"] == "alive"
    assert seen["leases differ"]
    # A node whose processes are gone is known to be lost without Ray's word for it.
    assert seen["lost"] == [True, ["a/a"]]
    assert seen["suspect on a lost node"] == "dead"
    # Nobody but its agent looks after the actors of a node that Ray takes away.
    assert seen["accepted"]
    assert seen["drained"] == ["the cluster takes it away", 1, 0]
    assert seen["moved or cut"] == 1
    assert seen["left"] == []
