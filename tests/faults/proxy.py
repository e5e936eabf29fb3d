"""A network between client and server that does what networks do: it breaks off, falls silent, slices, dawdles."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["reset", "black_hole", "half_open", "refuse", "slices", "throttle"]
"""What can happen to connections.

- reset: they are reset, in the middle of whatever is being said.
- black_hole: nothing gets through for a while, and nobody is told; then they are reset.
- half_open: the server sees its end reset at once; the client is told nothing for a while.
- refuse: they are reset, and for a while nobody listens.
- slices: for a while, a few bytes are passed on at a time. Nothing is lost.
- throttle: for a while, few bytes a second get through. Nothing is lost.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)
HARMLESS = ("slices", "throttle")
Direction = Literal["up", "down"]
"""Up: from the client to the server."""
_PIECE = 64 * 1024
_THROTTLED_PIECE = 2_048


@dataclass(frozen=True)
class Fault:
    """Something that happens once, when so many more bytes have passed.

    Attributes:
        kind: What happens.
        direction: In which direction bytes are counted.
        after_bytes: How many of them still pass.
        seconds: How long it lasts.
    """

    kind: Kind
    direction: Direction = "down"
    after_bytes: int = 0
    seconds: float = 0.2


class Connection:
    """One connection through the proxy: the client's end and the server's."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = {"up": server, "down": client}

    def reset(self, *directions: Direction) -> None:
        """Reset the connection's end in these directions; all: both."""
        for direction in directions or ("up", "down"):
            transport = self.ends[direction].transport
            one = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()


class Proxy:
    """Forwards TCP connections to a server, on a thread of its own. Use it as a context manager.

    Args:
        target: The server's address; may be set anew when the server has moved.
        seed: Of the sizes of slices.

    Attributes:
        address: Where it listens.
        target: The server's address.
        made: How often each kind of fault has happened.
        connections: How many connections there have been.
    """

    def __init__(self, target: str, seed: int = 0) -> None:
        self.target = target
        self.made: Counter[str] = Counter()
        self.connections = 0
        self._random = random.Random(seed)
        self._armed: list[Fault] = []
        self._passed = {"up": 0, "down": 0}
        self._silent_until = self._sliced_until = self._throttled_until = self._refused_until = 0.0
        self._open: set[Connection] = set()  # that nothing has struck
        self._all: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Proxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def address(self) -> str:
        """Where it listens, also while it refuses connections."""
        return f"127.0.0.1:{self._port}"

    def arm(self, fault: Fault) -> None:
        """Let a fault happen when so many bytes have passed; with 0 bytes at the next one."""
        self._loop.call_soon_threadsafe(self._armed.append, fault)

    def strike(self, fault: Fault) -> None:
        """Let a fault happen now."""
        asyncio.run_coroutine_threadsafe(self._strike(fault), self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=_PIECE)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._all):
            connection.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports end in a moment of their own

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        host, _, port = self.target.rpartition(":")
        try:
            server_reader, server_writer = await asyncio.open_connection(host, int(port), limit=_PIECE)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(writer, server_writer)
        self._open.add(connection)
        self._all.add(connection)
        up = self._pump(connection, "up", reader, server_writer)
        down = self._pump(connection, "down", server_reader, writer)
        task = self._loop.create_task(self._both(connection, up, down))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _both(
        self, connection: Connection, up: Coroutine[Any, Any, None], down: Coroutine[Any, Any, None]
    ) -> None:
        try:
            await asyncio.gather(up, down)
        finally:
            connection.reset()
            self._all.discard(connection)
            self._open.discard(connection)

    async def _pump(
        self, connection: Connection, direction: Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while data := await source.read(_PIECE):
                await self._pass_on(direction, data, sink)
        if connection in self._open:  # the other side has closed in an orderly way, or was lost
            sink.close()

    async def _pass_on(self, direction: Direction, data: bytes, sink: asyncio.StreamWriter) -> None:
        while data:
            await self._wait_while_silent()
            fault = next((one for one in self._armed if one.direction == direction), None)
            size = len(data)
            if fault is not None:
                left = fault.after_bytes - self._passed[direction]
                if left <= 0:
                    self._armed.remove(fault)
                    self._passed[direction] = 0
                    await self._strike(fault)
                    continue
                size = min(size, left)
            size = min(size, await self._size_of_piece())
            sink.write(data[:size])
            await sink.drain()
            if fault is not None:
                self._passed[direction] += size
            data = data[size:]

    async def _size_of_piece(self) -> int:
        now = time.monotonic()
        if now < self._throttled_until:
            await asyncio.sleep(0.02)
            return _THROTTLED_PIECE
        if now < self._sliced_until:
            await asyncio.sleep(0)
            return self._random.randint(1, 40)
        return _PIECE

    async def _wait_while_silent(self) -> None:
        if (left := self._silent_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _strike(self, fault: Fault) -> None:
        self.made[fault.kind] += 1
        until = time.monotonic() + fault.seconds
        if fault.kind == "slices":
            self._sliced_until = until
        elif fault.kind == "throttle":
            self._throttled_until = until
        else:
            struck, self._open = self._open, set()
            if fault.kind == "reset":
                _reset(struck)
            elif fault.kind == "refuse":
                await self._refuse(struck, fault.seconds)
            elif fault.kind == "half_open":
                for connection in struck:
                    connection.reset("up")
                self._loop.call_later(fault.seconds, _reset, struck)
            else:
                self._silent_until = until
                self._loop.call_later(fault.seconds, _reset, struck)

    async def _refuse(self, struck: set[Connection], seconds: float) -> None:
        assert self._server is not None
        self._server.close()
        _reset(struck)

        is_refusing = self._refused_until > 0
        self._refused_until = max(self._refused_until, time.monotonic() + seconds)
        if is_refusing:
            return

        async def listen_again() -> None:
            # Another refusal may last longer.
            while (left := self._refused_until - time.monotonic()) > 0:  # noqa: ASYNC110 - no event tells the time
                await asyncio.sleep(left)
            self._refused_until = 0.0
            await self._listen()

        task = self._loop.create_task(listen_again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _reset(connections: set[Connection]) -> None:
    for connection in connections:
        connection.reset()
