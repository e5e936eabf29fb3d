"""Makes messages of bytes. Those with many fields are checked and read beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.descriptor import Descriptor

from masklet_server.budgets.message_size import StructureCheck
from masklet_server.budgets.turns import Turns

T = TypeVar("T")

# Any message of so many bytes is read in a millisecond.
_SMALL_BYTES = 16 * 1024
# So many fields are looked at, and read, in a millisecond or two.
_FEW_FIELDS = 2000


@dataclass(frozen=True)
class MessageKind(Generic[T]):
    """A kind of message.

    Attributes:
        read: Makes a message of its bytes.
        descriptor: Of the message.
    """

    read: Callable[[bytes], T]
    descriptor: Descriptor


class MessageReader:
    """Reads the messages of all clients.

    A message with many fields takes tenths of a second and the interpreter's lock. So one thread reads such messages,
    one after the other, and clients take turns.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="messages")
        self._turns = Turns(1, 1)

    async def read(self, data: bytes, kind: MessageKind[T], client: str) -> T:
        """Make a message.

        Raises:
            InvalidArgument: It has too many fields.
            google.protobuf.message.DecodeError: It is malformed.
        """
        if len(data) <= _SMALL_BYTES:
            return kind.read(data)
        check = StructureCheck(data, kind.descriptor)
        if check.look_at(_FEW_FIELDS):
            return kind.read(data)

        def finish() -> T:
            while not check.look_at(_FEW_FIELDS):
                pass
            return kind.read(data)

        async with self._turns.turn(client):
            return await asyncio.get_running_loop().run_in_executor(self._executor, finish)

    def close(self) -> None:
        """End the thread; a message that waits is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Messages(Generic[T]):
    """The messages of one call, from the bytes that gRPC gives.

    Args:
        raw: The bytes of each message.
        read: Makes a message of them.
    """

    def __init__(self, raw: AsyncIterable[bytes], read: Callable[[bytes], Awaitable[T]]) -> None:
        self._raw = aiter(raw)
        self._read = read

    def __aiter__(self) -> Messages[T]:
        return self

    async def __anext__(self) -> T:
        return await self._read(await anext(self._raw))
