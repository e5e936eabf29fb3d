"""The temporary file that takes an upload."""

from __future__ import annotations

import asyncio
import tempfile

import pytest

from masklet.errors import ResourceExhausted
from masklet_server.video.sources.spool import Spool


async def test_spool_outlives_a_cancelled_write() -> None:
    spool = Spool(10_000_000)
    writing = asyncio.ensure_future(spool.append(bytes(5_000_000)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    spool.close()


def test_no_room_for_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ResourceExhausted, match="the server cannot hold the upload: No space left on device"):
        Spool(10)
