from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from antiphon_actors import cluster
from antiphon_actors.cluster import join_cluster
from antiphon_actors.cluster_environment import (
    PatchedEnvironment,
    generate_token,
    preloadable,
    production_environment,
    python_path,
    ray_environment,
)
from antiphon_actors.cluster_support import choose_directory
from antiphon_actors.errors import ClusterError


def test_a_private_cluster_is_authenticated_and_on_loopback() -> None:
    variables = ray_environment("secret")
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN"] == "secret"
    assert variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert variables["RAY_worker_niceness"] == "0"


def test_a_lost_node_is_noticed_sooner_where_others_go_on() -> None:
    setting = "RAY_health_check_failure_threshold"
    assert setting not in ray_environment("secret")
    several = ray_environment("secret", several_nodes=True)
    assert several[setting] == production_environment()[setting] == "3"


def test_the_environment_of_shared_nodes_holds_no_secret() -> None:
    assert not any("AUTH" in name for name in production_environment())
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in production_environment()


def test_only_installed_modules_are_preloaded() -> None:
    assert preloadable(["json", "no_such_package", "no_such_package.module"]) == ["json"]


def test_tokens_differ() -> None:
    assert generate_token() != generate_token()
    assert len(generate_token()) == 64


def test_the_python_path_keeps_what_is_there() -> None:
    entries = python_path({"PYTHONPATH": "/somewhere"}).split(os.pathsep)
    assert entries[0] == "/somewhere"
    assert "" not in entries


def test_patched_variables_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_TEST_A", "before")
    monkeypatch.delenv("ANTIPHON_TEST_B", raising=False)
    with PatchedEnvironment({"ANTIPHON_TEST_A": "x", "ANTIPHON_TEST_B": "y"}) as patched:
        assert os.environ["ANTIPHON_TEST_A"] == "x"
        patched.restore()
        assert os.environ["ANTIPHON_TEST_A"] == "before"
    assert "ANTIPHON_TEST_B" not in os.environ


def test_a_long_temporary_directory_is_not_used() -> None:
    with pytest.raises(ClusterError, match="too long"):
        choose_directory(Path("/" + "x" * 60))
    assert len(str(choose_directory(None))) <= 36


def test_joining_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(cluster, "_is_connected", bool)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", bool)
    with pytest.raises(ClusterError, match=r"nobody listens.*RAY_AUTH_MODE"):
        join_cluster("127.0.0.1:1")
