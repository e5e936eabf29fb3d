"""An engine with a small network."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from masklet_server.engine.serving.engine import Engine
from tests.support.engine import small_network


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    running = Engine({"nano": small_network()})
    running.start()
    yield running
    await running.close()
