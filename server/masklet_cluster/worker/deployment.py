"""The application of Ray Serve that has the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from masklet.errors import Unavailable
from masklet_cluster.placement.ray_router import LeaseRouter
from masklet_cluster.worker.replica import WorkerReplica

DEPLOYMENT = "worker"
"""The name of the deployment in its application."""
MARGIN_SECONDS = 10.0
"""Serve waits so much longer for a replica to end than streams may take to move."""


@dataclass(frozen=True)
class WorkerOptions:
    """What workers there are to be.

    Attributes:
        workers: How many; the fewest, with `max_workers`.
        max_workers: Serve starts as many where there are more streams; 0: always `workers`.
        streams_per_worker: With `max_workers`: more workers are started beyond so many streams of each.
        gpus: GPUs of each worker, such as 1.
        cpus: CPUs that Ray sets aside for each.
        grace_seconds: How long streams may go on when a worker is taken away.
        settings: The server's settings, by name.
    """

    workers: int = 1
    max_workers: int = 0
    streams_per_worker: float = 8.0
    gpus: float = 0.0
    cpus: float = 1.0
    grace_seconds: float = 30.0
    settings: Mapping[str, Any] = field(default_factory=dict)


def deploy(application: str, options: WorkerOptions, max_streams: int) -> None:
    """Have Serve run the workers of an application; waits until they do. Ray must be connected.

    If the application runs already, it is changed to what the options say: workers come and go, and streams move.

    Args:
        application: Its name.
        options: What workers there are to be.
        max_streams: Of one worker.

    Raises:
        Unavailable: The workers do not start, or there is no room for them.
    """
    deployment = workers_deployment(options, max_streams)
    # Without it every call would replace every worker. Ray has no public way to say it (2.60).
    deployment._version = _version(options)  # noqa: SLF001
    serve.start(proxy_location="Disabled")
    workers = deployment.bind(dict(options.settings), options.grace_seconds)
    try:
        serve.run(workers, name=application, route_prefix=None)
    except RuntimeError as error:
        raise Unavailable(f"the workers do not start: {_reason(application) or error}") from error


def workers_deployment(options: WorkerOptions, max_streams: int) -> Any:
    """The deployment of workers for Serve, which runs nothing yet.

    Args:
        options: What workers there are to be.
        max_streams: Of one worker.
    """
    number: dict[str, Any] = {"num_replicas": options.workers}
    if options.max_workers:
        number = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=options.workers,
                max_replicas=options.max_workers,
                target_ongoing_requests=options.streams_per_worker,
            )
        }
    return serve.deployment(
        WorkerReplica,
        name=DEPLOYMENT,
        max_ongoing_requests=max_streams,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        graceful_shutdown_timeout_s=options.grace_seconds + MARGIN_SECONDS,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        request_router_config=RequestRouterConfig(request_router_class=LeaseRouter),
        **number,
    )


def _reason(application: str) -> str:
    """What Serve knows of why workers do not start: the last line of what one of them said; empty: nothing."""
    known = serve.status().applications.get(application)
    messages = [one.message for one in known.deployments.values()] if known is not None else []
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _version(options: WorkerOptions) -> str:
    """The same for workers that differ in nothing but their number: Serve leaves those alone that run already."""
    parts = (version("masklet"), options.gpus, options.cpus, options.grace_seconds, sorted(options.settings.items()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
