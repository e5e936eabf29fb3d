"""What can happen to a server beside its network: no descriptors, no disk, killed decoders, strangers with tokens."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import signal
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


def damage(state: Path) -> int:
    """Cut off the newest snapshot of each session. Returns how many there were."""
    newest = {path.parent: path for path in sorted(state.rglob("*.snapshot"))}
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
