"""Ray itself: started for one machine, or found on a cluster that runs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import grpc

from masklet.cli.signals import Terminated
from masklet.errors import FailedPrecondition, InvalidArgument, Unavailable

# Ray wants at least this much shared memory for objects. Nothing of masklet goes through it.
_OBJECT_STORE_BYTES = 80 * 1024**2
# Of a Ray head that does not answer, Ray itself would say so after three minutes.
_REACH_SECONDS = 3.0
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
# What a Ray head answers that wants another token.
_OF_RAY = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_FIX = "start one there with `ray start --head`, or give the address of another one, as HOST:PORT or auto"


@contextlib.contextmanager
def connected_ray(address: str) -> Iterator[None]:
    """Ray, connected while the block runs.

    Args:
        address: An existing cluster; empty: a new one of this machine alone, which ends with the block.

    Raises:
        FailedPrecondition: Ray is not installed.
        InvalidArgument: The address is malformed.
        Unavailable: No Ray cluster answers at the address.
        Terminated: SIGTERM has come; Ray has ended by then, as after Ctrl-C.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not address:
        # It is never written anywhere; Ray's processes inherit it.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Ray listens on 127.0.0.1 alone where it is told that this is no machine for clusters.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise FailedPrecondition(
            f"a cluster needs Ray, which is not installed ({error}); pip install 'masklet[cluster]'"
        ) from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address:
        options["address"] = find_head(address)
    else:
        # Without "local", Ray would join a cluster that somebody else has started on this machine.
        options |= {"address": "local", "num_cpus": max(os.cpu_count() or 1, 2)}
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        _begin(ray, options, address)
        with _ended_by_sigterm():
            try:
                yield
            finally:
                if not address:
                    serve.shutdown()
    finally:
        ray.shutdown()


def find_head(address: str) -> str:
    """Make sure that a Ray head answers, before Ray itself tries for minutes.

    Args:
        address: HOST:PORT; or auto: the cluster of RAY_ADDRESS, or the one of `ray start` on this machine.

    Returns:
        HOST:PORT, as Ray wants it.

    Raises:
        InvalidArgument: The address is malformed.
        Unavailable: Nobody listens there, or something else than Ray.
    """
    from ray._private import services  # what ray.init itself does with the address

    if address != "auto" and ("://" in address or not address.rpartition(":")[2].isdigit()):
        raise InvalidArgument.of(
            "ray", f"is {address!r}, must be HOST:PORT of a Ray head, such as 10.0.0.1:6379, or auto"
        )
    try:
        target: str = services.canonicalize_bootstrap_address_or_die(address)
    except ConnectionError:
        raise Unavailable(f"ray: there is no Ray cluster on this machine, nor in RAY_ADDRESS; {_FIX}") from None
    except (ValueError, OSError) as error:
        raise InvalidArgument.of("ray", f"{address!r} cannot be resolved ({error}); give HOST:PORT or auto") from error
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        where = target if target == address else f"{target}, which is how Ray reads {address}"
        raise Unavailable(f"ray: nobody listens at {where} ({why}); {_FIX}") from None
    if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
        _check_is_ray(target)
    return target


def _check_is_ray(target: str) -> None:
    """Ask whether a Ray head is there. Ray's own clients would ask for minutes.

    Raises:
        Unavailable: It is something else, or wants another token.
    """
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        ask: Any = channel.unary_unary(_CHECK_ALIVE)
        try:
            ask(b"", timeout=_REACH_SECONDS, metadata=_authorization())
        except grpc.RpcError as error:
            failed: Any = error
            if failed.code() in _OF_RAY:
                raise _wants_another_token(target) from None
            raise Unavailable(
                f"ray: what listens at {target} is no Ray head (it answers with {failed.code().name}); {_FIX}"
            ) from None


def _authorization() -> tuple[tuple[str, str], ...]:
    """Ray's token, as metadata; nothing where this process has none, or Ray's tokens are switched off here."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # of C

    loader = AuthenticationTokenLoader.instance()
    return tuple(loader.get_token_for_http_header().items()) if loader.has_token() else ()


def _wants_another_token(target: str) -> Unavailable:
    return Unavailable(
        f"ray: the Ray cluster at {target} wants another token than this process has; put the cluster's token into "
        "RAY_AUTH_TOKEN or ~/.ray/auth_token"
    )


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within it, SIGTERM raises `Terminated`. Ray's own handler would abort the process, and leave workers behind."""
    has_come = threading.Event()

    def terminate(number: int, frame: FrameType | None) -> None:
        has_come.set()
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:  # what Ray makes of every signal while it waits
        if has_come.is_set():
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin(ray: Any, options: Mapping[str, Any], address: str) -> None:
    """Start or find Ray.

    Raises:
        Unavailable: It cannot be started, or cannot be joined.
        Terminated: SIGTERM has come meanwhile.
    """
    try:
        ray.init(**options)
    except SystemExit as error:  # what Ray makes of SIGTERM
        raise Terminated from error
    except ray.exceptions.AuthenticationError as error:
        raise Unavailable(
            f"ray: {str(error).strip().splitlines()[0]}; put the cluster's token into RAY_AUTH_TOKEN or "
            "~/.ray/auth_token, or set RAY_AUTH_MODE=disabled if it has none"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if address:
            raise Unavailable(
                f"ray: the Ray cluster at {options['address']} cannot be joined from this machine ({lines[0]}); run "
                "this on one of its machines, where `ray start` was called, with the same versions of Ray and Python"
            ) from error
        raise Unavailable(f"Ray cannot be started on this machine: {lines[0]}") from error
