"""Streams over a network that breaks and to servers that die: `python -m benchmarks.faults --faults 10000 --seed N`.

Streams of each kind run at the same time, each through a proxy of its own that breaks its connections at random places.
Each pair of servers shares a state directory. Now and then one of them is killed, frozen or asked to end, and its
streams go on at the other one, or there when it is started again; or it has no descriptors or no disk for a while, its
newest snapshots are damaged or look ten years old, its decoders are killed, strangers knock with forged tokens, or two
calls resume one session at once. Clients that are away for too long find that their tokens have expired. What each
client saw is held against a run without faults: each result once, in order, with the same masks to the last bit.

A stream may end with an error only where nobody has what it needs any more: its decoder was killed; its server died
when no snapshot was good, and the client could not send its video again. `--no-state` does without the directory: then
a server that dies ends each stream whose video cannot be sent again.

What is tested is not the model, so it sees small squares (`nano@128`), and servers are forked from a process that has
imported everything. With `--model nano` a frame costs six times as much, and nothing else changes.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import random
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
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
from tests.faults.template import ServerTemplate

SERVER_KINDS = ("kill", "terminate", "freeze", "no_descriptors", "forged", "twins", "expired")
STATE_KINDS = ("move", "damage", "no_disk", "clock")
# Not among those at random: it may end any stream by name.
DECODER_KIND = "kill_decoders"
_MAX_FAULTS_OF_A_STREAM = 8
# As long as servers keep a session whose client is away. Without snapshots, what comes later is lost.
_PARK_SECONDS = 3.0
_PARK_SECONDS_WITHOUT_STATE = 10.0
_RESUME_SECONDS = 120.0
# A connection may break before the server has said a word.
_CONNECT_SECONDS = 15.0
# A stream that takes so long hangs.
_STREAM_SECONDS = 600.0
_TELL_SECONDS = 30.0


@dataclass
class Outcome:
    """What all streams of a run came to. `lock` is held while it is changed.

    Attributes:
        goal: How many faults there are to be.
        faults: How often each kind of fault was made.
        streams: How many streams of each kind came to their end.
        named: How many ended with an error that may be.
        resumed: How often streams went on, by where from.
        wrong: What was wrong, with the stream and its seed.
    """

    goal: int
    faults: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    resumed: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def made(self) -> int:
        """How many faults there were so far."""
        with self.lock:
            return sum(self.faults.values())

    def blame(self, where: str, what: str) -> None:
        """Write down and print what was wrong; the caller holds the lock."""
        self.wrong[where].append(what)
        print(f"WRONG in {where}: {what}", flush=True)


class Trial:
    """Runs streams to servers that share a state directory, until there were enough faults.

    Args:
        servers: The servers, which this kills; all after the first one stand by.
        state: The directory that they share; None: there is none.
        outcome: Where to count; other trials may use it at the same time.
        seed: Of everything random.
        kills: Every so many faults, one happens to the server itself; 0: never.
    """

    def __init__(
        self, servers: list[ServerProcess], state: Path | None, outcome: Outcome, seed: str, kills: int
    ) -> None:
        self._outcome = outcome
        self._servers = servers
        self._state = state
        self._proxies: set[Proxy] = set()
        self._harms = 0  # begun and ended, that may end streams by name
        self._seed = seed
        self._kills = kills
        self._lock = threading.Lock()
        self._started = self._deaths = self._made = 0
        self._is_up = threading.Event()  # a stream that finds no server has not begun, and tells nothing
        self._is_up.set()
        self._references: dict[str, History] = {}
        self._running: dict[int, History] = {}
        self._interrupted: list[tuple[History, int]] = []  # by the last death, and how many results each had

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
        while self._outcome.made < self._outcome.goal:
            with self._lock:
                number, self._started = self._started, self._started + 1
            self._run(random.Random(f"{self._seed}/{number}"), number)

    def _run(self, chance: random.Random, number: int) -> None:
        name = chance.choice(list(STREAMS))
        deaths, harms = self._deaths, self._harms  # before the server is looked for: it may be killed meanwhile
        self._is_up.wait()
        history = self._running[number] = History()
        with Proxy(self._servers[0].address, seed=number) as proxy:
            self._proxies.add(proxy)
            for _ in range(chance.randint(1, _MAX_FAULTS_OF_A_STREAM)):
                direction: Direction = "up" if chance.random() < 0.5 else "down"
                reach = chance.choice((500, 5_000, 50_000)) if direction == "up" else chance.choice((500, 3_000, 9_000))
                seconds = chance.uniform(0.05, 0.6)
                proxy.arm(Fault(chance.choice(KINDS), direction, chance.randrange(reach), seconds))
            _, events = run(
                name,
                proxy.address,
                history=history,
                resume_seconds=_RESUME_SECONDS,
                timeout=_STREAM_SECONDS,
                connect_timeout=_CONNECT_SECONDS,
            )
            has_died, was_harmed = self._deaths != deaths, self._harms != harms or harms % 2 == 1
            made = proxy.made
            self._proxies.discard(proxy)
        del self._running[number]
        may_fail = was_harmed or (has_died and not history.results)
        may_fail = may_fail or (has_died and self._state is None and name not in REWINDABLE)
        may_fail = may_fail or (has_died and name in NOT_REPEATABLE)  # there may have been no snapshot yet
        should = None if name in NOT_REPEATABLE else self._references[name]
        with self._lock:
            self._made += sum(made.values())
        with self._outcome.lock:
            self._outcome.faults += made
            self._outcome.streams[name] += 1
            self._outcome.named[name] += may_fail and history.end != "done"
            self._outcome.resumed.update(str(event.how) for event in events if event.kind == "resumed")
            for found in violations(history, should, may_fail=may_fail):
                self._outcome.blame(f"{name} {self._seed}/{number} {dict(made)}", found)

    def haunt(self, done: threading.Event) -> None:
        """Harm the servers, in proportion to the other faults."""
        chance = random.Random(self._seed)
        kinds = [*SERVER_KINDS, DECODER_KIND, *(STATE_KINDS if self._state is not None else ())]
        of_server = 0
        while not done.wait(0.2):
            if not self._kills or self._made < (of_server + 1) * self._kills:
                continue
            if not all(history.end or len(history.results) > before for history, before in self._interrupted):
                continue  # a client gives up a video over which servers die again and again
            kind = chance.choice(kinds)
            self._strike(kind, chance)
            of_server += 1
            with self._outcome.lock:
                self._outcome.faults[kind] += 1

    def _strike(self, kind: str, chance: random.Random) -> None:
        server, seconds = self._servers[0], chance.uniform(0.2, 2.0)
        if kind in ("kill", "terminate", "move", "damage"):
            self._kill(kind)
        elif kind == "freeze":
            server.freeze(seconds)
        elif kind in ("forged", "twins"):
            self._knock(kind, server)
        elif kind == "expired":
            self._expire(chance)
        elif kind == "clock" and self._state is not None:
            mishaps.jump_clock(self._state)
        elif kind == "no_descriptors":
            with self._harming():  # a decoder may be missing
                mishaps.without_descriptors(server, seconds)
        elif kind == DECODER_KIND:
            with self._harming():
                mishaps.kill_decoders(server)
        elif kind == "no_disk" and self._state is not None:
            mishaps.without_disk(self._state, seconds)

    def _knock(self, kind: str, server: ServerProcess) -> None:
        if kind == "forged":
            code = mishaps.knock(server.address, mishaps.forged_token())
            if code is not grpc.StatusCode.NOT_FOUND:
                self._is_wrong("forged", f"a forged token was answered by {code}")
        else:
            ends = sorted(code.name for code in mishaps.twins(server.address))
            if ends != ["ABORTED", "ABORTED", "CANCELLED"]:
                self._is_wrong("twins", f"three calls with one session ended with {ends}")

    def _expire(self, chance: random.Random) -> None:
        self._note_death()  # without snapshots it is as if the server had died
        for proxy in tuple(self._proxies):
            if chance.random() < 0.5:  # the others keep the servers busy meanwhile
                proxy.strike(Fault("refuse", seconds=_park_seconds(self._state) + 1.0))

    @contextlib.contextmanager
    def _harming(self) -> Iterator[None]:
        self._harms += 1
        try:
            yield
        finally:
            self._harms += 1

    def _is_wrong(self, where: str, what: str) -> None:
        with self._outcome.lock:
            self._outcome.blame(where, what)

    def _note_death(self) -> None:
        self._deaths += 1
        self._interrupted = [(history, len(history.results)) for history in tuple(self._running.values())]

    def _kill(self, kind: str) -> None:
        server = self._servers[0]
        self._is_up.clear()
        self._note_death()
        if kind == "move" and len(self._servers) > 1:
            self._servers.append(self._servers.pop(0))
            for proxy in tuple(self._proxies):
                proxy.target = self._servers[0].address
        if kind == "terminate":
            server.terminate()
        else:
            server.kill()
        if kind == "damage" and self._state is not None:
            with self._harming():
                mishaps.damage(self._state)
        try:
            server.start()
        finally:
            self._is_up.set()


def _park_seconds(state: Path | None) -> float:
    return _PARK_SECONDS if state is not None else _PARK_SECONDS_WITHOUT_STATE


def main(
    faults: Annotated[int, typer.Option(help="How many faults to make.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    pairs: Annotated[int, typer.Option(help="How many pairs of servers; a pair shares a state directory.")] = 2,
    streams: Annotated[int, typer.Option(help="How many streams each pair has at the same time.")] = 8,
    kills: Annotated[int, typer.Option(help="Every so many faults, one happens to the server; 0: never.")] = 20,
    state: Annotated[bool, typer.Option(help="There are state directories; otherwise each server is alone.")] = True,
    model: Annotated[str, typer.Option(help="Of all servers.")] = "nano@128",
) -> None:
    """Make faults, and print what became of the streams."""
    logging.getLogger("masklet").addHandler(logging.NullHandler())  # thousands of lines say the same
    outcome = Outcome(faults)
    with contextlib.ExitStack() as stack:
        template = stack.enter_context(ServerTemplate())
        trials = []
        for number in range(pairs):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="masklet-faults-"))) if state else None
            arguments = _arguments(folder)
            servers = [
                stack.enter_context(ServerProcess(*arguments, model=model, template=template))
                for _ in range(1 if folder is None else 2)
            ]
            trials.append(Trial(servers, folder, outcome, f"{seed}/{number}", kills))
        for trial in trials:
            trial.learn()
        begun = time.monotonic()
        _run_all(trials, streams, outcome)
        seconds = time.monotonic() - begun
    _report(outcome, seconds, seed)
    if outcome.wrong:
        raise typer.Exit(1)


def _arguments(state: Path | None) -> list[str]:
    arguments = [
        *("--grace", "5", "--max-sessions", "64", "--max-sessions-per-client", "64", "--snapshot-frames", "4"),
        *("--park-seconds", str(_park_seconds(state))),
    ]
    return arguments if state is None else [*arguments, "--state-dir", str(state)]


def _run_all(trials: list[Trial], streams: int, outcome: Outcome) -> None:
    """Run the trials to their end, and tell how it goes on the way."""
    done = threading.Event()
    haunting = [_guarded(trial.haunt, outcome, done) for trial in trials]
    workers = [_guarded(trial.work, outcome) for trial in trials for _ in range(streams)]
    begun = told = time.monotonic()
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.1)
        if (now := time.monotonic()) - told >= _TELL_SECONDS:
            told, made = now, outcome.made
            rate = made / (now - begun) * 60
            print(f"{made} faults, {rate:.0f} a minute, {len(outcome.wrong)} streams with violations", flush=True)
    done.set()
    for thread in haunting:
        thread.join()


def _guarded(function: Callable[..., None], outcome: Outcome, *arguments: object) -> threading.Thread:
    """Run a function on a thread of its own; if it fails, the whole run is wrong, and ends."""

    def guarded() -> None:
        try:
            function(*arguments)
        except Exception:  # noqa: BLE001 - whatever it is, the run tells of it
            with outcome.lock:
                outcome.blame("the run itself", traceback.format_exc())
                outcome.goal = 0

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    return thread


def _report(outcome: Outcome, seconds: float, seed: int) -> None:
    console = Console()
    table = Table(title=f"faults, seed {seed}, {platform.processor() or platform.machine()}, {date.today()}")
    table.add_column("fault")
    table.add_column("times", justify="right")
    for kind in sorted({*KINDS, *SERVER_KINDS, *STATE_KINDS, DECODER_KIND}):
        table.add_row(kind, str(outcome.faults[kind]))
    table.add_row("all", str(sum(outcome.faults.values())), style="bold")
    console.print(table)
    table = Table(title=f"streams, {seconds:.0f} s, {outcome.made / seconds * 60:.0f} faults a minute")
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
