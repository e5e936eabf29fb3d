"""Serve's request router for leases: it sends each to the worker that it names, and knows which workers there are.

Routers are an alpha API of Ray Serve: `tests/cluster/test_ray.py` is what says whether a newer Ray fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from masklet_cluster.placement.directory import ADDRESS, directory


class LeaseRouter(RequestRouter):  # type: ignore[misc]  # Ray's types are not looked at
    """Sends a request to the replica that its argument `replica` names, and another one to any."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[Sequence[RunningReplica]]:
        """The named replica, if it is there; else all, those first that this process has given the least."""
        name = pending_request.kwargs.get("replica", "") if pending_request is not None else ""
        named = [one for one in candidate_replicas if one.replica_id.unique_id == name]
        return [named or candidate_replicas]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Serve tells which replicas take requests, some tenths of a second after that has changed."""
        super().update_replicas(replicas)
        application = self._deployment_id.app_name
        directory(application).update({one.replica_id.unique_id: _address(one.replica_metadata) for one in replicas})


def _address(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get(ADDRESS, ""))
