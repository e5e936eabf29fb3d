"""The temporary file that takes an upload."""

from __future__ import annotations

import asyncio

import pytest

from masklet_server.video.sources.spool import Spool


async def test_spool_outlives_a_cancelled_write() -> None:
    spool = Spool(10_000_000)
    writing = asyncio.ensure_future(spool.append(bytes(5_000_000)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    spool.close()
