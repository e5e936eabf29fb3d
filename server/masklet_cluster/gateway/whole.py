"""What all workers together are, as one server."""

from __future__ import annotations

from collections.abc import Sequence

from masklet.errors import Unavailable
from masklet.v1 import server_info_pb2
from masklet_cluster.placement.placement import WorkerReport
from masklet_server.addresses import split_address


def whole(workers: Sequence[WorkerReport], *, tells_addresses: bool = True) -> server_info_pb2.GetServerInfoResponse:
    """What GetServerInfo of a gateway answers.

    Device, versions and formats are those of the first worker; models those of all; a limit is the least of all, but
    `max_sessions` is the sum.

    Args:
        workers: What is known of each.
        tells_addresses: Workers that are known by their addresses are named so; else by their places: worker-1.

    Raises:
        Unavailable: No worker has told anything yet.
    """
    told = [one.info for one in workers if one.info.server_version]
    if not told:
        raise Unavailable("no server behind this gateway answers now; try again later", retry_after_seconds=1.0)
    answer = server_info_pb2.GetServerInfoResponse()
    answer.CopyFrom(told[0])
    answer.instance_id = ""
    del answer.models[:]
    answer.models.extend(_models(told))
    answer.limits.CopyFrom(_limits([one.limits for one in told]))
    answer.load.CopyFrom(_load([one.load for one in told]))
    for number, one in enumerate(workers, 1):
        name = one.name if tells_addresses or split_address(one.name) is None else f"worker-{number}"
        answer.workers.append(_worker(name, one))
    return answer


def _models(told: Sequence[server_info_pb2.GetServerInfoResponse]) -> list[server_info_pb2.ModelInfo]:
    """Each model once; loaded if any worker has it. The default is the first worker's."""
    found: dict[str, server_info_pb2.ModelInfo] = {}
    for info in told:
        for model in info.models:
            known = found.get(model.name)
            if known is None or (model.loaded and not known.loaded):
                found[model.name] = server_info_pb2.ModelInfo()
                found[model.name].CopyFrom(model)
            found[model.name].default = any(one.default and one.name == model.name for one in told[0].models)
    return list(found.values())


def _limits(told: Sequence[server_info_pb2.Limits]) -> server_info_pb2.Limits:
    least = server_info_pb2.Limits()
    for field in server_info_pb2.Limits.DESCRIPTOR.fields:
        if field.name != "others":
            setattr(least, field.name, _least([getattr(one, field.name) for one in told]))
    sessions = [one.max_sessions for one in told]
    least.max_sessions = sum(sessions) if all(sessions) else 0
    for name in {name for one in told for name in one.others}:
        least.others[name] = _least([one.others[name] for one in told if name in one.others])
    return least


def _least(values: Sequence[float]) -> float:
    """The smallest one; 0 is no limit."""
    return min((value for value in values if value), default=0)


def _load(told: Sequence[server_info_pb2.Load]) -> server_info_pb2.Load:
    total = server_info_pb2.Load()
    for field in server_info_pb2.Load.DESCRIPTOR.fields:
        if field.name not in ("queue_counts", "queue_bounds_seconds"):
            setattr(total, field.name, sum(getattr(one, field.name) for one in told))
    bounds = {tuple(one.queue_bounds_seconds) for one in told}
    if len(bounds) == 1:
        total.queue_bounds_seconds.extend(*bounds)
        total.queue_counts.extend(map(sum, zip(*(one.queue_counts for one in told), strict=False)))
    return total


def _worker(name: str, report: WorkerReport) -> server_info_pb2.WorkerInfo:
    info = report.info
    return server_info_pb2.WorkerInfo(
        name=name,
        instance_id=info.instance_id,
        state=report.state,
        device=info.device,
        device_name=info.device_name,
        models=[model.name for model in info.models if model.loaded],
        load=info.load,
        streams=report.streams,
    )
