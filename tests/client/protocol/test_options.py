"""The options of a call: what is said to the server, and what is refused before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import masklet
from masklet._protocol.options import annotate_config, live_config, track_config
from masklet.v1 import common_pb2, tracking_pb2

CONFIGS: list[Callable[..., tracking_pb2.TrackConfig]] = [track_config, live_config, annotate_config]


def test_everything_that_is_asked_for_is_said() -> None:
    options: masklet.TrackOptions = {
        "model": "nano",
        "deterministic": True,
        "memory_policy": "motion_aware",
        "window": 3,
        "correction_window": 4,
        "timeout": 5.0,
        "timings": True,
        "on_prompt": print,
        "on_error": print,
    }
    config = track_config(options, frame_count=6, source_url="https://x.example/clip.mp4")
    assert config == tracking_pb2.TrackConfig(
        model="nano",
        mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE,
        deterministic=True,
        memory_policy=tracking_pb2.MEMORY_POLICY_MOTION_AWARE,
        window=3,
        correction_window=4,
        timings=True,
        frame_count=6,
        source_url="https://x.example/clip.mp4",
        resumable=True,
    )


def test_a_live_call_says_so_and_how_frames_are_delivered() -> None:
    assert live_config({"delivery": "latest", "max_latency": 0.25, "model": "nano"}) == tracking_pb2.TrackConfig(
        model="nano",
        mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE,
        memory_policy=tracking_pb2.MEMORY_POLICY_SAM2,
        live=True,
        delivery=tracking_pb2.DELIVERY_LATEST,
        max_latency_seconds=0.25,
        resumable=True,
    )


def test_an_annotation_says_so_and_whether_it_wants_logits() -> None:
    config = annotate_config({"return_logits": True, "window": 1}, frame_count=6, source_url="file:///clip.mp4")
    assert config == tracking_pb2.TrackConfig(
        mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE,
        memory_policy=tracking_pb2.MEMORY_POLICY_SAM2,
        propagation=tracking_pb2.PROPAGATION_ON_REQUEST,
        return_logits=True,
        window=1,
        frame_count=6,
        source_url="file:///clip.mp4",
        resumable=True,
    )


def test_what_is_left_out_is_the_servers_affair() -> None:
    assert track_config({}) == tracking_pb2.TrackConfig(
        mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE,
        memory_policy=tracking_pb2.MEMORY_POLICY_SAM2,
        resumable=True,
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_a_session_may_be_wanted_that_ends_with_its_connection(
    config: Callable[..., tracking_pb2.TrackConfig],
) -> None:
    assert config({"resume": False}).resumable is False


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_the_time_for_coming_back_is_a_number_of_seconds(
    config: Callable[..., tracking_pb2.TrackConfig], seconds: float
) -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"^resume_seconds: is [a-z0-9-]+, must be seconds, 0 or above"):
        config({"resume_seconds": seconds})


@pytest.mark.parametrize("field", ["window", "correction_window"])
@pytest.mark.parametrize("window", [-1, 1.5, 2**32, "8"])
def test_a_window_is_a_number_of_frames(field: str, window: Any) -> None:
    options: Any = {field: window}
    with pytest.raises(masklet.InvalidArgument, match=f"^{field}: is {window!r}, must be a whole number") as caught:
        track_config(options)
    assert caught.value.violations[0].field == field


def test_an_unknown_memory_policy_is_refused() -> None:
    with pytest.raises(masklet.InvalidArgument, match="must be one of sam2, distractor_aware, motion_aware"):
        track_config({"memory_policy": "sam3"})  # type: ignore[typeddict-item]


def test_an_unknown_delivery_is_refused() -> None:
    with pytest.raises(masklet.InvalidArgument, match="delivery: is 'fast', must be one of latest, lossless"):
        live_config({"delivery": "fast"})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("latency", [-0.1, float("inf"), float("nan")])
def test_a_latency_is_a_number_of_seconds(latency: float) -> None:
    with pytest.raises(masklet.InvalidArgument, match=f"max_latency: is {latency!r}, must be a number of seconds"):
        live_config({"max_latency": latency})


def test_frames_that_are_all_tracked_have_no_latency_that_they_must_keep() -> None:
    with pytest.raises(masklet.InvalidArgument, match="max_latency: goes with delivery='latest' alone"):
        live_config({"delivery": "lossless", "max_latency": 1.0})


@pytest.mark.parametrize("make", CONFIGS)
def test_an_unknown_option_is_refused_as_python_refuses_arguments(
    make: Callable[..., tracking_pb2.TrackConfig],
) -> None:
    with pytest.raises(TypeError, match=r"^(track|live|annotate)\(\) got an unexpected keyword argument 'windows'"):
        make({"windows": 3})


@pytest.mark.parametrize("option", ["timings", "on_error", "delivery", "correction_window"])
def test_an_annotation_has_fewer_options(option: str) -> None:
    options: Any = {option: None}
    with pytest.raises(TypeError, match=option):
        annotate_config(options)
