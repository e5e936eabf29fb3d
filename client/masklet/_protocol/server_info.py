"""What a server reports about itself: models, device, versions, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from masklet.v1 import server_info_pb2


@dataclass(frozen=True)
class ModelInfo:
    """One model that the server knows.

    Attributes:
        name: What a call gives as `model=`.
        description: One line about the model.
        loaded: Ready to be used now.
        default: Used where a call names no model.
        image_size: Side of the square image that the model sees, in pixels; 0 where unknown.
        dtype: "float32", "bfloat16" or "float16"; empty where the model is not loaded.
        parameter_count: 0 where unknown.
        runtime: "torch", or "openvino" if that library computes parts of the network; empty where the model is not
            loaded.
        tuning: What the server has chosen by measuring on its GPU, as one line for people; empty where it has chosen
            nothing.
    """

    name: str
    description: str
    loaded: bool
    default: bool
    image_size: int
    dtype: str
    parameter_count: int
    runtime: str = ""
    tuning: str = ""

    def answers_to(self, name: str) -> bool:
        """Whether a call that gives `name` as `model=` gets this model.

        Args:
            name: A model's name; its name and own size, such as "nano@384"; or empty, for the default model.
        """
        return name in (self.name, f"{self.name}@{self.image_size}") if name else self.default


@dataclass(frozen=True)
class Limits:
    """What the server allows. 0 means "no limit" where it stands.

    Attributes:
        max_sessions: Track streams at once, of all clients together.
        max_sessions_per_client: Track streams at once of one client.
        max_objects: Objects tracked at once in a session.
        max_message_bytes: Bytes of one gRPC message.
        max_upload_bytes: Bytes of an uploaded video file.
        max_frame_pixels: Height times width of a frame.
        max_frames: Frames of a clip.
        max_duration_seconds: Length of a clip.
        others: All further limits, by the names of the server's settings; empty if the server does not tell them.
    """

    max_sessions: int
    max_sessions_per_client: int
    max_objects: int
    max_message_bytes: int
    max_upload_bytes: int
    max_frame_pixels: int
    max_frames: int
    max_duration_seconds: float
    others: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerInfo:
    """One of the servers behind a gateway.

    Attributes:
        name: The gateway's name for it.
        state: "serving", "draining" or "lost".
        device: "cpu" or "cuda:0"; empty where it has not told it.
        device_name: The device's own name.
        models: Names of the models that it has loaded.
        sessions: Sessions that run there, those included that wait for their clients.
        bank_bytes: Bytes of the memory banks of all objects.
        busy_share: Share of the time since its start in which its device has computed, 0 to 1.
        queue_seconds: Seconds that a job has waited for the device, on average since its start.
    """

    name: str
    state: str
    device: str
    device_name: str
    models: tuple[str, ...]
    sessions: int
    bank_bytes: int
    busy_share: float
    queue_seconds: float


@dataclass(frozen=True)
class ServerInfo:
    """What a server is: its models, device, versions and limits.

    Attributes:
        server_version: The version of masklet that the server runs.
        device: "cpu" or "cuda:0".
        device_name: The device's own name, such as "NVIDIA H200".
        versions: The versions of torch, sam2, av and grpcio there.
        models: Every model the server knows, the default first.
        limits: What it allows.
        containers: The container formats it accepts, by FFmpeg's names.
        codecs: The codecs it accepts, by FFmpeg's names.
        workers: The servers behind it, if it is a gateway. What is said of models and limits is then of all together.
    """

    server_version: str
    device: str
    device_name: str
    versions: Mapping[str, str]
    models: tuple[ModelInfo, ...]
    limits: Limits
    containers: tuple[str, ...]
    codecs: tuple[str, ...]
    workers: tuple[WorkerInfo, ...] = ()


def server_info_from_wire(message: server_info_pb2.GetServerInfoResponse) -> ServerInfo:
    """The answer of GetServerInfo as plain data."""
    return ServerInfo(
        server_version=message.server_version,
        device=message.device,
        device_name=message.device_name,
        versions=dict(message.versions),
        models=tuple(_model(model) for model in message.models),
        limits=_limits(message.limits),
        containers=tuple(message.containers),
        codecs=tuple(message.codecs),
        workers=tuple(_worker(worker) for worker in message.workers),
    )


def _model(message: server_info_pb2.ModelInfo) -> ModelInfo:
    return ModelInfo(
        name=message.name,
        description=message.description,
        loaded=message.loaded,
        default=message.default,
        image_size=message.image_size,
        dtype=message.dtype,
        parameter_count=message.parameter_count,
        runtime=message.runtime,
        tuning=message.tuning,
    )


def _worker(message: server_info_pb2.WorkerInfo) -> WorkerInfo:
    load = message.load
    return WorkerInfo(
        name=message.name,
        state=message.state,
        device=message.device,
        device_name=message.device_name,
        models=tuple(message.models),
        sessions=load.sessions,
        bank_bytes=load.bank_bytes,
        busy_share=load.busy_seconds / load.up_seconds if load.up_seconds else 0.0,
        queue_seconds=load.queue_seconds / load.jobs if load.jobs else 0.0,
    )


def _limits(message: server_info_pb2.Limits) -> Limits:
    return Limits(
        max_sessions=message.max_sessions,
        max_sessions_per_client=message.max_sessions_per_client,
        max_objects=message.max_objects,
        max_message_bytes=message.max_message_bytes,
        max_upload_bytes=message.max_upload_bytes,
        max_frame_pixels=message.max_frame_pixels,
        max_frames=message.max_frames,
        max_duration_seconds=message.max_duration_seconds,
        others=dict(message.others),
    )
