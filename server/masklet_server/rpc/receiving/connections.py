"""Ends connections that only cost: too many of one address, and those that send without anything coming of it.

gRPC parses and keeps the headers of a call before anybody can look at its token, up to tens of megabytes for each
connection, whatever `grpc.max_metadata_size` says. It has one bound on connections, for all addresses together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from masklet_server.rpc.receiving.sockets import Connection, Peer, connections_to, end, peer_of

logger = logging.getLogger(__name__)

_SECONDS = 0.2  # between two looks
# What a connection may send without a call: a handshake of TLS, some settings, the headers of a call.
_UNKNOWN_BYTES = 1024**2
# The same of a connection that had a call.
_KNOWN_BYTES = 8 * 1024**2
# Messages of tens of megabytes may be there before the event loop has seen their calls. The event loop makes the looks,
# so a connection is ended if it was above what is allowed for so many looks: a new one, and one that had a call.
_LOOKS, _KNOWN_LOOKS = 3, 5
# The other side acknowledges what it is sent: 26 bytes for each 16 KiB, and less.
_SENT_FOR_ONE = 64
# Unread responses of all connections together. Beyond, those with the most of them are ended.
_UNREAD_BYTES = 128 * 1024**2
# A connection without any call is ended after so many seconds.
_SILENT_SECONDS = 60.0

Clock = Callable[[], float]
Ended = tuple[str, list[Connection]]


@dataclass(frozen=True)
class ConnectionBounds:
    """What connections may cost.

    Attributes:
        per_address: Connections of one address; 0: any number.
        message_bytes: Largest message of a call.
    """

    per_address: int
    message_bytes: int


class Account:
    """What is known of one connection from its calls.

    Attributes:
        is_known: A call was admitted on it, so somebody with a valid token has it.
        running: How many calls run that may send large messages.
        unread: Bytes of responses that the other side has not read in time. gRPC keeps them as long as the connection.
        signs: Counts what has come of its bytes: calls and messages.
        at: When the last of these came.
    """

    def __init__(self, now: float) -> None:
        self.is_known = False
        self.running = 0
        self.unread = 0
        self.signs = 0
        self.at = now


@dataclass
class _Seen:
    """A connection when something had come of its bytes for the last time.

    Attributes:
        first: When it was seen for the first time.
        signs: Its account's at that time.
        received: Bytes at that time.
        sent: The same of the other direction.
        above: For how many looks it has been above what is allowed.
    """

    first: float
    signs: int
    received: int
    sent: int
    above: int = 0


class ConnectionWatch:
    """Looks at the connections of a server several times a second.

    Args:
        bounds: What they may cost.
        on_ended: Called with the name of the bound for each connection that was ended.
        clock: Gives the time in seconds.
    """

    def __init__(
        self, bounds: ConnectionBounds, on_ended: Callable[[str], None], clock: Clock = time.monotonic
    ) -> None:
        self._bounds = bounds
        self._on_ended = on_ended
        self._clock = clock
        self._accounts: dict[Peer, Account] = {}
        self._seen: dict[int, _Seen] = {}

    def account(self, peer: str) -> Account:
        """What is known of the connection of a call.

        Args:
            peer: gRPC's name of the other side.
        """
        account = Account(self._clock())
        key = peer_of(peer)
        if key is not None:  # Unix sockets have no addresses, and files' rights
            account = self._accounts.setdefault(key, account)
        self._note(account)
        return account

    @contextmanager
    def call(self, account: Account) -> Iterator[None]:
        """A call that may send large messages runs in the block."""
        account.running += 1
        try:
            yield
        finally:
            account.running -= 1
            self._note(account)

    def message(self, account: Account) -> None:
        """A message of one of its calls has arrived."""
        self._note(account)

    def unread(self, account: Account, size: int) -> None:
        """A response of so many bytes was not read in time, and cannot be taken back."""
        account.unread += size

    def _note(self, account: Account) -> None:
        account.signs += 1
        account.at = self._clock()

    async def run(self, ports: Collection[int]) -> None:
        """Look at the connections to these ports again and again; for ever, as a task of its own."""
        while True:
            await asyncio.sleep(_SECONDS)
            connections = await asyncio.to_thread(connections_to, ports)
            for limit, costly in self.judge(connections):
                for _ in costly:
                    self._on_ended(limit)
                await asyncio.to_thread(end, costly, ports)
                addresses = sorted({one.peer[0] for one in costly})
                logger.warning("ended %d connections (%s) of %s", len(costly), limit, ", ".join(addresses[:5]))

    def judge(self, connections: Collection[Connection]) -> list[Ended]:
        """Those of the open connections that are to be ended, by the names of bounds."""
        now = self._clock()
        self._forget(connections, now)
        idle, sending = [], []
        for connection in connections:
            account = self._accounts.get(connection.peer)
            seen = self._look(connection, account, now)
            allowed = self._allowed(account, connection.sent - seen.sent)
            seen.above = seen.above + 1 if connection.received - seen.received > allowed else 0
            is_known = account is not None and account.is_known
            if seen.above >= (_KNOWN_LOOKS if is_known else _LOOKS):
                sending.append(connection)
            elif account is None and now - seen.first > _SILENT_SECONDS:
                idle.append(connection)
        deaf = self._deaf(connections)
        gone = {one.inode for one in (*idle, *sending, *deaf)}
        many = self._too_many([one for one in connections if one.inode not in gone])
        found = {
            "connection_bytes": sending,
            "connection_idle": idle,
            "connection_unread": deaf,
            "max_connections_per_address": many,
        }
        return [(limit, ended) for limit, ended in found.items() if ended]

    def _deaf(self, connections: Collection[Connection]) -> list[Connection]:
        """The connections with the most unread responses, until those of the others are few enough."""
        unread = {one.inode: account.unread for one in connections if (account := self._accounts.get(one.peer))}
        total, deaf = sum(unread.values()), []
        for connection in sorted(connections, key=lambda one: -unread.get(one.inode, 0)):
            if total <= _UNREAD_BYTES:
                break
            total -= unread.get(connection.inode, 0)
            deaf.append(connection)
        return deaf

    def _look(self, connection: Connection, account: Account | None, now: float) -> _Seen:
        signs = account.signs if account is not None else 0
        seen = self._seen.get(connection.inode)
        if seen is None:
            received, sent = (0, 0) if account is None else (connection.received, connection.sent)
            seen = self._seen[connection.inode] = _Seen(now, signs, received, sent)
        elif seen.signs != signs:
            seen.signs, seen.received, seen.sent = signs, connection.received, connection.sent
        return seen

    def _allowed(self, account: Account | None, sent: int) -> int:
        if account is None or not account.is_known:
            return _UNKNOWN_BYTES
        in_flight = account.running * (self._bounds.message_bytes + _UNKNOWN_BYTES)
        return _KNOWN_BYTES + in_flight + sent // _SENT_FOR_ONE

    def _too_many(self, connections: Collection[Connection]) -> list[Connection]:
        """Beyond the bound of an address: those without calls first, then those whose last call is longest ago."""
        by_address: Mapping[str, list[Connection]] = defaultdict(list)
        for connection in connections:
            by_address[connection.peer[0]].append(connection)
        ended = []
        for of_one in by_address.values():
            beyond = len(of_one) - self._bounds.per_address
            if self._bounds.per_address and beyond > 0:
                quiet = [one for one in of_one if not self._runs(one)]
                ended += sorted(quiet, key=self._last_use)[:beyond]
        return ended

    def _runs(self, connection: Connection) -> bool:
        account = self._accounts.get(connection.peer)
        return account is not None and account.running > 0

    def _last_use(self, connection: Connection) -> tuple[bool, bool, float]:
        account = self._accounts.get(connection.peer)
        if account is None:
            return False, False, self._seen[connection.inode].first
        return account.is_known, True, account.at

    def _forget(self, connections: Collection[Connection], now: float) -> None:
        """Forget connections that are gone. One that was opened while these were counted is not."""
        inodes, peers = {one.inode for one in connections}, {one.peer for one in connections}
        self._seen = {inode: seen for inode, seen in self._seen.items() if inode in inodes}
        for peer, account in list(self._accounts.items()):
            if peer not in peers and not account.running and now - account.at > 2 * _SECONDS + 1:
                del self._accounts[peer]
