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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from masklet_server.addresses import network_of
from masklet_server.rpc.receiving.sockets import Connection, Peer, connections_to, end, peer_of

logger = logging.getLogger(__name__)

_SECONDS = 0.2  # between two looks
# A look that comes later than so many seconds after the one before was kept up by the event loop, or by a process that
# was stopped: what the connections have sent meanwhile has had no time to become calls. It ends nothing ...
_LATE_SECONDS = 0.6
# ... unless the looks before it were all late, too: nobody may keep the event loop busy to be left alone.
_LATE_LOOKS = 10
# What a connection without a token may send beside calls and messages, and the same of one whose call was admitted.
_STRANGER_BYTES, _KNOWN_BYTES = 16 * 1024**2, 64 * 1024**2
# The same while all connections together have sent more than `_CROWDED_BYTES` of this kind.
_CROWDED_STRANGER_BYTES, _CROWDED_KNOWN_BYTES = 1024**2, 8 * 1024**2
_CROWDED_BYTES = 256 * 1024**2
# Beside each message that may be on its way: its frames, the records of TLS, and the beginning of the next one.
_BESIDE_MESSAGE_BYTES = 1024**2
# Messages of tens of megabytes may be there before the event loop has seen their calls. The event loop makes the looks,
# so a connection is ended if it was above what is allowed for so many looks: a new one, and one that had a call.
_LOOKS, _KNOWN_LOOKS = 3, 5
# The other side acknowledges what it is sent: 26 bytes for each 16 KiB, and less ...
_SENT_FOR_ONE = 64
# ... but some window updates for each result, however small, each in a record of TLS ...
_BYTES_A_RESULT = 256
# ... and pings that keep the connection alive, also where nothing else comes for days.
_BYTES_A_SECOND = 16
# Unread responses of all connections together. Beyond, those with the most of them are ended.
_UNREAD_BYTES = 128 * 1024**2
# An unread response counts as read when the connection's client has acknowledged so many times its bytes since.
_READ_FOR_ONE = 4
# A connection without any call is ended after so many looks: a minute, if none of them is late.
_SILENT_LOOKS = 300

Clock = Callable[[], float]
Ended = tuple[str, list[Connection]]


@dataclass(frozen=True)
class ConnectionBounds:
    """What connections may cost.

    Attributes:
        per_address: Connections of one address; 0: any number.
        message_bytes: Largest message of a call.
        ipv6_prefix: So many bits of an IPv6 address count as the address.
    """

    per_address: int
    message_bytes: int
    ipv6_prefix: int = 64


class Results(Protocol):
    """What a call has sent.

    Attributes:
        frames: Results of frames.
    """

    frames: int


class Account:
    """What is known of one connection from its calls.

    Attributes:
        is_known: A call was admitted on it, so somebody with a valid token has it.
        open: How many admitted calls run.
        usages: What those of them have used that may send large messages.
        unread: Bytes of responses that the other side has not read in time. gRPC keeps them as long as the connection.
        signs: Counts what has come of its bytes: calls and messages.
        at: When the last call or message came.
    """

    def __init__(self, now: float) -> None:
        self.is_known = False
        self.open = 0
        self.unread = 0
        self.signs = 0
        self.at = now
        self.usages: list[Results] = []
        self._results_before = 0

    @property
    def results(self) -> int:
        """Results of frames that its calls have sent."""
        return self._results_before + sum(usage.frames for usage in self.usages)

    def ended(self, usage: Results) -> None:
        """Keep the count of a call that has ended."""
        self.usages = [one for one in self.usages if one is not usage]
        self._results_before += usage.frames


@dataclass
class _Seen:
    """A connection when something had come of its bytes for the last time.

    Attributes:
        at: When that was.
        signs: Its account's at that time.
        results: The same.
        received: Bytes at that time.
        sent: The same of the other direction.
        first: When the connection was seen for the first time.
        looks: How often it was looked at.
        above: For how many looks it has been above what is allowed.
        acknowledged: Bytes of the other direction at the last look.
    """

    at: float
    signs: int
    results: int
    received: int
    sent: int
    first: float
    looks: int = 0
    above: int = 0
    acknowledged: int = 0


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
        self._looked_at: float | None = None
        self._late = 0

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
    def admitted(self, account: Account) -> Iterator[None]:
        """A call of somebody with a valid token runs in the block."""
        account.is_known = True
        account.open += 1
        try:
            yield
        finally:
            account.open -= 1
            self._note(account)

    @contextmanager
    def call(self, account: Account, usage: Results) -> Iterator[None]:
        """An admitted call that may send large messages, and may get many results, runs in the block."""
        account.usages.append(usage)
        try:
            yield
        finally:
            account.ended(usage)

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
            try:
                connections = await asyncio.to_thread(connections_to, ports)
            except OSError as error:  # without descriptors nobody can say what is open
                logger.warning("cannot look at the connections: %s", error)
                continue
            for limit, costly in self.judge(connections):
                for _ in costly:
                    self._on_ended(limit)
                addresses = sorted({one.peer[0] for one in costly})
                logger.warning("ended %d connections (%s) of %s", len(costly), limit, ", ".join(addresses[:5]))
                with suppress(OSError):  # the next look finds them again
                    await asyncio.to_thread(end, costly, ports)

    def judge(self, connections: Collection[Connection]) -> list[Ended]:
        """Those of the open connections that are to be ended, by the names of bounds."""
        now = self._clock()
        if self._is_late(now):
            for seen in self._seen.values():
                seen.above = min(seen.above, 1)
            return []
        self._forget(connections, now)
        beyond = {one.inode: self._beyond(one, now) for one in connections}
        is_crowded = sum(min(max(size, 0), _KNOWN_BYTES) for size in beyond.values()) > _CROWDED_BYTES
        idle, sending = [], []
        for connection in connections:
            account, seen = self._accounts.get(connection.peer), self._seen[connection.inode]
            is_known = account is not None and account.is_known
            allowed = _allowed(is_known=is_known, is_crowded=is_crowded)
            seen.above = seen.above + 1 if beyond[connection.inode] > allowed else 0
            if seen.above >= (_KNOWN_LOOKS if is_known else _LOOKS):
                sending.append(connection)
            elif account is None and seen.looks > _SILENT_LOOKS:
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

    def _is_late(self, now: float) -> bool:
        """Whether the event loop had no time since the look before, and has had some not long ago."""
        last, self._looked_at = self._looked_at, now
        self._late = self._late + 1 if last is not None and now - last > _LATE_SECONDS else 0
        return 0 < self._late <= _LATE_LOOKS

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

    def _beyond(self, connection: Connection, now: float) -> int:
        """How many bytes have come that belong to no call and message, and to none that may be on its way."""
        account = self._accounts.get(connection.peer)
        seen = self._look(connection, account, now)
        size = connection.received - seen.received
        if account is not None:
            size -= len(account.usages) * (self._bounds.message_bytes + _BESIDE_MESSAGE_BYTES)
            size -= (account.results - seen.results) * _BYTES_A_RESULT
        if account is not None and account.is_known:
            size -= (connection.sent - seen.sent) // _SENT_FOR_ONE
        return size - int((now - seen.at) * _BYTES_A_SECOND)

    def _look(self, connection: Connection, account: Account | None, now: float) -> _Seen:
        signs, results = (account.signs, account.results) if account is not None else (0, 0)
        seen = self._seen.get(connection.inode)
        if seen is None:
            received, sent = (0, 0) if account is None else (connection.received, connection.sent)
            seen = self._seen[connection.inode] = _Seen(now, signs, results, received, sent, now)
        elif seen.signs != signs:
            seen.at, seen.signs, seen.results = now, signs, results
            seen.received, seen.sent = connection.received, connection.sent
        seen.looks += 1
        if account is not None:
            account.unread = max(0, account.unread - (connection.sent - seen.acknowledged) // _READ_FOR_ONE)
        seen.acknowledged = connection.sent
        return seen

    def _too_many(self, connections: Collection[Connection]) -> list[Connection]:
        """Beyond the bound of an address: those without calls first, then those whose last call is longest ago."""
        by_address: Mapping[str, list[Connection]] = defaultdict(list)
        for connection in connections:
            by_address[network_of(connection.peer[0], self._bounds.ipv6_prefix)].append(connection)
        ended = []
        for of_one in by_address.values():
            beyond = len(of_one) - self._bounds.per_address
            if self._bounds.per_address and beyond > 0:
                quiet = [one for one in of_one if not self._runs(one)]
                ended += sorted(quiet, key=self._last_use)[:beyond]
        return ended

    def _runs(self, connection: Connection) -> bool:
        account = self._accounts.get(connection.peer)
        return account is not None and account.open > 0

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
            if peer not in peers and not account.open and now - account.at > 2 * _SECONDS + 1:
                del self._accounts[peer]


def _allowed(*, is_known: bool, is_crowded: bool) -> int:
    if is_crowded:
        return _CROWDED_KNOWN_BYTES if is_known else _CROWDED_STRANGER_BYTES
    return _KNOWN_BYTES if is_known else _STRANGER_BYTES
