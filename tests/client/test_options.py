"""The options of a call: what is said to the server, and what is refused before."""

from __future__ import annotations

from typing import Any

import pytest

import masklet
from masklet._options import CallOptions
from masklet.v1 import common_pb2, tracking_pb2


def test_everything_that_is_asked_for_is_said() -> None:
    options = CallOptions(
        model="nano",
        deterministic=True,
        memory_policy="motion_aware",
        window=3,
        correction_window=4,
        timeout=5.0,
        timings=True,
    )
    assert options.config(frame_count=6, source_url="https://x.example/clip.mp4") == tracking_pb2.TrackConfig(
        model="nano",
        mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE,
        deterministic=True,
        memory_policy=tracking_pb2.MEMORY_POLICY_MOTION_AWARE,
        window=3,
        correction_window=4,
        timings=True,
        frame_count=6,
        source_url="https://x.example/clip.mp4",
    )


def test_what_is_left_out_is_the_servers_affair() -> None:
    assert CallOptions().config() == tracking_pb2.TrackConfig(
        mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE, memory_policy=tracking_pb2.MEMORY_POLICY_SAM2
    )


@pytest.mark.parametrize("field", ["window", "correction_window"])
@pytest.mark.parametrize("window", [-1, 1.5, 2**32, "8"])
def test_a_window_is_a_number_of_frames(field: str, window: Any) -> None:
    with pytest.raises(masklet.InvalidArgument, match=f"^{field}: is {window!r}, must be a whole number") as caught:
        CallOptions(**{field: window})
    assert caught.value.violations[0].field == field


def test_an_unknown_memory_policy_is_refused() -> None:
    with pytest.raises(masklet.InvalidArgument, match="must be one of sam2, distractor_aware, motion_aware"):
        CallOptions(memory_policy="sam3")  # type: ignore[arg-type]
