"""Resumable sessions over a real channel, above a fake engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from masklet.v1 import tracking_pb2, tracking_pb2_grpc
from masklet_server.addresses import split_address
from tests.support.aio import write_all
from tests.support.house import END, Request, ack, chunk, click, config, house

CANCEL = Request(cancel=tracking_pb2.Cancel())


class Client:
    """One call of a client that keeps what it receives."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.responses: list[tracking_pb2.TrackResponse] = []

    async def say(self, *requests: Request) -> None:
        for request in requests:
            await self.call.write(request)

    async def read(self, kind: str, times: int = 1) -> Any:
        """Read until that many responses of the kind have come, and return the last one."""
        while times:
            response = await asyncio.wait_for(self.call.read(), 10)
            assert response is not grpc.aio.EOF, (kind, await self.call.code(), await self.call.details())
            self.responses.append(response)
            times -= response.WhichOneof("response") == kind
        return getattr(self.responses[-1], kind)

    async def code(self) -> grpc.StatusCode:
        """Read all that comes, and return the status."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (response := await asyncio.wait_for(self.call.read(), 10)) is not grpc.aio.EOF:
                self.responses.append(response)
        code = await self.call.code()
        assert isinstance(code, grpc.StatusCode)
        return code

    @property
    def last(self) -> int:
        return max(response.number for response in self.responses)


def frames(*clients: Client) -> list[int]:
    found = [response.frame_result for c in clients for response in c.responses if response.HasField("frame_result")]
    assert all(result.revision == 0 for result in found)
    return [result.frame_index for result in found]


def numbers(*clients: Client) -> list[int]:
    return [response.number for c in clients for response in c.responses if response.number]


def numbered(request: Request, request_id: int) -> Request:
    copy = Request()
    copy.CopyFrom(request)
    copy.request_id = request_id
    return copy


def resume(token: str, last: int = 0) -> Request:
    return Request(resume=tracking_pb2.Resume(token=token, last_response=last))


async def begun(stub: Any, *requests: Request, metadata: Any = ()) -> tuple[Client, tracking_pb2.SessionInfo]:
    client = Client(stub.Track(metadata=metadata))
    await client.say(config(resumable=True), *requests)
    return client, await client.read("session")


async def test_a_call_that_ends_is_resumed_by_another() -> None:
    async with house(window=4) as h:
        first, session = await begun(h.stub, numbered(click(), 1), chunk(20))
        assert (session.epoch, session.park_seconds, session.keep_bytes) == (1, 30, 16 * 2**20)
        result = await first.read("prompt_result")
        assert not result.HasField("applied_after_frame")
        assert result.applied_after_sequence == 0
        assert first.responses[-1].request_id == 1
        await first.read("frame_result", 3)
        first.call.cancel()
        await h.until(lambda: h.sample("parked_sessions") == 1)
        second = Client(h.stub.Track())
        await second.say(resume(session.resume_token, first.last))
        assert (await second.read("session")).epoch == 2
        resumed = await second.read("resumed")
        assert (resumed.how, resumed.video_bytes) == (tracking_pb2.RESUMPTION_ATTACHED, 20)
        assert (resumed.last_request_id, resumed.end_of_video_taken) == (1, False)
        await second.say(numbered(click(), 1), chunk(5), END)
        await second.call.done_writing()
        assert await second.code() is grpc.StatusCode.OK
        assert frames(first, second) == list(range(25))
        assert numbers(first, second) == list(range(1, 30))
        assert second.responses[-1].done.frame_count == 25
        assert h.sample("resumes_total", how="attached") == 1
        assert h.sample("frames_total") in (25, 26), "one may have been written to the call that ended"


async def test_calls_that_take_a_session_from_one_another_at_once_are_all_told() -> None:
    """A call may lose its session while the first response of it is on the way."""
    async with house(max_sessions=256, max_sessions_per_client=256) as h:

        async def ends() -> list[str]:
            first, session = await begun(h.stub)
            calls = [first, Client(h.stub.Track()), Client(h.stub.Track())]
            codes = [asyncio.create_task(one.code()) for one in calls]
            for one in calls[1:]:
                await write_all(one.call, [resume(session.resume_token)])
            _, holding = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED)
            while len(holding) > 1:
                done, holding = await asyncio.wait(holding, timeout=10, return_when=asyncio.FIRST_COMPLETED)
                assert done, "a call that has lost its session was not told so"
            for one in calls:
                await write_all(one.call, [CANCEL])
            return sorted([(await one).name for one in codes])

        for _ in range(5):
            for found in await asyncio.gather(*(ends() for _ in range(40))):
                assert found == ["ABORTED", "ABORTED", "CANCELLED"]


class Proxy:
    """Stands between a client and the server, and breaks their connections."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    def reset(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy(address: str) -> AsyncIterator[tuple[Proxy, str]]:
    parts, between = split_address(address), Proxy()
    assert parts is not None

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server, from_server = await asyncio.open_connection(*parts)
        between.writers += [writer, from_server]
        await asyncio.gather(copy(reader, from_server), copy(to_server, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield between, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        between.reset()
        server.close()


async def test_a_broken_connection_is_no_half_close() -> None:
    async with house(window=4) as h, proxy(h.address) as (between, address):
        async with grpc.aio.insecure_channel(address) as channel:
            first, session = await begun(
                tracking_pb2_grpc.TrackingServiceStub(channel), numbered(click(), 1), chunk(40), END
            )
            await first.read("frame_result", 4)
            between.reset()
            assert await first.code() is grpc.StatusCode.UNAVAILABLE
        await h.until(lambda: h.sample("parked_sessions") == 1)
        await asyncio.sleep(0.5)
        assert len(h.engine.jobs) == 4, "the window is not lifted"
        second = Client(h.stub.Track())
        await second.say(resume(session.resume_token, first.last), ack(5))
        assert (await second.read("resumed")).end_of_video_taken
        await second.read("frame_result", 4)
        await second.say(END, ack(9))
        await second.read("frame_result", 4)
        await second.call.done_writing()
        assert await second.code() is grpc.StatusCode.OK
        assert frames(first, second) == list(range(40))


async def test_a_newer_call_ends_the_older_one_with_aborted() -> None:
    async with house() as h:
        first, session = await begun(h.stub)
        second = Client(h.stub.Track())
        await second.say(resume(session.resume_token))
        await second.read("resumed")
        assert await first.code() is grpc.StatusCode.ABORTED
        assert "another call has resumed this session" in await first.call.details()
        await second.say(CANCEL)
        assert await second.code() is grpc.StatusCode.CANCELLED


async def test_cancel_frees_everything_at_once() -> None:
    async with house() as h:
        h.engine.open_gate.clear()
        client, session = await begun(h.stub, numbered(click(), 1), chunk(20))
        await client.read("video_info")
        await client.say(CANCEL)
        assert await asyncio.wait_for(client.code(), 1) is grpc.StatusCode.CANCELLED
        await h.until(lambda: all(source.closed for source in h.sources.made))
        assert h.sample("parked_sessions") == 0
        late = Client(h.stub.Track())
        await late.say(resume(session.resume_token))
        assert await late.code() is grpc.StatusCode.NOT_FOUND


async def test_a_client_that_leaves_is_counted_once() -> None:
    async with house(window=4) as h:
        first, session = await begun(h.stub, numbered(click(), 1), chunk(20))
        await first.read("frame_result")
        first.call.cancel()
        await h.until(lambda: h.sample("sessions_ended_total", code="PARKED") == 1)
        farewell = Client(h.stub.Track())
        await farewell.say(resume(session.resume_token, first.last), Request(cancel=tracking_pb2.Cancel()))
        await h.until(lambda: h.sample("sessions_ended_total", code="CANCELLED") == 1)
        assert h.sample("sessions_ended_total", code="PARKED") == 1


async def test_a_client_that_leaves_before_it_knows_its_session_leaves_nothing() -> None:
    """As one whose own time is over before the server answers: nobody has the token."""
    async with house() as h:
        call = h.stub.Track(timeout=0.001)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(config(resumable=True))
            await call.read()
        await asyncio.sleep(0.3)
        assert h.sample("parked_sessions") == 0


async def test_a_server_can_be_set_to_keep_no_session() -> None:
    async with house(park_seconds=0) as h:
        client, session = await begun(h.stub, click(), chunk(20))
        assert (session.resume_token, session.epoch, session.park_seconds, session.keep_bytes) == ("", 0, 0, 0)
        await client.read("frame_result")
        assert client.last == 0, "as of a server that knows nothing of resuming"
        client.call.cancel()
        await h.until(lambda: h.sources.made[0].closed)
        assert h.sample("parked_sessions") == 0


async def test_a_session_that_is_not_resumable_is_not_parked() -> None:
    async with house() as h:
        client = Client(h.stub.Track())
        await client.say(config(), click(), chunk(20))
        assert (await client.read("session")).resume_token == ""
        await client.read("frame_result")
        client.call.cancel()
        await h.until(lambda: h.sources.made[0].closed)
        assert h.sample("parked_sessions") == 0


async def test_resume_is_the_first_message_or_none() -> None:
    async with house() as h:
        client, session = await begun(h.stub, resume("x"))
        assert await client.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "resume came after another message" in await client.call.details()
        plain = Client(h.stub.Track())
        await plain.say(config(), resume(session.resume_token))
        assert await plain.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_session_is_resumed_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("me secret-one\nyou secret-two\n")
    mine, yours = [("authorization", "Bearer secret-one")], [("authorization", "Bearer secret-two")]
    async with house(token_file=path) as h:
        first, session = await begun(h.stub, metadata=mine)
        thief = Client(h.stub.Track(metadata=yours))
        await thief.say(resume(session.resume_token))
        assert await thief.code() is grpc.StatusCode.NOT_FOUND
        stranger = Client(h.stub.Track())
        assert await stranger.code() is grpc.StatusCode.UNAUTHENTICATED
        first.call.cancel()
        again = Client(h.stub.Track(metadata=mine))
        await again.say(resume(session.resume_token))
        assert (await again.read("session")).epoch == 2


async def test_a_server_that_stops_tells_its_clients_first() -> None:
    async with house(window=4, grace_seconds=0.6) as h:
        attached, session = await begun(h.stub, numbered(click(), 1), chunk(20))
        await attached.read("frame_result", 4)
        parked, _ = await begun(h.stub, numbered(click(), 1), chunk(20))
        parked.call.cancel()
        await h.until(lambda: h.sample("parked_sessions") == 1)
        stopping = asyncio.create_task(h.server.stop())
        moving = await attached.read("moving")
        assert moving.deadline_seconds == pytest.approx(0.6)
        assert moving.token == session.resume_token
        await attached.say(ack(5))
        await attached.read("frame_result", 4)
        assert await attached.code() is grpc.StatusCode.UNAVAILABLE
        await stopping
        assert all(source.closed for source in h.sources.made)
        assert h.sample("parked_sessions") == 0
        assert h.sample("parked_ended_total", why="stopped") == 1


async def test_nothing_is_left_of_a_client_that_does_not_come_back() -> None:
    async with house(park_seconds=0.2) as h:
        first, session = await begun(h.stub, numbered(click(), 1), chunk(20))
        await first.read("frame_result", 20)
        first.call.cancel()
        await h.until(lambda: h.sample("parked_ended_total", why="expired") == 1)
        await h.until(lambda: all(source.closed for source in h.sources.made))
        assert h.engine.forgotten == [session.session_id]
        late = Client(h.stub.Track())
        await late.say(resume(session.resume_token))
        assert await late.code() is grpc.StatusCode.NOT_FOUND
        assert "its client was away for more than 0.2 s" in await late.call.details()
        assert h.sample("resumes_total", how="refused") == 1


async def test_a_call_may_take_the_place_of_another_where_there_is_no_room_for_a_further_one() -> None:
    async with house(max_sessions_per_client=1, window=4) as h:
        first, session = await begun(h.stub, numbered(click(), 1), chunk(20))
        await first.read("frame_result", 4)
        further = Client(h.stub.Track())
        await further.say(config(resumable=True))
        assert await further.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert h.sample("refusals_total", limit="max_sessions_per_client") == 1
        second = Client(h.stub.Track())  # the server has not noticed that the first one's network is gone
        await second.say(resume(session.resume_token, first.last), ack(5))
        await second.read("frame_result", 4)
        assert await first.code() is grpc.StatusCode.ABORTED
        assert frames(first, second) == list(range(8))


async def test_a_parked_session_needs_room_like_a_new_one() -> None:
    async with house(max_sessions=1) as h:
        first, session = await begun(h.stub)
        first.call.cancel()
        await h.until(lambda: h.sample("parked_sessions") == 1)
        other, _ = await begun(h.stub)  # a parked session takes no room
        for request in (resume(session.resume_token), config()):
            refused = Client(h.stub.Track())
            await refused.say(request)
            assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        third = Client(h.stub.Track())
        await third.say(
            Request(resume=tracking_pb2.Resume(token="x", can_rewind=True, config=tracking_pb2.TrackConfig()))
        )
        assert await third.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await other.say(CANCEL)
        assert await other.code() is grpc.StatusCode.CANCELLED
        again = Client(h.stub.Track())
        await again.say(resume(session.resume_token))
        await again.read("resumed")
