"""Snapshots that earlier servers have stored are read, all of them: a server that is updated goes on with its sessions.

`stored/version-1.snapshot` is of a file with two objects, after frame 6. The server that wrote it had nano@64, and
stored every third frame. If what is stored has to change so that this file cannot be read any more, give
`snapshot.VERSION` another number, and let the test below say that version 1 is passed over.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from masklet.v1 import tracking_pb2
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.session.restoring.state import AutomaticState
from masklet_server.snapshots.snapshot import Snapshot

STORED = Path(__file__).parent / "stored"


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Snapshot.from_bytes((STORED / "version-1.snapshot").read_bytes())


def test_its_state_is_known(snapshot: Snapshot) -> None:
    state = AutomaticState.from_json(snapshot.state["session"])
    assert snapshot.last_frame == state.video.last_index == 6
    assert (state.video.unit, state.video.steps, state.video.size) == ("video_bytes", 7, (240, 320))
    assert state.request_id == 2
    assert [frame.index for frame in state.window] == list(range(7))
    assert (snapshot.state["epoch"], snapshot.state["last_number"]) == (1, 12)


def test_its_memories_are_loaded(snapshot: Snapshot) -> None:
    banks = {number: MemoryBank.load(data, model="nano@64") for number, data in snapshot.banks.items()}
    assert {number: (bank.first_frame, bank.last_frame) for number, bank in banks.items()} == {1: (0, 6), 2: (5, 6)}
    assert {number: list(bank.conditioning) for number, bank in banks.items()} == {1: [0], 2: [5]}


def test_its_responses_are_messages_that_were_numbered(snapshot: Snapshot) -> None:
    ((number, sequence),) = snapshot.state["responses"]
    (message,) = map(tracking_pb2.TrackResponse.FromString, snapshot.responses)
    assert (number, sequence) == (12, message.frame_result.sequence)
    assert message.frame_result.frame_index == 6
    assert sorted(one.object_id for one in message.frame_result.objects) == [1, 2]
