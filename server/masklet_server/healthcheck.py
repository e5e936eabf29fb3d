"""``python -m masklet_server.healthcheck [ADDRESS]``: exit 0 if grpc.health.v1 says SERVING, 1 if not.

Without ADDRESS: MASKLET_HEALTH_ADDRESS or MASKLET_ADDRESS. It speaks plain text: a server with TLS needs a
`health_address`, which serves nothing but its health.
"""

from __future__ import annotations

import os
import re
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet_server.settings import split_address

_TIMEOUT_SECONDS = 5.0


def main() -> int:
    """Ask once; returns the exit code."""
    address = _address()
    request = health_pb2.HealthCheckRequest()
    try:
        with grpc.insecure_channel(address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        print(f"{address}: {error.code().name}", file=sys.stderr)
        return 1
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(f"{address}: {name}")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _address() -> str:
    if len(sys.argv) > 1:
        return sys.argv[1]
    address = os.environ.get("MASKLET_HEALTH_ADDRESS") or os.environ.get("MASKLET_ADDRESS") or "127.0.0.1:50051"
    parts = split_address(address)
    # What is listened on everywhere is reached here.
    everywhere = parts is not None and re.fullmatch(r"[0.:]+", parts[0])
    return f"127.0.0.1:{parts[1]}" if parts is not None and everywhere else address


if __name__ == "__main__":
    sys.exit(main())
