"""Decoding processes are ended when they have more memory than there is."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from masklet.errors import ResourceExhausted
from masklet_server.budgets.budget import Bounds, Budget
from masklet_server.budgets.decoder_memory import START_BYTES, DecoderLease, DecoderMemory, memory_of, needed_for
from masklet_server.budgets.machine import memory_bytes
from masklet_server.budgets.shares import BudgetLimits

MIB = 1024**2
# Takes as many MiB as it reads, and says when it has them.
EATER = """
import sys
kept = []
for line in sys.stdin:
    kept.append(b"x" * (int(line) << 20))
    print(flush=True)
"""


class Eater:
    """A process that takes memory, in place of a decoder."""

    def __init__(self, memory: DecoderMemory, client: str) -> None:
        self.lease: DecoderLease = memory.admit(client)
        self.killed = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", EATER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.eat(0)
        self.lease.started(self._process.pid, self._kill)

    def eat(self, mebibytes: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{mebibytes}\n".encode())
        self._process.stdin.flush()
        self._process.stdout.readline()

    def _kill(self) -> None:
        self._process.kill()
        self.killed.set()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self.lease.close()


class Decoders:
    def __init__(self, total: int, per_client: int) -> None:
        self.refused: list[str] = []
        self.budget = Budget("max_decoder_memory_bytes", "decoders", Bounds(total, per_client), self.refused.append)
        self.memory = DecoderMemory(self.budget)
        self.eaters: list[Eater] = []

    def begin(self, client: str) -> Eater:
        self.eaters.append(Eater(self.memory, client))
        return self.eaters[-1]


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(total=400 * MIB, per_client=250 * MIB)
    yield made
    for eater in made.eaters:
        eater.close()
    made.memory.close()
    assert made.budget.used == 0


def test_no_process_is_admitted_without_memory() -> None:
    decoders = Decoders(total=3 * START_BYTES, per_client=2 * START_BYTES)
    leases = [decoders.memory.admit(client) for client in "aab"]
    for client, limit in (("a", "max_decoder_memory_bytes_per_client"), ("c", "max_decoder_memory_bytes")):
        with pytest.raises(ResourceExhausted) as caught:
            decoders.memory.admit(client)
        assert caught.value.violations[0].field == limit
    leases[0].close()
    leases[0].close()
    decoders.memory.admit("c").close()


def test_a_large_video_is_refused_by_its_size() -> None:
    lease = Decoders(total=400 * MIB, per_client=250 * MIB).memory.admit("a")
    lease.expect(needed_for(1080, 1920))
    with pytest.raises(ResourceExhausted, match="would take more than the"):
        lease.expect(needed_for(4320, 8192))
    assert lease.nbytes == needed_for(1080, 1920)


def test_what_is_measured_after_the_end_is_not_kept() -> None:
    decoders = Decoders(total=400 * MIB, per_client=250 * MIB)
    lease = decoders.memory.admit("a")
    lease.close()
    lease.expect(100 * MIB)  # as the measuring thread does, when it has read the memory just before the end
    assert (decoders.budget.used, lease.nbytes) == (0, 0)


def test_two_threads_that_raise_what_a_process_has_count_it_once() -> None:
    class SlowBudget(Budget):
        """Gives the other thread time to come in between."""

        def take(self, client: str, amount: int) -> None:
            super().take(client, amount)
            time.sleep(0.05)

    budget = SlowBudget("max_decoder_memory_bytes", "decoders", Bounds(10**9, 10**9))
    lease = DecoderMemory(budget).admit("a")
    threads = [threading.Thread(target=lease.expect, args=(size * MIB,)) for size in (100, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (budget.used, lease.nbytes) == (100 * MIB, 100 * MIB)
    lease.close()
    assert budget.used == 0


def test_a_client_with_too_much_loses_its_largest_process(decoders: Decoders) -> None:
    small, other, large = decoders.begin("a"), decoders.begin("b"), decoders.begin("a")
    other.eat(100)
    small.eat(60)
    large.eat(230)
    assert large.killed.wait(10)
    assert large.lease.error is not None
    assert "max_decoder_memory_bytes_per_client" in large.lease.error.message
    assert not small.killed.is_set()
    assert not other.killed.is_set()


def test_when_all_have_too_much_the_client_with_the_most_pays(decoders: Decoders) -> None:
    small, large = decoders.begin("b"), decoders.begin("a")
    large.eat(220)
    while large.lease.nbytes < 220 * MIB:
        assert not large.killed.wait(0.05)
    small.eat(200)
    assert large.killed.wait(10)
    assert not small.killed.is_set()
    assert decoders.refused
    assert set(decoders.refused) == {"max_decoder_memory_bytes"}


def test_memory_of_a_process_that_is_gone() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert memory_of(process.pid) == 0


def test_half_of_the_machine_is_for_decoders() -> None:
    limits = BudgetLimits().resolved()
    assert limits.decoder_memory == Bounds(memory_bytes() // 2, memory_bytes() // 4)
    limits = BudgetLimits(decoder_memory=Bounds(1000, 2000)).resolved()
    assert limits.decoder_memory == Bounds(1000, 1000)
    assert 0 < memory_bytes() < 2**50
