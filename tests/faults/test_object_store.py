"""Sessions whose snapshots lie in an object store: another server goes on, and a bad store ends no stream."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import io
import queue
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from PIL import Image

from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.snapshots.places import open_blobs
from masklet_server.snapshots.snapshot import Snapshot
from tests.faults.history import violations
from tests.faults.proxy import Proxy
from tests.faults.server import ServerProcess
from tests.faults.template import ServerTemplate
from tests.faults.test_restoring import disturbed, reference
from tests.support.e2e import center, frames
from tests.support.object_store import BUCKET, MOTO, Weir, environment, s3_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MOTO is None, reason="moto_server is not on the PATH: pip install 'moto[server]'"),
    pytest.mark.skipif(
        importlib.util.find_spec("obstore") is None,
        reason="obstore is not installed: pip install 'masklet[object-store]'",
    ),
]
URL = f"s3://{BUCKET}/state"
Request = tracking_pb2.TrackRequest


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def weir(s3: str) -> Iterator[Weir]:
    with Weir(s3) as one:
        yield one


@pytest.fixture(scope="module")
def servers(weir: Weir) -> Iterator[list[ServerProcess]]:
    """Two, which share the bucket."""
    arguments = ("--grace", "1", "--state-dir", URL, "--snapshot-frames", "4")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(weir.address).items():
            patch.setenv(name, value)
        with ServerTemplate() as template:
            one = ServerProcess(*arguments, model="nano@128", template=template)
            other = ServerProcess(*arguments, model="nano@128", template=template)
            with one, other:
                yield [one, other]


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in environment(s3).items():
        monkeypatch.setenv(name, value)
    return Bucket()


class Bucket:
    """What lies in the bucket, read past the weir."""

    def snapshots(self) -> set[str]:
        """Names of all snapshots."""
        found = asyncio.run(open_blobs(URL).names("sessions"))
        return {info.name for info in found if info.name.endswith(".snapshot")}

    def last_frame(self, session: str) -> int:
        """The frame of a session's newest snapshot; -1: there is none."""
        found = [-1]
        for name in self.snapshots():
            data = asyncio.run(open_blobs(URL).get(name)) if name.startswith(f"sessions/{session}/") else None
            if data is not None:  # it was not deleted meanwhile
                found.append(Snapshot.from_bytes(data).last_frame)
        return max(found)


def test_another_server_goes_on_from_the_bucket(servers: list[ServerProcess], bucket: Bucket) -> None:
    """A camera's packets, which nobody can send again from the start."""
    server, another = servers
    should = reference("packets", server.address)
    before = bucket.snapshots()
    with Proxy(server.address) as proxy:

        def die() -> None:
            deadline = time.monotonic() + 30
            while bucket.snapshots() <= before and time.monotonic() < deadline:
                time.sleep(0.05)
            proxy.target = another.address
            server.kill()

        history, events = disturbed("packets", proxy.address, threading.Thread(target=die), at=5)
    server.start()
    assert violations(history, should) == []
    assert [event.kind for event in events] == ["lost", "resumed"]
    assert events[1].how == "restored"
    deadline = time.monotonic() + 30
    while not bucket.snapshots() <= before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert bucket.snapshots() <= before, "nothing is left of a stream that has ended"


class Pictures:
    """A client that sends pictures one after the other, and looks at what the server says that it keeps.

    Attributes:
        results: The frames whose results came, in order.
        kept: For each `InputKept` with a snapshot: its frame, and that of the newest one in the bucket at that moment.
    """

    def __init__(self, address: str, bucket: Bucket) -> None:
        self.results: list[int] = []
        self.kept: list[tuple[int, int]] = []
        self._bucket = bucket
        self._session = ""
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address)
        stub = tracking_pb2_grpc.TrackingServiceStub(self._channel)
        self._call = stub.Track(iter(self._requests.get, None), timeout=240)
        self._thread = threading.Thread(target=self._read)
        self._failure: grpc.RpcError | None = None

    def __enter__(self) -> Pictures:
        self._thread.start()
        x, y = center(0)
        point = common_pb2.Point(x=x, y=y, label=common_pb2.POINT_LABEL_FOREGROUND)
        self._requests.put(Request(config=tracking_pb2.TrackConfig(resumable=True)))
        self._requests.put(Request(prompt=common_pb2.Prompt(object_id=1, points=[point]), request_id=1))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._thread.join(20)
        self._channel.close()

    def send(self, index: int) -> None:
        """Send a picture, and wait for its result."""
        picture = common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=_png(index % len(frames())))
        self._requests.put(Request(frame=picture))
        deadline = time.monotonic() + 60
        while len(self.results) <= index and time.monotonic() < deadline and self._failure is None:
            time.sleep(0.01)
        assert self.results == list(range(index + 1)), self._failure

    def _read(self) -> None:
        try:
            for response in self._call:
                self._take(response)
        except grpc.RpcError as error:
            self._failure = error

    def _take(self, response: tracking_pb2.TrackResponse) -> None:
        kind = response.WhichOneof("response")
        if kind == "session":
            self._session = response.session.session_id
        elif kind == "frame_result":
            self.results.append(response.frame_result.frame_index)
            self._requests.put(Request(ack=tracking_pb2.Ack(sequence=response.frame_result.sequence)))
        elif kind == "input_kept" and response.input_kept.HasField("snapshot_frame"):
            self.kept.append((response.input_kept.snapshot_frame, self._bucket.last_frame(self._session)))


@functools.cache
def _png(index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frames()[index]).save(file, "png")
    return file.getvalue()


@contextlib.contextmanager
def opened_at_the_end(weir: Weir) -> Iterator[None]:
    try:
        yield
    finally:
        weir.open()


def stores(client: Pictures, sent: int, seconds: float) -> int:
    """Send pictures until one more snapshot is known to be stored; returns how many were sent by then."""
    known, deadline = len(client.kept), time.monotonic() + seconds
    while len(client.kept) == known:
        assert time.monotonic() < deadline, "no snapshot is stored"
        client.send(sent)
        sent += 1
        time.sleep(0.05)
    return sent


def test_a_slow_store_holds_up_nothing(servers: list[ServerProcess], weir: Weir, bucket: Bucket) -> None:
    with opened_at_the_end(weir), Pictures(servers[0].address, bucket) as client:
        weir.put_seconds = 2.0
        began = time.monotonic()
        for index in range(5):
            client.send(index)
        assert client.kept == [] or time.monotonic() - began > 2.0, "results came before anything was stored"
        stores(client, 5, 60)
    assert all(named <= stored for named, stored in client.kept), "only what is durable is named"
    assert "would not survive" not in servers[0].log()


@pytest.mark.parametrize("how", ["gone", *(pytest.param(status, marks=pytest.mark.soak) for status in (403, 500))])
def test_a_store_that_refuses_ends_no_stream(
    how: int | str, servers: list[ServerProcess], weir: Weir, bucket: Bucket
) -> None:
    server = servers[0]
    warned = server.log().count("no snapshot could be stored")
    again = server.log().count("snapshots are stored again")
    with opened_at_the_end(weir), Pictures(server.address, bucket) as client:
        sent = stores(client, 0, 60)
        while client.kept[-1][0] < sent - 5:  # nothing is under way
            time.sleep(0.05)
        time.sleep(1.0)
        known = len(client.kept)
        weir.is_gone, weir.status = how == "gone", how if isinstance(how, int) else 0
        deadline = time.monotonic() + 60
        while server.log().count("no snapshot could be stored") == warned:
            assert time.monotonic() < deadline, "the log does not say so"
            client.send(sent)
            sent += 1
            time.sleep(0.05)
        assert weir.refused > 0
        for _ in range(6):
            client.send(sent)
            sent += 1
        assert len(client.kept) == known, "nothing is named while nothing is stored"
        weir.open()
        sent = stores(client, sent, 60)
    assert all(named <= stored for named, stored in client.kept), "only what is durable is named"
    assert server.log().count("no snapshot could be stored") == warned + 1, "once, not for each try"
    assert server.log().count("snapshots are stored again") == again + 1
