"""A snapshot as bytes: whole, damaged, cut off, of another version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet.errors import DataLoss
from masklet_server.snapshots.snapshot import VERSION, Snapshot

SNAPSHOT = Snapshot(41, {"sequence": 7, "prompts": [{"object_id": 1}], "é": None}, {2: b"two", 1: b"", 9: b"\0" * 100})


def parts(snapshot: Snapshot) -> tuple[object, ...]:
    return snapshot.last_frame, snapshot.state, list(snapshot.banks.items())


def test_a_snapshot_comes_back_whole() -> None:
    data = SNAPSHOT.to_bytes()
    assert parts(Snapshot.from_bytes(data)) == parts(SNAPSHOT)
    assert Snapshot.from_bytes(data).to_bytes() == data


@given(
    st.integers(0, 10**6),
    st.dictionaries(st.text(), st.integers() | st.text() | st.none()),
    st.dictionaries(st.integers(0, 2**32), st.binary(max_size=50), max_size=5),
)
def test_any_snapshot_comes_back_whole(last: int, state: dict[str, object], banks: dict[int, bytes]) -> None:
    snapshot = Snapshot(last, state, banks)
    assert parts(Snapshot.from_bytes(snapshot.to_bytes())) == parts(snapshot)


@given(st.data())
def test_every_changed_byte_is_noticed(data: st.DataObject) -> None:
    whole = SNAPSHOT.to_bytes()
    where = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    damaged = bytearray(whole)
    damaged[where] ^= change
    with pytest.raises(DataLoss):
        Snapshot.from_bytes(bytes(damaged))


@pytest.mark.parametrize("size", [0, 1, 20, 40, 60, -1])
def test_a_snapshot_that_is_cut_off_is_noticed(size: int) -> None:
    with pytest.raises(DataLoss):
        Snapshot.from_bytes(SNAPSHOT.to_bytes()[:size])


def test_another_version_is_refused_by_its_number() -> None:
    data = SNAPSHOT.to_bytes().replace(b"masklet-snapshot-%d" % VERSION, b"masklet-snapshot-99", 1)
    with pytest.raises(DataLoss, match="has version 99, this masklet reads 1"):
        Snapshot.from_bytes(data)
