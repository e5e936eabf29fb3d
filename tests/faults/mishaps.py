"""What can happen to a server beside its network: no descriptors, no disk, killed decoders, strange tokens, clocks."""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import secrets
import signal
import threading
import time
from pathlib import Path

import grpc

from masklet.v1 import tracking_pb2, tracking_pb2_grpc
from tests.faults.server import ServerProcess
from tests.support.processes import decoders

Request = tracking_pb2.TrackRequest


def without_descriptors(server: ServerProcess, seconds: float) -> None:
    """For a while the server can open no file, socket or pipe."""
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used, before[1]))
    try:
        time.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)


def without_disk(state: Path, seconds: float) -> None:
    """For a while nothing can be written to the folder of snapshots, and nothing read."""
    folder, aside = state / "sessions", state / "aside"
    if not folder.exists():
        return
    folder.rename(aside)
    folder.write_bytes(b"not a folder")
    try:
        time.sleep(seconds)
    finally:
        folder.unlink()
        aside.rename(folder)


def _inside(folder: Path) -> list[Path]:
    """All files and folders in a folder; those that a server deletes meanwhile may be among them."""
    return [Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files)]


def damage(state: Path) -> int:
    """Cut off the newest snapshot of each session. Returns how many there were."""
    newest = {path.parent: path for path in sorted(_inside(state)) if path.suffix == ".snapshot"}
    for path in newest.values():
        with contextlib.suppress(FileNotFoundError):
            path.write_bytes(path.read_bytes()[:100])
    return len(newest)


def kill_decoders(server: ServerProcess) -> int:
    """End all decoding processes of the server without a warning. Returns how many there were."""
    found = decoders(server.pid)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def knock(address: str, token: str) -> grpc.StatusCode:
    """Ask to resume a session with a token, which may be forged, expired or somebody else's. Returns the call's end."""
    with grpc.insecure_channel(address) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(
            iter([Request(resume=tracking_pb2.Resume(token=token))]), timeout=20
        )
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def forged_token() -> str:
    """A token of the right length that nobody has made."""
    return secrets.token_urlsafe(52)


def jump_clock(state: Path) -> None:
    """Let all snapshots look as if the clock had jumped by ten years meanwhile."""
    then = time.time() - 10 * 365 * 86_400
    for path in _inside(state):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (then, then))


def twins(address: str) -> list[grpc.StatusCode]:
    """Two calls resume one session at the same moment, while a third one has it. Returns how they end, sorted by name.

    At the end the one that has the session cancels it.
    """
    config = tracking_pb2.TrackConfig(resumable=True)
    with grpc.insecure_channel(address) as channel, contextlib.ExitStack() as stack:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        first = stack.enter_context(_Call(stub, Request(config=config)))
        resume = Request(resume=tracking_pb2.Resume(token=first.token(), config=config))
        calls = [first, *(stack.enter_context(_Call(stub, resume)) for _ in range(2))]
        deadline = time.monotonic() + 20
        while sum(call.code is None for call in calls) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        for call in calls:
            call.say(Request(cancel=tracking_pb2.Cancel()))
        return sorted((call.end() for call in calls), key=lambda code: code.name)


class _Call:
    """A Track call that is read on a thread of its own."""

    def __init__(self, stub: tracking_pb2_grpc.TrackingServiceStub, first: Request) -> None:
        self.code: grpc.StatusCode | None = None
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._tokens: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.say(first)
        self._call = stub.Track(iter(self._requests.get, None), timeout=30)
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> _Call:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._thread.join(20)

    def say(self, request: Request) -> None:
        self._requests.put(request)

    def token(self) -> str:
        return self._tokens.get(timeout=20)

    def end(self) -> grpc.StatusCode:
        self._thread.join(20)
        assert self.code is not None, "the call does not end"
        return self.code

    def _read(self) -> None:
        try:
            for response in self._call:
                if response.HasField("session"):
                    self._tokens.put(response.session.resume_token)
            self.code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            self.code = error.code()
