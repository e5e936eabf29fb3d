"""Streams over a network that breaks and to servers that die: `python -m benchmarks.faults --faults 10000 --seed N`.

Streams of each kind run at the same time, each through a proxy of its own that breaks its connections at random places.
Two servers share a state directory. Now and then one of them is killed, frozen or asked to end, and its streams go on
at the other one, or there when it is started again; or it has no descriptors or no disk for a while, its newest
snapshots are damaged or look ten years old, its decoders are killed, strangers knock with forged tokens, or two calls
resume one session at once. A client that is away for too long finds that its token has expired. What each client saw is
held against a run without faults: each result once, in order, with the same masks to the last bit.

A stream may end with an error only where nobody has what it needs any more: its decoder was killed; its server died
when no snapshot was good, and the client could not send its video again. `--no-state` does without the directory: then
a server that dies ends each stream whose video cannot be sent again.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.table import Table

from tests.faults import mishaps
from tests.faults.history import History, violations
from tests.faults.proxy import KINDS, Direction, Fault, Proxy
from tests.faults.server import ServerProcess
from tests.faults.streams import NOT_REPEATABLE, REWINDABLE, STREAMS, run

SERVER_KINDS = ("kill", "terminate", "freeze", "no_descriptors", "forged", "twins", "expired")
STATE_KINDS = ("move", "damage", "no_disk", "clock")
# Not among those at random: it may end any stream by name.
DECODER_KIND = "kill_decoders"
_MAX_FAULTS_OF_A_STREAM = 4
# As long as servers keep a session whose client is away.
_PARK_SECONDS = 5.0


@dataclass
class Outcome:
    """What all streams of a run came to.

    Attributes:
        faults: How often each kind of fault was made.
        streams: How many streams of each kind came to their end.
        named: How many ended with an error that may be.
        resumed: How often streams went on, by where from.
        wrong: What was wrong, with the stream and its seed.
    """

    faults: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    resumed: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class Trial:
    """Runs streams until there were enough faults.

    Args:
        servers: The servers, which this kills; all after the first one stand by.
        state: The directory that they share; None: there is none.
        faults: How many.
        seed: Of everything random.
        kills: Every so many faults, one happens to the server itself; 0: never.
    """

    def __init__(self, servers: list[ServerProcess], state: Path | None, faults: int, seed: int, kills: int) -> None:
        self.outcome = Outcome()
        self._servers = servers
        self._state = state
        self._proxies: set[Proxy] = set()
        self._harm = 0  # what may end streams by name
        self._faults = faults
        self._seed = seed
        self._kills = kills
        self._lock = threading.Lock()
        self._started = 0
        self._deaths = 0
        self._is_up = threading.Event()  # a stream that finds no server has not begun, and tells nothing
        self._is_up.set()
        self._references: dict[str, History] = {}

    def learn(self) -> None:
        """Run each kind of stream without faults.

        Raises:
            RuntimeError: One of them is wrong even so.
        """
        for name in STREAMS:
            history, _ = run(name, self._servers[0].address)
            if found := violations(history):
                raise RuntimeError(f"{name} without faults: {found}")
            self._references[name] = history

    def work(self) -> None:
        """Run streams, one after the other, until there were enough faults; for several threads at the same time."""
        while sum(self.outcome.faults.values()) < self._faults:
            with self._lock:
                number, self._started = self._started, self._started + 1
            self._run(random.Random(f"{self._seed}/{number}"), number)

    def _run(self, chance: random.Random, number: int) -> None:
        name = chance.choice(list(STREAMS))
        self._is_up.wait()
        with Proxy(self._servers[0].address, seed=number) as proxy:
            self._proxies.add(proxy)
            for _ in range(chance.randint(1, _MAX_FAULTS_OF_A_STREAM)):
                direction: Direction = "up" if chance.random() < 0.5 else "down"
                reach = chance.choice((500, 5_000, 50_000)) if direction == "up" else chance.choice((500, 3_000, 9_000))
                seconds = chance.uniform(0.05, 0.6)
                proxy.arm(Fault(chance.choice(KINDS), direction, chance.randrange(reach), seconds))
            deaths, harm = self._deaths, self._harm
            history, events = run(name, proxy.address)
            has_died, was_harmed = self._deaths != deaths, self._harm != harm
            made = proxy.made
            self._proxies.discard(proxy)
        may_fail = was_harmed or (has_died and not history.results)
        may_fail = may_fail or (has_died and self._state is None and name not in REWINDABLE)
        should = None if name in NOT_REPEATABLE else self._references[name]
        with self._lock:
            self.outcome.faults += made
            self.outcome.streams[name] += 1
            self.outcome.named[name] += may_fail and history.end != "done"
            self.outcome.resumed.update(str(event.how) for event in events if event.kind == "resumed")
            for found in violations(history, should, may_fail=may_fail):
                self.outcome.wrong[f"{name} {self._seed}/{number} {dict(made)}"].append(found)

    def haunt(self, done: threading.Event) -> None:
        """Harm the servers, in proportion to the other faults."""
        chance = random.Random(self._seed)
        kinds = [*SERVER_KINDS, DECODER_KIND, *(STATE_KINDS if self._state is not None else ())]
        while not done.wait(0.2):
            of_server = sum(self.outcome.faults[kind] for kind in kinds)
            if not self._kills or sum(self.outcome.faults.values()) < (of_server + 1) * self._kills:
                continue
            kind = chance.choice(kinds)
            self._strike(kind, chance)
            self.outcome.faults[kind] += 1

    def _strike(self, kind: str, chance: random.Random) -> None:
        server, seconds = self._servers[0], chance.uniform(0.2, 2.0)
        if kind == "freeze":
            server.freeze(seconds)
        elif kind == "forged":
            code = mishaps.knock(server.address, mishaps.forged_token())
            if code is not grpc.StatusCode.NOT_FOUND:
                self.outcome.wrong["forged"].append(f"a forged token was answered by {code}")
        elif kind == "twins":
            ends = sorted(code.name for code in mishaps.twins(server.address))
            if ends != ["ABORTED", "ABORTED", "CANCELLED"]:
                self.outcome.wrong["twins"].append(f"three calls with one session ended with {ends}")
        elif kind == "expired":
            self._deaths += 1  # without snapshots it is as if the server had died
            for proxy in tuple(self._proxies):
                proxy.strike(Fault("refuse", seconds=_PARK_SECONDS + 1.0))
        elif kind == "clock" and self._state is not None:
            mishaps.jump_clock(self._state)
        elif kind == "no_descriptors":
            self._harm += 1  # a decoder may be missing
            mishaps.without_descriptors(server, seconds)
        elif kind == DECODER_KIND:
            self._harm += 1
            mishaps.kill_decoders(server)
        elif kind == "no_disk" and self._state is not None:
            mishaps.without_disk(self._state, seconds)
        else:
            self._kill(kind)

    def _kill(self, kind: str) -> None:
        server = self._servers[0]
        self._is_up.clear()
        self._deaths += 1
        if kind == "move" and len(self._servers) > 1:
            self._servers.append(self._servers.pop(0))
            for proxy in tuple(self._proxies):
                proxy.target = self._servers[0].address
        if kind == "terminate":
            server.terminate()
        else:
            server.kill()
        if kind == "damage" and self._state is not None:
            self._harm += 1
            mishaps.damage(self._state)
        server.start()
        self._is_up.set()


def main(
    faults: Annotated[int, typer.Option(help="How many faults to make.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    streams: Annotated[int, typer.Option(help="How many streams run at the same time.")] = 4,
    kills: Annotated[int, typer.Option(help="Every so many faults, one happens to the server; 0: never.")] = 50,
    state: Annotated[bool, typer.Option(help="Servers share a state directory.")] = True,
) -> None:
    """Make faults, and print what became of the streams."""
    logging.getLogger("masklet").addHandler(logging.NullHandler())  # thousands of lines say the same
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="masklet-faults-"))) if state else None
        arguments = [
            "--grace",
            "5",
            "--max-sessions",
            "32",
            "--max-sessions-per-client",
            "32",
            "--snapshot-frames",
            "4",
            "--park-seconds",
            str(_PARK_SECONDS),
        ]
        if folder is not None:
            arguments += ["--state-dir", str(folder)]
        servers = [stack.enter_context(ServerProcess(*arguments)) for _ in range(1 if folder is None else 2)]
        trial = Trial(servers, folder, faults, seed, kills)
        trial.learn()
        done = threading.Event()
        haunting = threading.Thread(target=trial.haunt, args=(done,))
        workers = [threading.Thread(target=trial.work) for _ in range(streams)]
        for thread in (haunting, *workers):
            thread.start()
        for thread in workers:
            thread.join()
        done.set()
        haunting.join()
    _report(trial.outcome, time.monotonic() - begun, seed)
    if trial.outcome.wrong:
        raise typer.Exit(1)


def _report(outcome: Outcome, seconds: float, seed: int) -> None:
    console = Console()
    table = Table(title=f"faults, seed {seed}, {platform.processor() or platform.machine()}, {date.today()}")
    table.add_column("fault")
    table.add_column("times", justify="right")
    for kind, count in sorted(outcome.faults.items()):
        table.add_row(kind, str(count))
    table.add_row("all", str(sum(outcome.faults.values())), style="bold")
    console.print(table)
    table = Table(title=f"streams, {seconds:.0f} s")
    for column in ("stream", "ended", "of these by a named error"):
        table.add_column(column, justify="left" if column == "stream" else "right")
    for name, count in sorted(outcome.streams.items()):
        table.add_row(name, str(count), str(outcome.named[name]))
    console.print(table)
    console.print("resumed:", dict(outcome.resumed))
    console.print(f"violations: {sum(map(len, outcome.wrong.values()))}")
    for where, found in outcome.wrong.items():
        console.print(f"  {where}: {'; '.join(found[:3])}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    typer.run(main)
