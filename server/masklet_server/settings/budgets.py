"""Settings of what all clients share: disk, and the memory of decoders and of objects."""

from __future__ import annotations

from pydantic import BaseModel

from masklet_server.settings.types import MIB, Bytes, setting


class BudgetSettings(BaseModel):
    """How much all clients together, and each of them, may have."""

    max_disk_bytes: Bytes = setting(
        32 * 1024 * MIB,
        "Limits for all clients",
        "Temporary files of all clients together (uploads, frames, memories of objects), in bytes. 0: no limit.",
    )
    max_disk_bytes_per_client: Bytes = setting(
        16 * 1024 * MIB, "Limits for all clients", "The same of one client, in bytes. 0: no limit."
    )
    min_free_disk_bytes: Bytes = setting(
        512 * MIB,
        "Limits for all clients",
        "What stays free on the disk with the temporary files (TMPDIR), in bytes; on a small disk a tenth of it. "
        "0: none.",
    )
    max_correction_memory_bytes: Bytes = setting(
        0,
        "Limits for all clients",
        "Memory of all sessions for their correction windows, in bytes, half of it at most for one client. Where it "
        "does not suffice, fewer frames can be corrected. 0: an eighth of the memory of the machine or container.",
    )
    max_bank_memory_bytes: Bytes = setting(
        0,
        "Limits for all clients",
        "Memory of all sessions for what is remembered of their objects, and for the features of their frames, in "
        "bytes. It is counted when an object is prompted. 0: an eighth of the memory of the device that tracks.",
    )
    max_bank_memory_bytes_per_client: Bytes = setting(
        0, "Limits for all clients", "The same of one client, in bytes. 0: half of max_bank_memory_bytes."
    )
    max_decoder_memory_bytes: Bytes = setting(
        0,
        "Limits for all clients",
        "Memory of all decoding processes together, in bytes. 0: half of the memory of the machine or container.",
    )
    max_decoder_memory_bytes_per_client: Bytes = setting(
        0, "Limits for all clients", "The same of one client, in bytes. 0: half of max_decoder_memory_bytes."
    )
