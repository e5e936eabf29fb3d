"""`masklet info`: what a running server is and allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from masklet.cli.console import out
from masklet.cli.server import (
    DEFAULT_ADDRESS,
    Access,
    CaOption,
    CertOption,
    InsecureOption,
    KeyOption,
    RunningServerOption,
    TokenFileOption,
)

if TYPE_CHECKING:
    from masklet import Limits, ModelInfo, ServerInfo


def info(
    server: RunningServerOption = DEFAULT_ADDRESS,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Show the models, device, versions and limits of a running server."""
    with Access(server, token_file, ca, cert, key, insecure).connect() as client:
        _print(server, client.info())


# What each limit counts, for people who do not know the server's settings.
LIMITS = {
    "max_sessions": "Track streams at once",
    "max_sessions_per_client": "Track streams at once of one client",
    "max_objects": "objects in a session",
    "max_message_bytes": "bytes of a message, and so of a picture",
    "max_upload_bytes": "bytes of an uploaded video file",
    "max_frame_pixels": "pixels of a frame",
    "max_frames": "frames of a clip",
    "max_duration_seconds": "seconds of a clip",
    "max_connections": "connections at once",
    "max_connections_per_address": "connections at once of one address",
    "ipv6_client_prefix": "first bits of an IPv6 address that count as one address",
    "max_requests": "SegmentImage requests at once",
    "max_requests_per_client": "SegmentImage requests at once of one client",
    "receive_seconds": "seconds until a picture's message is there",
    "requests_per_second": "requests per second of one client",
    "upload_bytes_per_second": "bytes per second of one client",
    "min_upload_bytes_per_second": "bytes per second that count as progress of an upload",
    "max_session_seconds": "seconds of a Track stream",
    "park_seconds": "seconds that a resumable session waits for its client",
    "max_parked_sessions": "resumable sessions that wait for their clients",
    "max_parked_sessions_per_client": "the same of one client",
    "max_kept_response_bytes": "bytes of a resumable session's results that are not acknowledged",
    "snapshot_seconds": "seconds that a snapshot of a stream is kept",
    "max_snapshot_bytes": "bytes of a snapshot of a stream",
    "max_state_bytes": "bytes of all snapshots of the server's streams",
    "max_disk_bytes": "bytes of temporary files of all clients",
    "max_disk_bytes_per_client": "bytes of temporary files of one client",
    "min_free_disk_bytes": "bytes that stay free on the disk",
    "max_correction_memory_bytes": "bytes of memory for corrections of all sessions",
    "max_bank_memory_bytes": "bytes of memory for objects and features of all sessions",
    "max_bank_memory_bytes_per_client": "bytes of memory for objects and features of one client",
    "max_decoder_memory_bytes": "bytes of memory of all decoders",
    "max_decoder_memory_bytes_per_client": "bytes of memory of one client's decoders",
    "picture_cache_bytes": "bytes of memory for pictures that may be asked about again",
    "window": "frame results that are not acknowledged",
    "correction_window": "frames that can be corrected",
    "correction_bytes": "bytes of memory for corrections of a session",
    "max_side": "pixels of a frame's height or width",
    "max_decoded_pixels": "pixels of all frames of a clip together",
    "max_mask_bytes": "bytes of a prompt's encoded mask",
    "max_stored_frame_bytes": "bytes of an annotation's frames, on disk",
    "max_history_bytes": "bytes of the memories of annotations and corrections, on disk",
    "max_latency_seconds": "seconds that a live frame may wait",
    "idle_timeout_seconds": "seconds without progress before a session ends",
    "annotation_idle_timeout_seconds": "the same of an annotation",
    "first_frame_timeout_seconds": "seconds to decode the first frame",
    "decoder_start_seconds": "seconds in which a decoder starts",
    "decoder_memory_bytes": "bytes of memory of a decoder",
    "decoder_cpu_seconds": "processor seconds of a decoder",
    "picture_cpu_seconds": "processor seconds of a picture",
    "source_timeout_seconds": "seconds to fetch a video by its URL",
}


def _print(address: str, server: ServerInfo) -> None:
    console = out()
    versions = ", ".join(f"{name} {version}" for name, version in sorted(server.versions.items()))
    console.print(f"masklet {server.server_version} at {address}", markup=False)
    for name, text in (
        ("device", f"{server.device} ({server.device_name})"),
        ("versions", versions),
        ("containers", " ".join(server.containers)),
        ("codecs", " ".join(server.codecs)),
    ):
        console.print(f"{name:<10} {text}", markup=False, soft_wrap=True)
    for model in server.models:
        if model.tuning:
            console.print(f"{model.name}: measured on this device: {model.tuning}", markup=False, soft_wrap=True)
    print_workers(server)
    console.print(_models(server.models))
    console.print(_limits(server.limits))


def print_workers(server: ServerInfo) -> None:
    """Print a table of the servers behind a gateway; nothing for a server that is none."""
    if not server.workers:
        return
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("worker", "state", "device", "models", "sessions", "busy", "queue"):
        table.add_column(heading, overflow="fold")
    for one in server.workers:
        table.add_row(
            one.name,
            one.state,
            f"{one.device} ({one.device_name})" if one.device else "",
            ", ".join(one.models),
            str(one.sessions),
            f"{one.busy_share:.0%}",
            f"{1e3 * one.queue_seconds:.1f} ms",
        )
    out().print(table)


def _models(models: Sequence[ModelInfo]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("model", "state", "image size", "parameters", "description"):
        table.add_column(heading, overflow="fold")  # a long name is whole on a narrow terminal, too
    for model in models:
        how = ", ".join(filter(None, ("loaded", model.dtype, model.runtime)))  # an old server names no runtime
        state = (how if model.loaded else "not loaded") + (", default" if model.default else "")
        parameters = f"{model.parameter_count / 1e6:.1f} M" if model.parameter_count else ""
        table.add_row(model.name, state, str(model.image_size or ""), parameters, model.description)
    return table


def _limits(limits: Limits) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("limit (masklet serve)")
    table.add_column("value", justify="right")
    table.add_column("what it counts")
    named = {name: value for name, value in vars(limits).items() if name != "others"}
    for name, value in {**named, **limits.others}.items():
        flag = "--" + name.replace("_", "-")
        table.add_row(flag, f"{value:,.10g}" if value else "no limit", LIMITS.get(name, ""))
    return table
