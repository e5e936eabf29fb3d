"""Which server computes for a program that names none: that of MASKLET_SERVER, or one inside this process."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - what it does at exit must be registered before what `_register` registers
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from masklet._embedded import embedded_server
from masklet._sync.client import Client
from masklet.compat._models.names import ModelChoice
from masklet.errors import InvalidArgument, NotFound

ADDRESS_VARIABLE = "MASKLET_SERVER"
TOKEN_VARIABLE = "MASKLET_TOKEN"  # noqa: S105 - the name of a variable
MODEL_VARIABLE = "MASKLET_COMPAT_MODEL"

_lock = threading.Lock()
_clients: dict[tuple[str, str], Client] = {}
_running = ExitStack()


def close() -> None:
    """End all servers and connections that were started here; later calls of `connect` start new ones."""
    with _lock:
        _clients.clear()
        _running.close()


def _register(function: Callable[[], None]) -> None:
    """Have a function called when the process ends, while threads can still start: a server needs some to end."""
    getattr(threading, "_register_atexit", atexit.register)(function)


_register(close)


def is_remote() -> bool:
    """Whether MASKLET_SERVER names a server."""
    return bool(os.environ.get(ADDRESS_VARIABLE))


def connect(choice: ModelChoice, device: str = "auto") -> tuple[Client, str]:
    """A client for a model. All callers in a process share connections and servers.

    MASKLET_SERVER is the server's address, MASKLET_TOKEN its bearer token. Without MASKLET_SERVER, a server starts
    inside this process, one for each model and device, and ends with the process. MASKLET_COMPAT_MODEL names a model to
    use in place of the one that the program asks for.

    Args:
        choice: The model that the program asks for.
        device: The device of a server inside this process: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        The client, and the model's name on its server.

    Raises:
        NotFound: The server does not have the model, or no model of this name is known.
        Unavailable: The server cannot be reached; or MASKLET_SERVER is not set, and the server's packages are not
            installed.
        MaskletError: The server cannot be started.
    """
    if chosen := os.environ.get(MODEL_VARIABLE):
        choice = replace(choice, name=chosen, embedded=chosen)
    with _lock:
        if not is_remote():
            return _embedded_client(choice.embedded, device), choice.embedded_name
        client = _remote_client(os.environ[ADDRESS_VARIABLE], os.environ.get(TOKEN_VARIABLE) or None)
    _check_model(client, choice.name)
    return client, choice.name


def _remote_client(address: str, token: str | None) -> Client:
    key = (address, token or "")
    if key not in _clients:
        try:
            _clients[key] = _running.enter_context(Client(address, token=token))
        except InvalidArgument as error:
            raise error.within(ADDRESS_VARIABLE) from None
    return _clients[key]


def _embedded_client(model: str, device: str) -> Client:
    key = (model, device)
    if key not in _clients:
        server = embedded_server(
            f"without {ADDRESS_VARIABLE}=HOST:PORT in the environment, masklet.compat starts a server of its own, which"
        )
        # Calls that nobody has closed end with the client, just before the server does; it takes note within this time.
        address = _running.enter_context(server(model, device, grace_seconds=2.0))
        _clients[key] = _running.enter_context(Client(address))
    return _clients[key]


def _check_model(client: Client, name: str) -> None:
    models = [model for model in client.info().models if model.loaded]
    if not any(model.answers_to(name) for model in models):
        loaded = [model.name for model in models]
        raise NotFound(
            f"the server at {os.environ[ADDRESS_VARIABLE]} has not loaded the model {name!r}, but {', '.join(loaded)}; "
            f"start it with `masklet serve --model {name}`, or name another model in {MODEL_VARIABLE}"
        )
