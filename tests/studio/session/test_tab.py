"""What waits for a tab that does not read is bounded, and nothing is missed in silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from masklet_studio.project.records import MaskRecord
from masklet_studio.session.tab import MAX_WAITING_BYTES, MAX_WAITING_EVENTS, Tab
from tests.support.studio import records


class SlowSocket:
    """Takes what it is sent once `reads` is set."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.sent: list[Any] = []

    async def send_text(self, data: str) -> None:
        await self.reads.wait()
        self.sent.append(json.loads(data))

    async def send_bytes(self, data: bytes) -> None:
        await self.reads.wait()
        self.sent += records(data)


def _record(frame: int, length: int) -> MaskRecord:
    return MaskRecord(1, frame, 1, 1, 0.5, 1.0, 5, (4, 4), b"0" * length)


async def _until(comes: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if comes():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


@contextlib.asynccontextmanager
async def _writing(tab: Tab) -> Any:
    task = asyncio.create_task(tab.write())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_masks_for_which_there_is_no_room_are_named_later() -> None:
    socket = SlowSocket()
    tab = Tab(socket)
    size = 100_000
    async with _writing(tab):
        for frame in range(200):
            tab.masks([_record(frame, size)])
        socket.reads.set()
        await _until(lambda: any(isinstance(one, dict) for one in socket.sent))
    frames = [one.frame for one in socket.sent if isinstance(one, MaskRecord)]
    assert 0 < len(frames) * size <= MAX_WAITING_BYTES
    assert frames == list(range(len(frames)))
    assert socket.sent[-1] == {"event": "invalid", "object": 1, "from": len(frames), "to": 199}


async def test_masks_that_were_asked_for_wait_for_room_and_all_come() -> None:
    socket = SlowSocket()
    tab = Tab(socket)
    data = _record(0, MAX_WAITING_BYTES // 4).pack()

    async def asked() -> None:
        for _ in range(20):
            await tab.stored(data)

    async with _writing(tab):
        asking = asyncio.create_task(asked())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not asking.done()
        socket.reads.set()
        await asking
        await _until(lambda: len(socket.sent) >= 20)


async def test_of_states_only_the_newest_waits() -> None:
    socket = SlowSocket()
    tab = Tab(socket)
    async with _writing(tab):
        tab.event({"event": "reply", "id": 1})
        await asyncio.sleep(0)
        for frame in range(50):
            tab.event({"event": "tracking", "frame": frame})
            tab.event({"event": "lanes", "lanes": [{"object": frame % 2, "frame": frame}]})
        socket.reads.set()
        await _until(lambda: len(socket.sent) >= 3)
    assert socket.sent[1:] == [
        {"event": "tracking", "frame": 49},
        {"event": "lanes", "lanes": [{"object": 0, "frame": 48}, {"object": 1, "frame": 49}]},
    ]


async def test_a_tab_that_never_reads_is_cut_off() -> None:
    socket = SlowSocket()
    tab = Tab(socket)
    async with _writing(tab) as writing:
        for number in range(MAX_WAITING_EVENTS + 10):
            tab.event({"event": "reply", "id": number})
        assert tab.overrun
        socket.reads.set()
        await asyncio.wait_for(writing, 10)


async def test_a_state_replaces_what_was_told_before_it_and_nothing_that_came_after() -> None:
    socket = SlowSocket()
    tab = Tab(socket)
    async with _writing(tab):
        tab.event({"event": "reply", "id": 1})
        await asyncio.sleep(0)
        tab.event({"event": "state", "n": 1})
        tab.event({"event": "prompts", "n": 2})
        tab.event({"event": "lanes", "lanes": [{"object": 1}]})
        tab.event({"event": "invalid", "n": 3})
        tab.event({"event": "state", "n": 4})
        tab.event({"event": "prompts", "n": 5})
        socket.reads.set()
        await _until(lambda: len(socket.sent) >= 4)
    assert [one.get("n") for one in socket.sent[1:]] == [3, 4, 5]


async def test_a_tab_that_is_gone_holds_up_nobody_and_keeps_nothing() -> None:
    socket = SlowSocket()
    tab = Tab(socket)
    data = _record(0, MAX_WAITING_BYTES).pack()
    async with _writing(tab):
        await tab.stored(data)
        asking = [asyncio.create_task(tab.stored(data)) for _ in range(3)]
        for _ in range(50):
            await asyncio.sleep(0)
        assert not any(one.done() for one in asking)
        tab.close()
        await asyncio.wait_for(asyncio.gather(*asking), 10)


async def test_answers_that_wait_for_room_take_it_one_after_the_other() -> None:
    """Each of them would be let in by the same room."""
    socket = SlowSocket()
    tab = Tab(socket)
    data = _record(0, MAX_WAITING_BYTES).pack()
    async with _writing(tab):
        await tab.stored(data)
        asking = [asyncio.create_task(tab.stored(data)) for _ in range(20)]
        await asyncio.sleep(0)
        let_in: list[int] = []

        async def sending(_: bytes) -> None:
            await asyncio.sleep(0)
            let_in.append(sum(one.done() for one in asking))

        socket.send_bytes = sending  # type: ignore[assignment, method-assign]
        socket.reads.set()
        await asyncio.gather(*asking)
        await _until(lambda: len(let_in) >= 20)
        assert all(let_in[sent] <= sent + 1 for sent in range(20)), let_in
