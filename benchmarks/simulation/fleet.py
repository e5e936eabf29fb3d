"""A fleet: streams come and go, devices die, start, and load their models."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.simulation.curve import BatchCurve
from benchmarks.simulation.device import Device, Stream
from benchmarks.simulation.figures import Figures

_NEVER = float("inf")


@dataclass(frozen=True)
class Demand:
    """The streams.

    Attributes:
        streams: How many there are on average.
        frame_rate: Frames a second of each.
        stream_seconds: How long one lasts on average (exponential); infinite: none ends, and none comes.
        latest: Whether frames are skipped where newer ones are there.
        surge: From `surge_at` on, so many times as many streams come.
        surge_at: When.
    """

    streams: int
    frame_rate: float = 10.0
    stream_seconds: float = _NEVER
    latest: bool = True
    surge: float = 1.0
    surge_at: float = _NEVER


@dataclass(frozen=True)
class Supply:
    """The devices.

    Attributes:
        devices: How many there are at the beginning.
        room: Streams that a device takes.
        lease_seconds: From a stream's coming to its place, if there is one.
        boot_seconds: Until a new device is there.
        load_seconds: Until it has loaded its model then.
        scale_at: The number of streams on a device, on average, above which more devices are started; infinite: none.
        scale_every: Seconds between two looks at it.
    """

    devices: int
    room: int = 256
    lease_seconds: float = 0.01
    boot_seconds: float = 60.0
    load_seconds: float = 10.0
    scale_at: float = _NEVER
    scale_every: float = 10.0


@dataclass(frozen=True)
class Failures:
    """What dies, and what it takes to go on.

    Attributes:
        at: When devices die.
        devices: How many die at that time, as with a node.
        replaced: Whether others are started in their place.
        detect_seconds: Until the death is noticed.
        snapshot_seconds: Seconds of video between two snapshots of a stream; what came after is computed again.
        snapshot_bytes: Bytes of a snapshot.
        store_bytes_per_second: What the store of snapshots gives to all together.
    """

    at: float = _NEVER
    devices: int = 1
    replaced: bool = True
    detect_seconds: float = 0.1
    snapshot_seconds: float = 2.0
    snapshot_bytes: float = 4e6
    store_bytes_per_second: float = 1e9

    def write_rate(self, streams: int) -> float:
        """Bytes a second that snapshots of so many streams write."""
        return streams * self.snapshot_bytes / self.snapshot_seconds


@dataclass(frozen=True)
class Scenario:
    """Everything that is simulated.

    Attributes:
        curve: How long a round of a device takes.
        demand: The streams.
        supply: The devices.
        failures: What dies.
        seconds: How long.
        warm_up: What comes before is not counted.
        seed: Of everything random.
    """

    curve: BatchCurve
    demand: Demand
    supply: Supply
    failures: Failures = field(default_factory=Failures)
    seconds: float = 30.0
    warm_up: float = 5.0
    seed: int = 0


class _Places:
    """Finds the device with the fewest streams that has room."""

    def __init__(self) -> None:
        self._by_count: dict[int, set[int]] = {}
        self._lowest = 0

    def put(self, device: int, count: int) -> None:
        self._by_count.setdefault(count, set()).add(device)
        self._lowest = min(self._lowest, count)

    def move(self, device: int, before: int, after: int) -> None:
        self.remove(device, before)
        self.put(device, after)

    def remove(self, device: int, count: int) -> None:
        self._by_count[count].discard(device)

    def emptiest(self, room: int) -> int | None:
        while self._lowest < room and not self._by_count.get(self._lowest):
            self._lowest += 1
        if self._lowest >= room:
            return None
        return min(self._by_count[self._lowest]) if len(self._by_count[self._lowest]) < 8 else next(
            iter(self._by_count[self._lowest])
        )  # fmt: skip


class Fleet:
    """Simulates a scenario.

    Args:
        scenario: What is simulated.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.figures = Figures()
        self._scenario = scenario
        self._chance = np.random.default_rng(scenario.seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = 0
        self._devices: list[Device] = []
        self._places = _Places()
        self._queue: deque[tuple[Stream, float]] = deque()
        self._starting = 0
        self._store_free = 0.0

    def run(self) -> Figures:
        """Simulate it; the figures."""
        scenario, demand, supply = self._scenario, self._scenario.demand, self._scenario.supply
        for _ in range(supply.devices):
            self._start_device(0.0)
        for phase in self._chance.uniform(0, 1 / demand.frame_rate, demand.streams):
            self._place(self._stream(float(phase)), 0.0, came=0.0)
        if math.isfinite(demand.stream_seconds):
            self._at(self._next_arrival(0.0), self._arrive)
        if scenario.failures.at < scenario.seconds:
            self._at(scenario.failures.at, self._fail)
        if math.isfinite(supply.scale_at):
            self._at(supply.scale_every, self._scale)
        while self._events and self._events[0][0] < scenario.seconds:
            now, _, act = heapq.heappop(self._events)
            act(now)
        for device in self._devices:
            if device.is_up:
                self.figures.up_seconds += scenario.seconds - max(scenario.warm_up, device.up_since)
        self.figures.refused = len(self._queue)
        return self.figures

    def frames_waiting(self) -> int:
        """Frames at the end that have neither a result nor were skipped."""
        return sum(device.waiting(self._scenario.seconds) for device in self._devices if device.is_up)

    @property
    def devices(self) -> int:
        """Devices that live."""
        return sum(device.is_up for device in self._devices)

    def _at(self, when: float, act: Callable[[float], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, act))

    def _stream(self, start: float) -> Stream:
        demand = self._scenario.demand
        seconds = self._scenario.seconds * 2
        if math.isfinite(demand.stream_seconds):
            seconds = float(self._chance.exponential(demand.stream_seconds))
        return Stream(start, 1 / demand.frame_rate, max(0, int(seconds * demand.frame_rate)), latest=demand.latest)

    def _next_arrival(self, now: float) -> float:
        demand = self._scenario.demand
        rate = demand.streams / demand.stream_seconds * (demand.surge if now >= demand.surge_at else 1.0)
        return now + float(self._chance.exponential(1 / rate))

    def _arrive(self, now: float) -> None:
        lease = self._scenario.supply.lease_seconds
        self._at(now + lease, lambda then: self._place(self._stream(then), then, came=now))
        self._at(self._next_arrival(now), self._arrive)

    def _place(self, stream: Stream, now: float, came: float) -> None:
        found = self._places.emptiest(self._scenario.supply.room)
        if found is None:
            self._queue.append((stream, came))
            return
        if stream.done < 0 and stream.start < now and came < now:  # it waited: its video begins when it has a place
            stream.start = now
        device = self._devices[found]
        self._places.move(found, device.count, device.count + 1)
        device.add(stream)
        if math.isinf(stream.broken) and now >= self._scenario.warm_up:
            self.figures.start_wait.add(np.array([now - came]))
        if device.asleep:
            self._wake(found, max(now, stream.start if not stream.replay and stream.done < 0 else now))

    def _wake(self, number: int, when: float) -> None:
        """Plan the next round, unless an earlier one is planned."""
        device = self._devices[number]
        if when >= device.wakes:
            return
        device.wakes = when
        generation = device.generation
        self._at(when, lambda now: self._round(number, generation, now))

    def _round(self, number: int, generation: int, now: float) -> None:
        device = self._devices[number]
        if device.generation != generation or now != device.wakes:
            return
        device.wakes = _NEVER
        before = device.count
        when, gone = device.round(now, self.figures)
        if gone:
            self._places.move(number, before, device.count)
            while self._queue and device.has_room:
                self._place(*self._taken(now))
        if math.isfinite(when):
            self._wake(number, when)

    def _taken(self, now: float) -> tuple[Stream, float, float]:
        stream, came = self._queue.popleft()
        return stream, now, came

    def _start_device(self, now: float) -> None:
        scenario = self._scenario
        device = Device(scenario.curve, scenario.supply.room, (scenario.warm_up, scenario.seconds))
        device.up_since = now
        self._devices.append(device)
        self._places.put(len(self._devices) - 1, 0)
        self.figures.most_devices = max(self.figures.most_devices, self.devices if now else len(self._devices))
        while self._queue and device.has_room:
            self._place(*self._taken(now))

    def _order_device(self, now: float) -> None:
        self._starting += 1

        def ready(then: float) -> None:
            self._starting -= 1
            self._start_device(then)

        self._at(now + self._scenario.supply.boot_seconds + self._scenario.supply.load_seconds, ready)

    def _scale(self, now: float) -> None:
        streams = sum(device.count for device in self._devices) + len(self._queue)
        wanted = math.ceil(streams / self._scenario.supply.scale_at)
        for _ in range(wanted - self.devices - self._starting):
            self._order_device(now)
        self._at(now + self._scenario.supply.scale_every, self._scale)

    def _fail(self, now: float) -> None:
        failures = self._scenario.failures
        alive = [number for number, device in enumerate(self._devices) if device.is_up]
        for number in self._chance.permutation(alive)[: failures.devices]:
            device = self._devices[number]
            self._places.remove(int(number), device.count)
            self.figures.up_seconds += max(0.0, now - max(self._scenario.warm_up, device.up_since))
            for stream in device.die(now):
                self._resume(stream, now)
            if failures.replaced:
                self._order_device(now)

    def _resume(self, stream: Stream, now: float) -> None:
        """Bring a stream to another device: noticed, its snapshot read, what came after it computed again."""
        failures = self._scenario.failures
        read = failures.snapshot_bytes / failures.store_bytes_per_second
        self._store_free = max(self._store_free, now + failures.detect_seconds) + read
        frames = failures.snapshot_seconds / stream.period
        stream.replay = min(stream.done + 1, int(self._chance.uniform(0, frames)))
        lease = self._scenario.supply.lease_seconds
        self._at(self._store_free + lease, lambda then: self._place(stream, then, came=now))
