"""Workers and gateways as one application of Ray Serve, which a configuration describes: `serve deploy`, KubeRay.

    applications:
      - name: masklet
        import_path: masklet_cluster.application:build
        route_prefix: null
        args:
          workers: {models: [nano]}
          gateway: {address: "0.0.0.0:50051", insecure: true}
        deployments:
          - {name: worker, num_replicas: 2}
          - {name: gateway, num_replicas: 1}

Numbers of replicas and what each needs (`ray_actor_options`) stand under `deployments`, as of every application.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve

from masklet.errors import InvalidArgument
from masklet_cluster.gateway.options import DEFAULTS, SETTINGS
from masklet_cluster.gateway.replica import GatewayReplica
from masklet_cluster.worker.deployment import MARGIN_SECONDS, WorkerOptions, workers_deployment
from masklet_server.settings import checked

GATEWAY = "gateway"
"""The name of the gateways' deployment."""


class Arguments(BaseModel):
    """What a configuration may say under `args`.

    Attributes:
        workers: Settings of each worker, by name. Without `address` it listens on its machine's address in Ray's
            network, on a free port; "node:PORT" is a port of your choice. Nobody but gateways may reach it.
        gateway: Settings of each gateway, by name.
        max_streams: Streams that Serve gives to one worker.
        direct: Tell clients the workers' addresses.
        worker_timeout: A worker that has not answered for so many seconds is lost.
    """

    model_config = ConfigDict(extra="forbid")

    workers: dict[str, Any] = {}
    gateway: dict[str, Any] = {}
    max_streams: int = Field(default=1000, ge=1)
    direct: bool = False
    worker_timeout: float = Field(default=3.0, ge=1.0)


def build(args: dict[str, Any]) -> serve.Application:
    """The application: gateways, and the workers behind them.

    Args:
        args: What the configuration says under `args`; see `Arguments`.

    Raises:
        InvalidArgument: A setting is wrong or unknown, or a gateway does not have it.
    """
    try:
        chosen = Arguments.model_validate(args)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument.of(f"args.{field}", first["msg"]) from error
    worker = {"address": "node:0", "insecure": True, "trust_gateway": True, **chosen.workers}
    edge = {**DEFAULTS, **chosen.gateway}
    if foreign := sorted(set(chosen.gateway) - set(SETTINGS)):
        raise InvalidArgument.of(
            f"args.gateway.{foreign[0]}", "is no setting of a gateway; settings of servers go to workers"
        )
    checked(worker)
    grace = checked(edge).grace_seconds
    workers = workers_deployment(WorkerOptions(grace_seconds=grace, settings=worker), chosen.max_streams)
    gateways = serve.deployment(
        GatewayReplica,
        name=GATEWAY,
        graceful_shutdown_timeout_s=grace + MARGIN_SECONDS,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
    )
    return gateways.bind(workers.bind(worker, grace), edge, chosen.direct, chosen.worker_timeout)
