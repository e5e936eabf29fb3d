"""``python -m masklet_server.healthcheck [ADDRESS]``: exits with 0 if grpc.health.v1 says SERVING, and with 1 if not.

Without ADDRESS it asks at MASKLET_HEALTH_ADDRESS, or else MASKLET_ADDRESS, or else 127.0.0.1:50051. It does not use
TLS: a server with TLS needs the setting `health_address`.
"""

from __future__ import annotations

import os
import re
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet_server.addresses import split_address

_TIMEOUT_SECONDS = 5.0


def main() -> int:
    """Ask the server once, and return the exit status."""
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
    # 0.0.0.0 and [::] are addresses to listen on; a server that does is reached at 127.0.0.1.
    everywhere = parts is not None and re.fullmatch(r"[0.:]+", parts[0])
    return f"127.0.0.1:{parts[1]}" if parts is not None and everywhere else address


if __name__ == "__main__":
    sys.exit(main())
