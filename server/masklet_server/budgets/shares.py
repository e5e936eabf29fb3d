"""All that clients share of one server, and what one client may have of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from masklet_server.budgets.budget import Bounds, Budget, Share
from masklet_server.budgets.decoder_memory import DecoderLease, DecoderMemory
from masklet_server.budgets.disk import DiskBudget
from masklet_server.budgets.machine import memory_bytes

_NO_BOUNDS = Bounds()


@dataclass(frozen=True)
class BudgetLimits:
    """How much there is; sizes in bytes.

    Attributes:
        disk: Temporary files.
        min_free_disk_bytes: What stays free on their disk.
        decoder_memory: Memory of decoding processes; where a bound is 0, half of what there is.
        correction_memory: Memory for frames that can be corrected; where a bound is 0, an eighth of the machine's, and
            half of that.
        bank_memory: Memory for what is remembered of objects; as for corrections, of the device on which it is.
    """

    disk: Bounds = _NO_BOUNDS
    min_free_disk_bytes: int = 0
    decoder_memory: Bounds = _NO_BOUNDS
    correction_memory: Bounds = _NO_BOUNDS
    bank_memory: Bounds = _NO_BOUNDS

    def resolved(self, device_bytes: int = 0) -> BudgetLimits:
        """The same with the bounds of memory as numbers.

        Args:
            device_bytes: Memory of the device that tracks; 0: it is the machine's.
        """
        decoders = _divided(self.decoder_memory, memory_bytes() // 2)
        corrections = _divided(self.correction_memory, memory_bytes() // 8)
        banks = _divided(self.bank_memory, (device_bytes or memory_bytes()) // 8)
        return BudgetLimits(self.disk, self.min_free_disk_bytes, decoders, corrections, banks)


def _divided(bounds: Bounds, total: int) -> Bounds:
    """The bounds with a total and a half of it, where they say nothing."""
    total = bounds.total or total
    return Bounds(total, min(total, bounds.per_client or total // 2))


class Budgets:
    """Everything that clients of one server share.

    Attributes:
        disk: Room for temporary files.
        decoders: Memory of decoding processes.
        corrections: Memory for frames that can be corrected. Where there is too little, fewer frames can.
        banks: Memory for what is remembered of objects.

    Args:
        limits: How much there is.
        on_refused: Called with the name of the setting that has refused something.
    """

    def __init__(self, limits: BudgetLimits, on_refused: Callable[[str], None] = lambda limit: None) -> None:
        self.disk = DiskBudget(limits.disk, limits.min_free_disk_bytes, on_refused)
        self.decoders = DecoderMemory(Budget("max_decoder_memory_bytes", "decoders", limits.decoder_memory, on_refused))
        self.corrections = Budget("max_correction_memory_bytes", "frames for corrections", limits.correction_memory)
        self.banks = Budget("max_bank_memory_bytes", "memories of objects", limits.bank_memory, on_refused)

    def of(self, client: str) -> ClientShare:
        """What one client may have."""
        disk, corrections, banks = (Share(one, client) for one in (self.disk, self.corrections, self.banks))
        return ClientShare(client, disk, self.decoders, corrections, banks)

    def close(self) -> None:
        """End the thread that measures decoders."""
        self.decoders.close()


@dataclass(frozen=True, eq=False)
class ClientShare:
    """What one client may have of everything.

    Attributes:
        client: Its name.
        disk: Room for its temporary files.
        decoders: Memory of all decoding processes; `admit` counts for this client.
        corrections: Memory for its frames that can be corrected.
        banks: Memory for what is remembered of its objects.
    """

    client: str
    disk: Share
    decoders: DecoderMemory
    corrections: Share
    banks: Share

    def admit_decoder(self) -> DecoderLease:
        """Let the client have one more decoding process.

        Raises:
            ResourceExhausted: There is too little memory for it.
        """
        return self.decoders.admit(self.client)


UNBOUNDED = Budgets(BudgetLimits()).of("")
"""A share without bounds, for a program that has one client."""
