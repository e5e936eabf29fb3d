"""Asks a server for its health beside an attack: ``python -m tests.hostile.health ADDRESS``, until its input ends."""

from __future__ import annotations

import json
import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_PATIENCE = 10.0


def ask(address: str, ended: threading.Event) -> tuple[list[float], int]:
    """The seconds that each answer took, and how many did not come."""
    seconds, failures = [], 0
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while not ended.wait(0.1):
            began = time.monotonic()
            try:
                stub.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE)
            except grpc.RpcError:
                failures += 1
            seconds.append(time.monotonic() - began)
    return seconds, failures


def _wait_for_the_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def main() -> None:
    """Ask until nothing more comes on standard input, and say how it went, as a line of JSON."""
    ended = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(ended,), daemon=True).start()
    seconds, failures = ask(sys.argv[1], ended)
    slow = sum(one > 1 for one in seconds)
    found = {"asked": len(seconds), "failed": failures, "over_1_s": slow, "worst_s": max(seconds, default=0)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
