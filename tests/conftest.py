"""Fixtures that several end-to-end tests share, and which tests `scripts/test --fast` leaves out."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import masklet
import masklet_server.engine  # noqa: F401 - sets up OpenMP, which must come before torch is loaded
from masklet_server.embedded import EmbeddedServer

# How long an example takes says more of what else the machine does than of masklet.
hypothesis.settings.register_profile("masklet", deadline=None)
hypothesis.settings.load_profile("masklet")

# In these folders nearly every test computes for seconds: `scripts/test --fast` runs only those marked `fast`.
SLOW_FOLDERS = ("e2e", "parity")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by its folder."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in SLOW_FOLDERS and item.get_closest_marker("fast") is None:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models that OpenVINO has converted are kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKLET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def nano_server() -> Iterator[str]:
    """Address of a real server with the nano model, in float32 so that runs can be compared."""
    with EmbeddedServer(device="cpu", dtype="float32", max_objects=8, idle_timeout_seconds=20) as address:
        yield address


@pytest.fixture
def client(nano_server: str) -> Iterator[masklet.Client]:
    """A client of that server."""
    with masklet.Client(nano_server) as connected:
        yield connected


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Have a run that cannot end say where it stands, and fail: a thread that is never done keeps the interpreter."""
    faulthandler.dump_traceback_later(300, exit=True)
