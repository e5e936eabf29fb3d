"""The limits that a server tells its clients, by the names of its settings."""

from __future__ import annotations

import re

# Those that are fields of the contract's `Limits`.
CONTRACT_LIMITS = (
    "max_sessions",
    "max_sessions_per_client",
    "max_objects",
    "max_message_bytes",
    "max_upload_bytes",
    "max_frame_pixels",
    "max_frames",
    "max_duration_seconds",
)
# All others, which `Limits.others` has.
OTHER_LIMITS = (
    "max_connections",
    "max_connections_per_address",
    "ipv6_client_prefix",
    "max_requests",
    "max_requests_per_client",
    "receive_seconds",
    "requests_per_second",
    "upload_bytes_per_second",
    "min_upload_bytes_per_second",
    "max_session_seconds",
    "park_seconds",
    "max_parked_sessions",
    "max_parked_sessions_per_client",
    "max_kept_response_bytes",
    "snapshot_seconds",
    "max_snapshot_bytes",
    "max_state_bytes",
    "max_disk_bytes",
    "max_disk_bytes_per_client",
    "min_free_disk_bytes",
    "max_correction_memory_bytes",
    "max_bank_memory_bytes",
    "max_bank_memory_bytes_per_client",
    "max_decoder_memory_bytes",
    "max_decoder_memory_bytes_per_client",
    "picture_cache_bytes",
    "window",
    "correction_window",
    "correction_bytes",
    "max_side",
    "max_decoded_pixels",
    "max_mask_bytes",
    "max_stored_frame_bytes",
    "max_history_bytes",
    "max_latency_seconds",
    "idle_timeout_seconds",
    "annotation_idle_timeout_seconds",
    "first_frame_timeout_seconds",
    "decoder_start_seconds",
    "decoder_memory_bytes",
    "decoder_cpu_seconds",
    "picture_cpu_seconds",
    "source_timeout_seconds",
)
_NAME = re.compile(rf"\b({'|'.join(sorted(CONTRACT_LIMITS + OTHER_LIMITS, key=len, reverse=True))})\b")


def with_flags(message: str) -> str:
    """An error's message, and behind it the flags by which a server's operator sets the limits that it names."""
    names = dict.fromkeys(_NAME.findall(message))
    if not names:
        return message
    flags = ", ".join("--" + name.replace("_", "-") for name in names)
    return f"{message} (set by masklet serve {flags})"
