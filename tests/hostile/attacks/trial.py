"""One attack on a new server, with the bystanders whose harm is measured."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.hostile.attacks import connections, requests, streams
from tests.hostile.attacks.bystanders import Comparison, HealthWatch, HonestClient
from tests.hostile.target import GIB, MOST_BYTES, Outcome, Target

ATTACKS: dict[str, Callable[[Target], Awaitable[Outcome]]] = {
    one.__name__: one
    for one in (
        requests.masks_of_large_pictures,
        connections.messages_without_an_end,
        connections.resets,
        connections.idle_connections,
        streams.large_references,
        streams.small_file_many_frames,
        requests.scan_bombs,
        streams.slow_upload,
        streams.frozen_decoders,
        requests.many_fields,
        requests.long_run_lengths,
        requests.compressed_chunks,
        connections.endless_headers,
        connections.pings,
        connections.gzip_bombs,
        connections.health_watchers,
        connections.deaf_clients,
        streams.flood_of_prompts,
        streams.resets_of_begun_streams,
        streams.silent_streams,
    )
}
# Of one round. What has not ended then is cancelled, and the row says so.
ROUND_SECONDS = 110.0
# Shorter times than the server's own, for attacks that wait for them.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "slow_upload": ("--idle-timeout-seconds", "5"),
    "silent_streams": ("--idle-timeout-seconds", "5"),
    "deaf_clients": ("--receive-seconds", "15"),
}
# What takes some seconds to make, and is no part of the attack.
_PREPARED: dict[str, Callable[[], object]] = {
    "masks_of_large_pictures": requests.large_picture,
    "scan_bombs": requests.progressive_jpegs,
    "large_references": streams.clip_with_references,
    "small_file_many_frames": streams.clip_of_many_frames,
}
# What the defaults are on a machine with `MOST_BYTES`, for a server that can see that it has more.
_DEFAULTS = (
    *("--max-decoder-memory-bytes", str(MOST_BYTES // 2)),
    *("--max-correction-memory-bytes", str(MOST_BYTES // 8)),
    *("--max-bank-memory-bytes", str(MOST_BYTES // 8)),
)


@dataclass(frozen=True)
class Row:
    """How one attack went.

    Attributes:
        name: Of the attack.
        failure: Why there are no figures, or what broke; empty if nothing did.
        outcome: How often each status, or other end, was the attacker's.
        peak_gib: Most memory of the server and its decoders together.
        alone_ms: The honest client's time for a frame without the attack, at the 99th percentile.
        beside_ms: The same beside the attack.
        rounds: How many series of frames were tracked without the attack and beside it.
        kinds_of_masks: How many different series of masks the honest client got; 1 if all were the same.
        honest_errors: How often the honest client got an error, by its text.
        health: How the server's health was told; see `tests.hostile.health`.
        bugs: How often the server has logged an internal error.
    """

    name: str
    failure: str = ""
    outcome: dict[str, int] | None = None
    peak_gib: float = 0.0
    alone_ms: float = 0.0
    beside_ms: float = 0.0
    rounds: tuple[int, int] = (0, 0)
    kinds_of_masks: int = 0
    honest_errors: dict[str, int] | None = None
    health: dict[str, float] | None = None
    bugs: int = 0

    @property
    def ratio(self) -> float:
        """How many times as long the honest client's frames take beside the attack."""
        return self.beside_ms / self.alone_ms if self.alone_ms else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        row = {**asdict(self), "ratio": self.ratio}
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


async def attack(name: str, rounds: int, group: Path | None) -> Row:
    """Attack a new server several times, with quiet times between."""
    if (prepare := _PREPARED.get(name)) is not None:
        prepare()
    with tempfile.TemporaryDirectory() as folder:
        defaults = _DEFAULTS if group is None else ()
        target = Target(Path(folder), *defaults, *_SETTINGS.get(name, ()), group=group)
        bob, health, comparison = HonestClient(target), HealthWatch(target), Comparison()
        os.nice(5)  # the attacker's own work does not take the server's time
        watching = asyncio.create_task(target.watch())
        outcome: Outcome = Counter()
        try:
            await bob.track()
            for _ in range(rounds):
                comparison.add(await bob.track(), beside=False)
                outcome += await _round(name, target, bob, comparison)
            comparison.add(await bob.track(), beside=False)
            return _row(name, outcome, target, comparison, health)
        finally:
            watching.cancel()
            await bob.close()
            health.close()
            target.close()


async def _round(name: str, target: Target, bob: HonestClient, comparison: Comparison) -> Outcome:
    attacking = asyncio.ensure_future(asyncio.wait_for(ATTACKS[name](target), ROUND_SECONDS))
    await asyncio.wait({attacking}, timeout=0.5)
    comparison.add(await bob.track(), beside=True)
    while not attacking.done() and target.lives():
        comparison.add(await bob.track(), beside=True)
    try:
        return await attacking
    except asyncio.TimeoutError:
        return Counter([f"no end in {ROUND_SECONDS:g} s"])


def _row(name: str, outcome: Outcome, target: Target, comparison: Comparison, health: HealthWatch) -> Row:
    log = target.log.read_text()
    failures = []
    if target.peak_bytes > MOST_BYTES:
        failures.append(f"over {MOST_BYTES / GIB:g} GiB, ended")
    elif not target.lives():
        failures.append("the server has died")
    if bugs := log.count("internal error"):
        failures.append(log[log.index("internal error") :][:2000])
    return Row(
        name,
        "; ".join(failures),
        dict(outcome),
        target.peak_bytes / GIB,
        comparison.alone_ms,
        comparison.beside_ms,
        (len(comparison.alone), len(comparison.beside)),
        len(comparison.masks),
        dict(comparison.errors),
        health.ended(),
        bugs,
    )
