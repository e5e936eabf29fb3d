"""Connections that only cost are ended, and no other ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet.v1 import image_pb2
from masklet_server.rpc.receiving.connections import ConnectionBounds, ConnectionWatch
from masklet_server.rpc.receiving.sockets import Connection, connections_to, end, peer_of
from tests.support.rpc import Edge, edge, finish, open_stream, segment

MIB = 1024**2
PEER = "ipv4:10.0.0.1:5000"


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("ipv4:127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("ipv6:[::1]:5000", ("::1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", ("fe80::1", 5000)),
        ("ipv6:[::ffff:10.0.0.1]:5000", ("10.0.0.1", 5000)),
        ("unix:", None),
        ("unix:/run/x", None),
    ],
)
def test_peers_have_one_name(name: str, peer: tuple[str, int] | None) -> None:
    assert peer_of(name) == peer


class Watched:
    """A watch, its clock, and connections as the system would tell of them."""

    def __init__(self, per_address: int = 4) -> None:
        self.now = 0.0
        self.watch = ConnectionWatch(ConnectionBounds(per_address, 32 * MIB), lambda limit: None, lambda: self.now)
        self.open: dict[int, Connection] = {}

    def has(self, number: int, received: int = 0, *, sent: int = 0, address: str = "10.0.0.1") -> None:
        self.open[number] = Connection((address, 5000 + number), sent, received, number)

    def judge_for_long(self, looks: int = 5) -> dict[str, list[int]]:
        """A connection has a second, in which its bytes may still become calls."""
        for _ in range(looks - 1):
            assert self.judge() == {}
        return self.judge()

    def judge(self) -> dict[str, list[int]]:
        self.now += 0.2
        return {limit: [one.inode for one in ended] for limit, ended in self.watch.judge(list(self.open.values()))}


def test_a_stranger_may_send_a_mebibyte() -> None:
    watched = Watched()
    watched.has(0, MIB)
    watched.has(1, MIB + 1)
    assert watched.judge_for_long(3) == {"connection_bytes": [1]}


def test_a_connection_whose_bytes_become_calls_may_send_for_ever() -> None:
    watched = Watched()
    account = watched.watch.account(PEER)
    account.is_known = True
    for i in range(20):
        watched.has(0, 7 * MIB * i)
        watched.watch.message(account)
        assert watched.judge() == {}
    watched.has(0, 7 * MIB * 19 + 8 * MIB)
    assert watched.judge() == {}
    watched.has(0, 7 * MIB * 19 + 8 * MIB + 1)
    assert watched.judge_for_long() == {"connection_bytes": [0]}


def test_a_call_that_runs_may_send_a_message() -> None:
    watched = Watched()
    account = watched.watch.account(PEER)
    account.is_known = True
    with watched.watch.call(account), watched.watch.call(account):
        watched.has(0)
        watched.judge()
        watched.has(0, 70 * MIB)
        assert watched.judge() == {}
        watched.has(0, 75 * MIB)
        assert watched.judge_for_long() == {"connection_bytes": [0]}
    watched.has(0, 76 * MIB)
    assert watched.judge() == {}  # two calls have ended: something has come of it


def test_calls_of_the_health_service_make_nobody_known() -> None:
    watched = Watched()
    watched.has(0)
    watched.watch.account(PEER)
    watched.judge()
    watched.has(0, MIB + 1)
    assert watched.judge_for_long(3) == {"connection_bytes": [0]}


def test_what_was_sent_before_a_first_look_is_not_held_against_a_call() -> None:
    watched = Watched()
    account = watched.watch.account(PEER)
    account.is_known = True
    with watched.watch.call(account):
        watched.watch.message(account)
    watched.has(0, 32 * MIB)
    assert watched.judge() == {}


def test_long_results_are_acknowledged() -> None:
    watched = Watched()
    account = watched.watch.account(PEER)
    account.is_known = True
    watched.has(0)
    watched.judge()
    watched.has(0, 9 * MIB, sent=100 * MIB)
    assert watched.judge() == {}
    watched.has(0, 10 * MIB, sent=100 * MIB)
    assert watched.judge_for_long() == {"connection_bytes": [0]}


def test_a_connection_without_any_call_is_ended_after_a_minute() -> None:
    watched = Watched()
    watched.has(0)
    watched.has(1)
    watched.watch.account("ipv4:10.0.0.1:5001")
    for _ in range(299):
        assert watched.judge() == {}
    watched.judge()
    assert watched.judge() == {"connection_idle": [0]}


def test_beyond_the_bound_of_an_address_those_without_calls_are_ended() -> None:
    watched = Watched(per_address=4)
    for number in range(4):
        watched.has(number)
    for number in range(10, 30):
        watched.has(number, address=f"10.0.1.{number}")
    running = watched.watch.account("ipv4:10.0.0.1:5000")
    watched.watch.account("ipv4:10.0.0.1:5001")
    with watched.watch.call(running):
        watched.judge()
        watched.has(4)
        watched.has(5)
        assert watched.judge() == {"max_connections_per_address": [2, 3]}
        for number in range(6, 9):
            watched.has(number)
            watched.watch.account(f"ipv4:10.0.0.1:{5000 + number}")
        watched.watch.account("ipv4:10.0.0.1:5006").is_known = True
        # Those without a call, the oldest first; then the one whose call is longest ago.
        assert watched.judge() == {"max_connections_per_address": [2, 3, 4, 5, 1]}


def test_of_those_that_do_not_read_the_worst_is_ended() -> None:
    watched = Watched()
    for number, mebibytes in enumerate([40, 60, 0, 20]):
        watched.has(number, address=f"10.0.1.{number}")
        account = watched.watch.account(f"ipv4:10.0.1.{number}:{5000 + number}")
        for _ in range(mebibytes // 20):
            watched.watch.unread(account, 20 * MIB)
    assert watched.judge() == {}
    watched.watch.unread(account, 20 * MIB)
    assert watched.judge() == {"connection_unread": [1]}


def test_any_number_where_there_is_no_bound() -> None:
    watched = Watched(per_address=0)
    for number in range(1000):
        watched.has(number)
    assert watched.judge() == {}


def test_what_is_gone_is_forgotten_and_its_number_means_another_one() -> None:
    watched = Watched()
    watched.watch.account(PEER).is_known = True
    watched.has(0, 5 * MIB)
    assert watched.judge() == {}
    watched.open.clear()
    watched.now += 10
    watched.judge()
    watched.has(0, 5 * MIB)
    assert watched.judge_for_long(3) == {"connection_bytes": [0]}


def test_calls_that_the_event_loop_sees_late_are_waited_for() -> None:
    watched = Watched()
    account = watched.watch.account(PEER)
    account.is_known = True
    watched.has(0)
    for i in range(1, 10):
        watched.has(0, i * 50 * MIB)  # a hundred streams, whose window has grown
        for _ in range(4):
            assert watched.judge() == {}
        watched.watch.account(PEER)
    assert watched.judge() == {}


# Over real connections


def port_of(running: Edge) -> int:
    return int(running.server.address.rpartition(":")[2])


@contextlib.asynccontextmanager
async def raw(running: Edge) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
    try:
        yield reader, writer
    finally:
        writer.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


async def send_headers(writer: asyncio.StreamWriter, count: int) -> None:
    """The headers of a call, which go on and on."""
    writer.write(PREFACE)
    for i in range(count):
        name = f"x{i:07}".encode()
        text = b"y" * 10_000
        field = b"\0" + bytes([len(name)]) + name + b"\x7f" + _rest_of_length(len(text)) + text
        writer.write(frame(9 if i else 1, 0, 1, field))
        await asyncio.wait_for(writer.drain(), 5)


def _rest_of_length(length: int) -> bytes:
    """HPACK's number after a prefix of seven bits."""
    length -= 127
    found = b""
    while length >= 128:
        found += bytes([length % 128 + 128])
        length //= 128
    return found + bytes([length])


async def test_sockets_are_found_with_what_they_received() -> None:
    async with edge() as running, raw(running) as (_, writer):
        writer.write(PREFACE)
        await writer.drain()
        await asyncio.sleep(0.2)
        (found,) = connections_to([port_of(running)])
        assert found.peer == writer.get_extra_info("sockname")
        assert found.received == len(PREFACE)
        assert connections_to([1]) == []


async def test_an_ended_connection_is_closed_for_its_client() -> None:
    async with edge() as running, raw(running) as (reader, _), raw(running) as (other, writer):
        await asyncio.sleep(0.1)
        port = port_of(running)
        (mine,) = (one for one in connections_to([port]) if one.peer == writer.get_extra_info("sockname"))
        end([mine], [port])
        await asyncio.wait_for(other.read(), 5)  # to the end
        await asyncio.sleep(0.2)
        assert [one.inode for one in connections_to([port])] != [mine.inode]
        assert len(connections_to([port])) == 1
        assert not reader.at_eof()


async def test_headers_without_an_end_end_the_connection() -> None:
    async with edge() as running, raw(running) as (_, writer):
        with pytest.raises((ConnectionError, asyncio.TimeoutError)):
            await send_headers(writer, 20_000)  # 200 MB
        assert running.sample("refusals_total", limit="connection_bytes") == 1


async def test_connections_beyond_the_bound_are_ended_and_calls_go_on() -> None:
    async with edge(max_connections_per_address=3) as running, running.stub() as stub:
        call = await open_stream(stub)
        async with contextlib.AsyncExitStack() as stack:
            readers = [(await stack.enter_async_context(raw(running)))[0] for _ in range(6)]
            async with grpc.aio.insecure_channel(running.server.address) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
                await asyncio.sleep(0.6)
                assert len(connections_to([port_of(running)])) == 3
                ended = [reader for reader in readers if await is_ended(reader)]
                assert len(ended) == 5
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        await finish(call)
        assert running.sample("refusals_total", limit="max_connections_per_address") == 5


async def is_ended(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(), 0.1)
    except asyncio.TimeoutError:
        return False
    return True


async def test_large_messages_and_many_calls_are_no_reason_to_end() -> None:
    async with edge() as running, running.stub() as stub:
        for _ in range(4):
            await asyncio.gather(*(segment(stub, size=10**7) for _ in range(8)))
        call = await open_stream(stub)
        await asyncio.sleep(0.5)
        await finish(call)
        assert running.sample("refusals_total", limit="connection_bytes") == 0


async def test_a_response_that_is_not_read_holds_no_turn_for_ever() -> None:
    async with edge(receive_seconds=0.5, max_requests=1) as running, running.stub() as stub:
        running.service.on_segment = lambda: image_pb2.SegmentImageResponse(image_id="x" * 10**6)
        async with raw(running) as (reader, writer):
            window = frame(4, 0, 0, (4).to_bytes(2, "big") + bytes(4))  # nothing may be sent on a stream
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window)
            message = image_pb2.SegmentImageRequest(image_id="a").SerializeToString()
            data = b"\0" + len(message).to_bytes(4, "big") + message
            writer.write(frame(1, 4, 1, segment_headers()) + frame(0, 1, 1, data))
            await asyncio.sleep(0.2)
            answered = asyncio.ensure_future(segment(stub))
            await asyncio.sleep(0.1)
            assert not answered.done()
            assert len((await asyncio.wait_for(answered, 5)).image_id) == 10**6
            assert not reader.at_eof()
        method = "masklet.v1.TrackingService/SegmentImage"
        assert running.sample("rpcs_total", method=method, code="DEADLINE_EXCEEDED") == 1
        assert running.sample("rpcs_total", method=method, code="OK") == 1


def segment_headers() -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/masklet.v1.TrackingService/SegmentImage",
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    pairs = (text.encode() for pair in fields.items() for text in pair)
    return b"".join((b"" if i % 2 else b"\0") + bytes([len(text)]) + text for i, text in enumerate(pairs))
