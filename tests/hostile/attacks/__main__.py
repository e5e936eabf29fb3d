"""Attacks on a real server, with a client beside them that wants an honest answer: ``python -m tests.hostile.attacks``.

Each attack is rebuilt from the description of one that once took a server down. For each, a line says how it ended for
the attacker, how much memory the server and its decoders took at most, and how long the frames of an honest client's
stream took, at the 99th percentile, without the attack and beside it, by turns; and whether its masks were the same.
Names of attacks as arguments choose some of them. Where a memory control group may be made, the server gets one of 4
GiB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.hostile.attacks import connections, requests, streams
from tests.hostile.target import GIB, GROUP, Comparison, HealthWatch, HonestClient, Outcome, Target

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
# These end all that was there before them.
ONCE = {"frozen_decoders"}
IMPATIENT = {"slow_upload", "silent_streams"}


async def run(name: str, rounds: int) -> None:
    """Attack a new server several times, with quiet times between, and print a line about it."""
    extra = ["--idle-timeout-seconds", "5"] if name in IMPATIENT else []
    outcome: Outcome = Counter()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder), *extra)
        bob, comparison, health = HonestClient(target), Comparison(), HealthWatch(target)
        os.nice(5)  # the attacker's own work does not take the server's time
        watching = asyncio.create_task(target.watch())
        try:
            await bob.track()
            for _ in range(1 if name in ONCE else rounds):
                comparison.add(await bob.track(), beside=False)
                attack = asyncio.ensure_future(ATTACKS[name](target))
                await asyncio.sleep(0.5)
                while not attack.done():
                    comparison.add(await bob.track(), beside=True)
                outcome += await attack
            comparison.add(await bob.track(), beside=False)
            alive = "" if target.lives() else "; THE SERVER HAS DIED"
            log = target.log.read_text()
            bugs = log.count("internal error")
            print(
                f"{name}: {dict(outcome)}; peak {target.peak_bytes / GIB:.2f} GiB; {comparison}; "
                f"{health.ended()}; internal errors {bugs}{alive}",
                flush=True,
            )
            if bugs:
                print(log[log.index("internal error") :][:4000], flush=True)
        finally:
            watching.cancel()
            bob.close()
            health.close()
            target.close()


def main() -> None:
    """Run the attacks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ATTACKS, []], default=[])
    parser.add_argument("--rounds", type=int, default=3, help="how often each attack runs, with quiet times between")
    options = parser.parse_args()
    with contextlib.suppress(OSError):
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(4 * GIB))
    names = options.names or list(ATTACKS)
    if len(names) == 1:
        asyncio.run(run(names[0], options.rounds))
        return
    for name in names:  # each in a process of its own, which may lower its priority
        command = [sys.executable, "-m", "tests.hostile.attacks", name, "--rounds", str(options.rounds)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
