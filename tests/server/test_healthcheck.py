from __future__ import annotations

import asyncio
import sys

import pytest

from masklet_server import healthcheck
from tests.support.rpc import edge


async def check(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str) -> int:
    for name in ("MASKLET_ADDRESS", "MASKLET_HEALTH_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["healthcheck", *arguments])
    return await asyncio.to_thread(healthcheck.main)


async def test_serving_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async with edge() as running:
        assert await check(monkeypatch, running.server.address) == 0
        assert "SERVING" in capsys.readouterr().out


async def test_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge() as running:
        port = running.server.address.rpartition(":")[2]
        assert await check(monkeypatch, MASKLET_ADDRESS=f"0.0.0.0:{port}") == 0
        assert await check(monkeypatch, MASKLET_ADDRESS=f"[::]:{port}") == 0
        assert await check(monkeypatch, MASKLET_ADDRESS="127.0.0.1:1", MASKLET_HEALTH_ADDRESS=f"127.0.0.1:{port}") == 0


async def test_no_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert await check(monkeypatch, "127.0.0.1:1") == 1
    assert "UNAVAILABLE" in capsys.readouterr().err
