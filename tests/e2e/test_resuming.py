"""Streams that outlive connections and servers, with the model nano: the masks are those of an undisturbed run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.embedded import EmbeddedServer
from tests.support import e2e
from tests.support.processes import decoders, settle

Request = tracking_pb2.TrackRequest
CONFIG = tracking_pb2.TrackConfig(resumable=True, deterministic=True, window=1)
VIDEO = e2e.lossless()
END = Request(end_of_video=tracking_pb2.EndOfVideo())
# By number of frame results that the client has: clicks on (object, frame).
CLICKS = {0: [(1, 0)], 6: [(2, 3)], 9: [(1, 9)], 12: [(2, 7)]}


@contextlib.contextmanager
def server(**settings: Any) -> Iterator[Any]:
    with (
        EmbeddedServer(device="cpu", dtype="float32", runtime="torch", **settings) as address,
        grpc.insecure_channel(address) as channel,
    ):
        yield tracking_pb2_grpc.TrackingServiceStub(channel)


class Watcher:
    """A client that clicks when it has so many results, over several calls.

    Attributes:
        seen: By sequence, the frame, the revision (-1 for a prompt) and all objects' results.
        done: The session has ended.
    """

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, int, list[common_pb2.ObjectResult]]] = {}
        self.done = False
        self._token = ""
        self._number = self._frames = self._acked = 0
        self._said: dict[int, common_pb2.Prompt] = {}
        self._taken: dict[int, tracking_pb2.Applied] = {}

    def begin(self) -> list[Request]:
        return [Request(config=CONFIG), *self._clicks(), Request(video_chunk=VIDEO), END]

    def resume(self, *, can_rewind: bool) -> list[Request]:
        operations = [
            tracking_pb2.AppliedOperation(
                request_id=i,
                prompt=self._said[i],
                applied_after_sequence=taken.applied_after_sequence,
                applied_after_frame=taken.applied_after_frame if taken.HasField("applied_after_frame") else None,
            )
            for i, taken in self._taken.items()
        ]
        message = tracking_pb2.Resume(token=self._token, last_response=self._number, can_rewind=can_rewind)
        message.last_sequence, message.last_ack = max(self.seen, default=0), self._acked
        if can_rewind:
            message.config.CopyFrom(CONFIG)
            message.operations.extend(operations)
        again = [Request(prompt=said, request_id=i) for i, said in self._said.items() if i not in self._taken]
        ack = [Request(ack=tracking_pb2.Ack(sequence=self._acked))] if self._acked else []
        video = [Request(video_chunk=VIDEO), END] if can_rewind else []
        return [Request(resume=message), *again, *ack, *video]

    def watch(self, stub: Any, requests: list[Request], breaks_after: int = 10_000) -> tracking_pb2.Resumed | None:
        """Make a call, and watch until the session is done, or so many results have come."""
        waiting, resumed = list(requests), None

        def said() -> Iterator[Request]:
            while not self.done:
                while waiting:
                    yield waiting.pop(0)
                time.sleep(0.001)

        call = stub.Track(said(), timeout=60)
        for response in call:
            if response.HasField("resumed"):
                resumed = response.resumed
            assert response.number in (0, self._number + 1)
            self._number = max(self._number, response.number)
            waiting += self._take(response)
            if len(self.seen) >= breaks_after:
                call.cancel()
                break
        return resumed

    def _take(self, response: tracking_pb2.TrackResponse) -> list[Request]:
        match response.WhichOneof("response"):
            case "session":
                self._token = response.session.resume_token
            case "applied":
                self._taken[response.request_id] = response.applied
            case "prompt_result":
                result = response.prompt_result
                self.seen[result.sequence] = (result.frame_index, -1, [result.object])
            case "frame_result":
                frame = response.frame_result
                assert frame.sequence not in self.seen
                self.seen[frame.sequence] = (frame.frame_index, frame.revision, list(frame.objects))
                self._frames, self._acked = self._frames + 1, frame.sequence
                return [*self._clicks(), Request(ack=tracking_pb2.Ack(sequence=frame.sequence))]
            case "done":
                self.done = True
            case "error":
                raise AssertionError(response.error.message)
        return []

    def _clicks(self) -> list[Request]:
        clicks = []
        for object_id, frame_index in CLICKS.get(self._frames, ()):
            x, y = e2e.center(object_id - 1, frame_index)
            point = common_pb2.Point(x=x, y=y, label=common_pb2.POINT_LABEL_FOREGROUND)
            prompt = common_pb2.Prompt(object_id=object_id, frame_index=frame_index, points=[point])
            self._said[len(self._said) + 1] = prompt
            clicks.append(Request(prompt=prompt, request_id=len(self._said)))
        return clicks


def same(watcher: Watcher, reference: Watcher) -> None:
    """Check that both have the same results, with the same masks to the bit.

    A server measures at its start what computes faster, so scores of two servers may differ in their last bit.
    """
    assert watcher.seen.keys() == reference.seen.keys()
    for sequence, (frame_index, revision, objects) in reference.seen.items():
        found = watcher.seen[sequence]
        assert found[:2] == (frame_index, revision)
        for one, other in zip(found[2], objects, strict=True):
            assert (one.object_id, one.mask, one.box, one.area) == (other.object_id, other.mask, other.box, other.area)
            assert one.object_score == pytest.approx(other.object_score, abs=1e-4)
            assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-4)


@pytest.fixture(scope="module")
def reference() -> Watcher:
    watcher = Watcher()
    with server() as stub:
        assert watcher.watch(stub, watcher.begin()) is None
    assert len(watcher.seen) > e2e.NUM_FRAMES + 4
    assert list(watcher.seen) == list(range(1, len(watcher.seen) + 1))
    return watcher


def test_a_network_that_breaks_changes_no_bit(reference: Watcher) -> None:
    watcher = Watcher()
    with server() as stub:
        watcher.watch(stub, watcher.begin(), breaks_after=5)
        for cut in (11, 17, 10_000):
            resumed = watcher.watch(stub, watcher.resume(can_rewind=False), breaks_after=cut)
            assert resumed is not None
            assert resumed.how == tracking_pb2.RESUMPTION_ATTACHED
    same(watcher, reference)


def test_a_server_that_dies_changes_no_bit(reference: Watcher) -> None:
    watcher = Watcher()
    with server() as stub:
        watcher.watch(stub, watcher.begin(), breaks_after=9)
    for cut in (16, 10_000):
        with server() as stub:
            resumed = watcher.watch(stub, watcher.resume(can_rewind=True), breaks_after=cut)
            assert resumed is not None
            assert resumed.how == tracking_pb2.RESUMPTION_REWOUND
    same(watcher, reference)


def test_no_decoder_is_left_of_a_client_that_does_not_come_back() -> None:
    before, left = decoders(), threading.Event()

    def said() -> Iterator[Request]:
        yield from [Request(config=CONFIG), Request(video_chunk=VIDEO[: len(VIDEO) * 3 // 4])]
        left.wait()  # to end here would be to half-close

    with server(park_seconds=1.0) as stub:
        call = stub.Track(said(), timeout=60)
        token = next(call).session.resume_token
        deadline = time.monotonic() + 20
        while not decoders() - before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        call.cancel()
        left.set()
        time.sleep(0.5)
        assert decoders() - before, "the session is parked"
        settle(len(before))
        late = stub.Track(iter([Request(resume=tracking_pb2.Resume(token=token))]), timeout=60)
        with pytest.raises(grpc.RpcError, match="its client was away for more than 1 s"):
            next(late)
