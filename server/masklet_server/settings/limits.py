"""Settings that bound what clients, sessions and videos may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, Field

from masklet_server.session.limits import ParkingLimits, SessionLimits, SnapshotLimits
from masklet_server.settings.types import MIB, Bytes, Count, Positive, Seconds, setting
from masklet_server.video.limits import VideoLimits

_VIDEO = VideoLimits()
_SESSION = SessionLimits()
_PARKING = ParkingLimits()
_SNAPSHOTS = SnapshotLimits()


class ClientLimitSettings(BaseModel):
    """What clients may ask for at once, and how fast they may send."""

    max_connections: Count = setting(
        1024,
        "Limits for clients",
        "Connections at once. They may have half of the process's descriptors, too. 0: no other limit.",
    )
    max_connections_per_address: Count = setting(
        128,
        "Limits for clients",
        "Connections at once of one address, which may be that of a proxy. Those beyond are ended, those without calls "
        "first. 0: no limit.",
    )
    ipv6_client_prefix: Annotated[int, Field(ge=32, le=128)] = setting(
        64,
        "Limits for clients",
        "Bits of an IPv6 address that count as one address, and as one client without a token, because whoever has one "
        "address has all that begin so. 128: each address is one.",
    )
    max_sessions: Count = setting(
        64, "Limits for clients", "Track streams at once, of all clients together. 0: no limit."
    )
    max_sessions_per_client: Count = setting(
        16, "Limits for clients", "Track streams at once of one client. 0: no limit."
    )
    max_requests: Positive = setting(
        16, "Limits for clients", "SegmentImage requests received and answered at once; more wait for their turn."
    )
    max_requests_per_client: Positive = setting(
        8, "Limits for clients", "The same of one client. 32 times as many may wait; more are refused."
    )
    receive_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        60.0, "Limits for clients", "Seconds in which the message of a request must arrive once its turn has come."
    )
    requests_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = setting(
        0.0, "Limits for clients", "Requests per second of one client. 0: no limit."
    )
    upload_bytes_per_second: Bytes = setting(
        0, "Limits for clients", "Bytes per second that one client may send. 0: no limit."
    )


class ParkingSettings(BaseModel):
    """How long, and how much, waits for clients that may come back."""

    park_seconds: Seconds = setting(
        _PARKING.park_seconds,
        "Limits for resumable sessions",
        "Seconds that a resumable session waits for a client whose call has ended. 0: no session can be resumed.",
    )
    max_parked_sessions: Positive = setting(
        _PARKING.max_sessions,
        "Limits for resumable sessions",
        "Sessions that wait for their clients. Beyond it, those that have waited longest end.",
    )
    max_parked_sessions_per_client: Positive = setting(
        _PARKING.max_sessions_per_client, "Limits for resumable sessions", "The same of one client."
    )
    max_kept_response_bytes: Bytes = setting(
        _PARKING.keep_bytes,
        "Limits for resumable sessions",
        "Memory for a session's responses that its client has not acknowledged, in bytes.",
    )


class SnapshotSettings(BaseModel):
    """Snapshots of resumable sessions, from which they go on when their server has ended."""

    state_dir: str = setting(
        "",
        "Snapshots of sessions",
        "Folder, or address of an object store (s3://, gs://, az://), for snapshots of resumable sessions. Servers "
        "that share it go on with each other's sessions. Empty: a session ends with its server.",
    )
    state_key_file: Path | None = setting(
        None,
        "Snapshots of sessions",
        "File with the secret by which servers that share state_dir know each other's sessions: 32 random bytes or "
        "more. Default: the first server puts one into state_dir.",
    )
    snapshot_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _SNAPSHOTS.seconds,
        "Limits for resumable sessions",
        "Seconds that a snapshot is kept of a session that does not go on. Longer than any pause of a session.",
    )
    snapshot_frames: Positive = setting(
        _SNAPSHOTS.frames,
        "Snapshots of sessions",
        "Tracked frames after which a snapshot is made; also after 3 s, after 16 MiB of video and after each prompt. "
        "After a server's end at most so many frames are tracked again.",
    )
    max_snapshot_bytes: Positive = setting(
        _SNAPSHOTS.max_bytes,
        "Limits for resumable sessions",
        "Largest snapshot, in bytes. A session with a larger one goes on without.",
    )
    max_state_bytes: Positive = setting(
        _SNAPSHOTS.max_total_bytes,
        "Limits for resumable sessions",
        "Snapshots of all sessions of this server, in bytes. Beyond it, sessions go on without further ones.",
    )


class SessionLimitSettings(BaseModel):
    """What one session may hold."""

    max_objects: Positive = setting(
        _SESSION.max_objects, "Limits for a session", "Objects tracked at once in a session, at most."
    )
    window: Positive = setting(
        _SESSION.window,
        "Limits for a session",
        "Frame results that the server sends before the client has acknowledged them, at most.",
    )
    idle_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _SESSION.idle_timeout_seconds,
        "Limits for a session",
        "Seconds without any progress after which a session ends.",
    )
    annotation_idle_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _SESSION.annotation_idle_timeout_seconds,
        "Limits for a session",
        "Seconds without a request after which a session with propagation on request ends, once its video "
        "has been received.",
    )
    max_session_seconds: Seconds = setting(
        _SESSION.max_session_seconds,
        "Limits for a session",
        "Seconds after which a session ends, whatever happens in it. 0: no limit.",
    )
    min_upload_bytes_per_second: Bytes = setting(
        _SESSION.min_upload_bytes_per_second,
        "Limits for a session",
        "Bytes of a video file that come slower count as no progress. 0: any byte is progress.",
    )
    max_latency_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _SESSION.max_latency_seconds,
        "Limits for a session",
        'With delivery "latest": seconds that a frame may wait before it is skipped, if the client does not say.',
    )
    latest_decoding: Literal["full", "reference-frames", "no-loop-filter", "least"] = setting(
        "full",
        "Limits for a session",
        'With delivery "latest" and packets: what decoding leaves out. reference-frames: frames that no other one '
        "refers to. no-loop-filter: the filter that smooths blocks; small errors stay up to the next key frame. least: "
        "both.",
    )
    hwaccel: Literal["none", "cuda"] = setting(
        "none",
        "Limits for a session",
        "cuda: the video unit of an NVIDIA GPU (NVDEC) decodes files and packets; what it cannot, and everything where "
        "there is none, FFmpeg does. Decoding processes may then use the GPU's device files and as much address "
        "space as its driver wants. It has not run on a GPU yet.",
    )
    correction_window: Count = setting(
        _SESSION.correction_window,
        "Limits for a session",
        "How many of the last tracked frames are kept ready to be corrected. 0: no corrections.",
    )
    correction_bytes: Bytes = setting(
        _SESSION.correction_bytes,
        "Limits for a session",
        "Memory of one session for its correction window, in bytes. If it does not suffice, fewer frames "
        "can be corrected.",
    )
    max_mask_bytes: Bytes = setting(
        _SESSION.max_mask_bytes, "Limits for a session", "Largest encoded mask in a prompt, in bytes."
    )
    max_stored_frame_bytes: Bytes = setting(
        _SESSION.max_stored_frame_bytes,
        "Limits for a session",
        "With propagation on request: largest temporary file that holds a session's frames at the model's "
        "size, in bytes.",
    )
    max_history_bytes: Bytes = setting(
        _SESSION.max_history_bytes,
        "Limits for a session",
        "Largest temporary file that holds the past of a session's objects, in bytes. It is used for "
        "corrections of a file and with propagation on request.",
    )


class VideoLimitSettings(BaseModel):
    """What one video may cost."""

    max_upload_bytes: Annotated[ByteSize, Field(ge=1)] = setting(
        _VIDEO.max_upload_bytes,
        "Limits for a video",
        "Largest video file that a client may upload, in bytes; also of pictures and packets that wait on disk.",
    )
    max_frame_pixels: Positive = setting(
        _VIDEO.max_frame_pixels, "Limits for a video", "Largest frame: height times width, in pixels."
    )
    max_side: Positive = setting(
        _VIDEO.max_side, "Limits for a video", "Largest height or width of a frame, in pixels."
    )
    max_frames: Count = setting(_VIDEO.max_frames, "Limits for a video", "Frames in one clip. 0: no limit.")
    max_duration_seconds: Seconds = setting(
        _VIDEO.max_duration_seconds,
        "Limits for a video",
        "Length of one clip in seconds, by the time stamp of its last frame. 0: no limit.",
    )
    max_decoded_pixels: Count = setting(
        _VIDEO.max_decoded_pixels, "Limits for a video", "Pixels of all frames of one clip together. 0: no limit."
    )
    decoder_memory_bytes: Annotated[ByteSize, Field(ge=512 * MIB)] = setting(
        _VIDEO.decoder_memory_bytes, "Limits for a video", "Address space of one decoding process, in bytes."
    )
    decoder_cpu_seconds: Count = setting(
        _VIDEO.decoder_cpu_seconds,
        "Limits for a video",
        "Processor time of one decoding process, in seconds. 0: no limit.",
    )
    picture_cpu_seconds: Count = setting(
        _VIDEO.picture_cpu_seconds,
        "Limits for a video",
        "Processor time of decoding a single picture, in seconds. 0: no limit.",
    )
    first_frame_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _VIDEO.first_frame_timeout_seconds,
        "Limits for a video",
        "Seconds from the end of an upload to its first decoded frame; also for a single picture.",
    )
    decoder_start_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _VIDEO.decoder_start_seconds,
        "Limits for a video",
        "Seconds in which a decoding process must start, and in which one that has ended must be told of. After that "
        "the process that forks them is replaced.",
    )
