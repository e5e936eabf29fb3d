from __future__ import annotations

from benchmarks import latest_decoding
from benchmarks.sides import EXAMPLE
from masklet_server.video.formats import LATEST_DECODING


def test_every_way_is_measured() -> None:
    packets = latest_decoding.packets_of(EXAMPLE, 12, latest_decoding.CLIPS["2 B-frames"], (320, 180))
    assert len(packets) == 12
    found = latest_decoding.measure(packets, rounds=1)
    assert list(found) == list(LATEST_DECODING)
    assert all(spent > 0 for spent, _, _ in found.values())
    assert found["full"][1:] == (12, 0.0)
    assert found["no-loop-filter"][1] == 12
    assert found["reference-frames"][1] < 12
