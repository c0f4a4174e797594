"""What is deployed, without a cluster."""

from __future__ import annotations

import pytest

from antiphon_actors.errors import ClusterError
from antiphon_actors.gateway.registry import Registry


async def test_without_a_cluster_the_store_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever other tests of this process are connected to.
    from ray._private import worker
    from ray.experimental import internal_kv

    monkeypatch.setattr(worker.global_worker, "gcs_client", None, raising=False)
    monkeypatch.setattr(internal_kv, "_internal_kv_initialized", lambda: False)
    with pytest.raises(ClusterError, match="connected to no Ray cluster"):
        await Registry().apps()
