"""The setting `hwaccel` on a machine without a GPU: the same masks, and a line in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import masklet
from masklet_server.embedded import EmbeddedServer
from tests.support.clips import BUNNY

pytestmark = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA GPU")


def masks(**settings: str) -> list[object]:
    prompt = masklet.Prompt(point_coords=[(360, 480)])
    with (
        EmbeddedServer(device="cpu", dtype="float32", runtime="torch", **settings) as address,
        masklet.Client(address) as client,
        client.track(BUNNY, prompt) as tracking,
    ):
        return [frame.objects[1].mask for frame, _ in zip(tracking, range(3), strict=False)]


def test_a_server_without_a_gpu_decodes_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = masks(hwaccel="cuda")
    assert "hwaccel is cuda, but this machine has no NVIDIA GPU" in caplog.text
    expected = masks()
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
