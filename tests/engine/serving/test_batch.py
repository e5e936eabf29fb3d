"""Frames encoded ahead: which frames, in how many passes, with equal masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from masklet.errors import ResourceExhausted
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.jobs import EncodeFrame, FrameJob, FrameOutput
from masklet_server.engine.serving.recent_features import EncodedFrame, RecentFeatures
from tests.support.engine import (
    backward,
    click,
    features,
    frame,
    job,
    new_bank,
    new_history,
    pixels,
    prompted,
    small_network,
    stream,
)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of pictures in each pass of the encoder."""
    encoded: list[int] = []
    encode = Network.encode_pixels

    def counted(self: Network, pictures: torch.Tensor) -> list[Features]:
        encoded.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(Network, "encode_pixels", counted)
    return encoded


def jobs(frames: int, *, ahead: int, recent: RecentFeatures | None) -> Sequence[FrameJob]:
    """Jobs that track one object through so many frames, with the upcoming frames of each."""
    bank = new_bank("")
    return [
        replace(
            job(bank, index, [click()] if index == 0 else []),
            stream=stream(recent=recent),
            upcoming=[pixels(i) for i in range(index + 1, min(frames, index + 1 + ahead))],
        )
        for index in range(frames)
    ]


def masks(outputs: Sequence[FrameOutput]) -> list[np.ndarray]:
    return [output.objects[0].mask for output in outputs]


@pytest.mark.parametrize(("ahead", "expected"), [(0, [1] * 7), (1, [2, 2, 2, 1]), (3, [4, 3]), (30, [7])])
def test_a_pass_takes_the_frames_that_are_known_and_masks_stay_the_same(
    passes: list[int], ahead: int, expected: list[int]
) -> None:
    network = small_network()
    alone = masks([run_jobs(network, [one])[0] for one in jobs(7, ahead=0, recent=None)])
    passes.clear()
    outputs = [run_jobs(network, [one])[0] for one in jobs(7, ahead=ahead, recent=RecentFeatures(ahead + 1))]
    assert passes == expected
    assert all(np.array_equal(one, other) for one, other in zip(masks(outputs), alone, strict=True))
    assert all(output.encode_seconds > 0 for output in outputs)
    shares = {output.encode_seconds for output in outputs}
    assert len(shares) == len(expected), "a pass's time is shared among its frames"


def test_backward_the_frames_before_are_encoded_ahead(passes: list[int]) -> None:
    network, recent = small_network(), RecentFeatures(3)
    history = new_history(TensorFile(max_bytes=2**20))
    run_jobs(network, [replace(prompted(history, 5, click()), stream=stream(recent=recent))])
    for index in (5, 4, 3, 2):
        upcoming = [] if index in recent else [pixels(i) for i in range(index - 1, index - 3, -1)]
        run_jobs(network, [replace(backward(history, index), stream=stream(recent=recent), upcoming=upcoming)])
    assert passes == [1, 3]
    found = recent.get(3)
    assert found is not None
    (expected,) = network.encode_pixels(torch.from_numpy(pixels(3)[None]))
    torch.testing.assert_close(found.features.top, expected.top, rtol=1e-3, atol=1e-5)


def test_nothing_is_encoded_ahead_where_it_would_be_forgotten_or_streams_share_the_pass(passes: list[int]) -> None:
    network = small_network()
    forgetful = jobs(3, ahead=2, recent=None)[0]
    run_jobs(network, [forgetful])
    assert passes == [1]
    streams = [jobs(3, ahead=2, recent=RecentFeatures(3))[0] for _ in range(2)]
    run_jobs(network, streams)
    assert passes == [1, 2]


def test_a_frame_that_was_encoded_beforehand_is_not_encoded_for_its_prompt(passes: list[int]) -> None:
    network, context = small_network(), stream(recent=RecentFeatures())
    asked = [replace(prompted(new_bank(""), 3, click(0, 3)), stream=context) for _ in range(2)]
    alone = run_jobs(network, [asked[0]])[0].prompts[0][0]
    context = stream(recent=RecentFeatures())
    passes.clear()
    (output,) = run_jobs(network, [EncodeFrame(context, frame(3))])
    assert passes == [1]
    assert (output.objects, output.prompts) == ([], [])
    assert output.encode_seconds > 0
    after = run_jobs(network, [replace(asked[1], stream=context)])[0].prompts[0][0]
    assert passes == [1]
    assert np.array_equal(after.mask, alone.mask)


def test_a_frame_is_encoded_beforehand_in_the_pass_of_other_streams(passes: list[int]) -> None:
    context = stream("b", recent=RecentFeatures())
    tracked, output = run_jobs(small_network(), [job(new_bank(""), 0, [click()]), EncodeFrame(context, frame(5))])
    assert passes == [2]
    assert len(tracked.objects) == 1
    assert len(output.objects) == 0
    assert context.recent is not None
    assert 5 in context.recent


def test_recent_features_forget_the_oldest() -> None:
    recent = RecentFeatures(2)
    encoded_frames = {index: EncodedFrame(features(index), 0.0) for index in range(3)}
    for index, encoded in encoded_frames.items():
        recent.put(index, encoded)
    assert [recent.get(index) for index in range(3)] == [None, encoded_frames[1], encoded_frames[2]]
    recent.put(1, encoded_frames[1])
    recent.put(0, encoded_frames[0])
    assert [recent.get(index) for index in range(3)] == [encoded_frames[0], encoded_frames[1], None]


def test_small_pictures_are_encoded_ahead_on_cpus() -> None:
    network = small_network()
    assert network.encode_ahead == 4
    assert network.image_size <= 384


def test_missing_memory_while_a_mask_is_drawn_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def runs_of(_: torch.Tensor) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")

    (output,) = run_jobs(small_network(), [job(new_bank(""), 0, [click()])])
    monkeypatch.setattr("masklet_server.engine.serving.batch.runs_of", runs_of)
    with pytest.raises(ResourceExhausted, match="use a smaller model, fewer objects"):
        _ = output.objects[0].runs
