"""Two servers may have different weights under one name: a memory of one means nothing to the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from masklet.errors import NotFound
from masklet_server.engine.network.network import weights_checksum
from masklet_server.session import replies
from masklet_server.snapshots.blobs import DirectoryBlobs
from tests.support.resuming import CONFIG, Lot, lot
from tests.support.viewer import PICTURES, PLAN, Viewer


def train(held: Lot, checksum: str) -> None:
    """Give the model of a server other weights."""
    held.engine.models["fake"] = replace(held.engine.models["fake"], weights_checksum=checksum)


async def test_a_snapshot_of_other_weights_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    viewer = Viewer(PLAN, replace(CONFIG, correction_window=30))
    viewer.video = PICTURES
    async with lot(blobs=DirectoryBlobs(tmp_path)) as held:
        train(held, "0000000a")
        await viewer.watch(held, breaks_after=40)
    async with lot(blobs=DirectoryBlobs(tmp_path)) as another:
        train(another, "0000000b")
        with pytest.raises(NotFound, match="can't be resumed"):
            await another.come_back(viewer.resume())
        assert "with other weights (checksum 0000000a; loaded here: 0000000b)" in caplog.text
        call = await another.come_back(viewer.resume(can_rewind=True))
        await call.until(lambda: call.all(replies.Resumed))
        assert call.resumed.how is replies.Resumption.REWOUND
    async with lot(blobs=DirectoryBlobs(tmp_path)) as same:
        train(same, "0000000a")
        await same.come_back(viewer.resume())
        assert same.counts.resumes == {"restored": 1}


def test_a_checksum_tells_weights_apart() -> None:
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    before = weights_checksum(model)
    assert weights_checksum(model) == before
    with torch.no_grad():
        model.weight[0, 0] += 1e-6
    assert weights_checksum(model) != before
    assert weights_checksum(model.to(torch.bfloat16)) != before
    assert len(before) == 8
