"""Corrections far before the window give the masks of SAM2VideoPredictor for the same clicks in the same order.

A whole session is held against it, with the real engine, and frames that are handed out a second time.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import cast

import numpy as np
import pytest
import torch

from benchmarks.sides import Reference, normalized
from masklet.prompts import Prompt
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.engine import Engine
from masklet_server.session import events, replies
from masklet_server.session.prompts import GivenPrompt
from masklet_server.video.frame import Frame
from masklet_server.video.info import VideoInfo
from masklet_server.video.model_input import ModelInput
from tests.parity.harness import HEIGHT, WIDTH, Stage, networks, prompts
from tests.parity.test_corrections import click
from tests.support import synthetic
from tests.support.fake_sources import FakeClip, FakeSources
from tests.support.fakes import FakeEngine
from tests.support.session import Talk, talk

# Upstream's hole filling needs its CUDA extension, and warns where that was not built; masklet skips it there as well.
pytestmark = pytest.mark.filterwarnings("ignore:cannot import name '_C' from 'sam2':UserWarning")

NUM_FRAMES, WINDOW = 24, 4
PIXELS = synthetic.clip(NUM_FRAMES, 128, 128)


class Clip(FakeClip):
    """Whose frames are pictures: of a byte, its number."""

    async def put(self, value: int, pts_seconds: float | None = None) -> None:
        await self.put_frame(
            Frame(self.fed, self.fed * 40, Fraction(1, 1000), PIXELS[value], HEIGHT, WIDTH, time.monotonic())
        )

    async def info(self) -> VideoInfo:
        return replace(await super().info(), height=HEIGHT, width=WIDTH)


class Clips(FakeSources):
    def clip(self, model: ModelInput) -> Clip:
        source = Clip(model.size)
        self.made.append(source)
        return source


def point(object_id: int = 1, frame_index: int = 0) -> Prompt:
    return dict(prompts(object_id, frame_index))["point"][0]


class Play(Stage):
    """Both sides; ours is a session."""

    def __init__(self, client: Talk, network: Network, reference: Reference) -> None:
        super().__init__()
        self.client = client
        self.network = network
        self.reference = reference
        self.seen = self.tracked = 0

    def compare(self, where: str, theirs: torch.Tensor, ours: torch.Tensor) -> None:
        """From equal features on, a tenth of the bar: objects that are stepped together are rounded otherwise."""
        super().compare(where, theirs, ours)
        assert (theirs - ours).abs().max().item() <= 1e-4, where

    async def track(self, *first: Prompt, stop: int = NUM_FRAMES) -> None:
        """Prompt what is ahead and track up to a frame."""
        start, self.tracked = self.tracked, stop
        for prompt in first:
            self.client.say(events.PromptObject(GivenPrompt(prompt)))
        self.client.say(events.VideoChunk(bytes(range(start, stop))))
        if stop == NUM_FRAMES:
            self.client.say(events.EndOfVideo())
        # One after the other, as a session comes to them: on upstream's side a later one must not be known before.
        frames = sorted({prompt.frame_index for prompt in first} | {start})
        for index, end in zip(frames, [*frames[1:], stop], strict=True):
            for prompt in first:
                if prompt.frame_index == index:
                    self.reference.prompt(prompt)
            await self.compare_results(index, end, revised=False)

    async def correct(self, *corrections: Prompt) -> None:
        """Of one object on one frame."""
        frame_index, object_id = corrections[0].frame_index, corrections[0].object_id
        shown = [self.reference.prompt(prompt) for prompt in corrections]
        answers = len(self.client.all(replies.PromptResult))
        for prompt in corrections:
            self.client.say(events.PromptObject(GivenPrompt(prompt)))
        await self.client.until(lambda: len(self.client.all(replies.PromptResult)) == answers + len(corrections))
        for answer, logits in zip(self.client.all(replies.PromptResult)[answers:], shown, strict=True):
            self.compare(f"prompt on {frame_index}", logits, self.resized(answer.object))
        self.seen += 1  # the frame itself shows what the last prompt gave
        await self.compare_results(frame_index + 1, self.tracked, revised=True, only=object_id)

    async def compare_results(self, start: int, stop: int, *, revised: bool, only: int = 0) -> None:
        """Ours of these frames, which come next, with what upstream propagates."""
        followed = self.reference.state["obj_ids"]
        theirs = self.reference.propagate(start, stop) if start < stop and followed else {}
        results = await self.client.frames(self.seen + stop - start)
        for result in results[self.seen : self.seen + stop - start]:
            assert (result.revision > 0) == revised
            ids = [object_id for frame_index, object_id in theirs if frame_index == result.frame_index]
            assert [one.object_id for one in result.objects] == ([only] if only else ids)
            for one in result.objects:
                where = f"frame {result.frame_index}, object {one.object_id}, revision {result.revision}"
                self.compare(where, theirs[result.frame_index, one.object_id], self.resized(one))
        self.seen += stop - start

    def resized(self, one: replies.ObjectResult) -> torch.Tensor:
        assert one.logits is not None
        return self.network.resize(torch.from_numpy(one.logits)[None, None], HEIGHT, WIDTH)[0, 0]

    def redecoded(self) -> list[tuple[int, int]]:
        """First and last frame of each time that the clip was decoded again."""
        clip = cast("FakeClip", self.client.source)
        assert not clip.open_redecoders, "no decoder is left"
        return [(taken[0], taken[-1]) for taken in clip.redecoded]


def _seeing(network: Network, features: Sequence[Features]) -> Network:
    """The network with what upstream's encoder makes of the frames, whose rounding would grow over several passes."""
    known = {pixels.tobytes(): one for pixels, one in zip(PIXELS, features, strict=True)}
    ours = copy.copy(network)
    ours.encode_pixels = lambda pixels: [known[one.numpy().tobytes()] for one in pixels]  # type: ignore[method-assign]
    return ours


@contextlib.asynccontextmanager
async def playing(window: int = WINDOW, policy: MemoryPolicy = MemoryPolicy.SAM2) -> AsyncIterator[Play]:
    network, predictor = networks("nano")
    reference = Reference(predictor, normalized(PIXELS), HEIGHT, WIDTH)
    network = _seeing(network, reference.features())
    engine = Engine({"nano": network})
    engine.start()
    config = events.Configure(
        correction_window=window, window=1000, return_logits=True, deterministic=True, memory_policy=policy
    )
    fake = cast("FakeEngine", engine)
    try:
        async with talk(config, engine=fake, sources=Clips(), window=1000, correction_window=window) as client:
            yield Play(client, network, reference)
    finally:
        await engine.close()


async def test_points_on_a_frame_long_gone_and_further_ones() -> None:
    async with playing() as play:
        await play.track(point())
        await play.correct(click(1, 7, 0))
        await play.correct(click(1, 7, keep_old_points=True), click(1, 7, 0, keep_old_points=True))
        # From the frame after the last one on which the bank was put away: first every fourth, then the corrected one.
        assert play.redecoded() == [(5, 19), (7, 19)]
        assert play.foreground > 0.5


@pytest.mark.parametrize("frames", [(5, 12), (22, 5), (9, 9)])
async def test_two_corrections_in_a_row(frames: tuple[int, int]) -> None:
    async with playing() as play:
        await play.track(point())
        for frame_index in frames:
            await play.correct(click(1, frame_index, 0), click(1, frame_index, keep_old_points=True))


async def test_a_mask_replaces_what_was_tracked() -> None:
    async with playing() as play:
        await play.track(point())
        mask = dict(prompts(1, frame_index=9))["mask"][0]
        await play.correct(mask)
        await play.correct(click(1, 11, 0))


async def test_a_new_object_begins_long_ago_and_is_corrected_there() -> None:
    async with playing() as play:
        await play.track(point())
        await play.correct(point(2, 8))
        await play.correct(click(2, 13, 0))
        await play.correct(click(1, 3, 0))


async def test_a_prompt_before_an_objects_first_frame() -> None:
    async with playing() as play:
        await play.track(point(1, 9))
        await play.correct(point(1, 4))
        await play.correct(click(1, 6, 0))
        await play.correct(click(1, 15, 0))


async def test_prompted_frames_on_the_way_and_one_that_is_corrected() -> None:
    async with playing() as play:
        await play.track(point(), point(1, 10), point(1, 14))
        await play.correct(click(1, 5, 0))
        await play.correct(click(1, 12, 0))
        await play.correct(click(1, 8, 0))
        await play.correct(click(1, 10, 0, keep_old_points=True))
        await play.correct(click(1, 0, 0, keep_old_points=True))


async def test_the_video_goes_on_after_a_correction() -> None:
    async with playing() as play:
        await play.track(point(), point(2, 3), stop=16)
        await play.correct(click(1, 6, 0))
        await play.track(stop=20)
        # Upstream tracks the other object anew as well, so this must not be before what it was told on frame 6.
        await play.correct(click(2, 8, 0))
        await play.correct(click(1, 18, 0))
        await play.track()


@pytest.mark.parametrize("policy", list(MemoryPolicy))
async def test_with_every_memory_policy_a_wide_and_a_narrow_window_give_the_same(policy: MemoryPolicy) -> None:
    found = []
    for window in (WINDOW, NUM_FRAMES):
        async with playing(window, policy) as play:
            for prompt in (point(), point(1, 10)):
                play.client.say(events.PromptObject(GivenPrompt(prompt)))
            play.client.say(events.VideoChunk(bytes(range(NUM_FRAMES))), events.EndOfVideo())
            expected = NUM_FRAMES
            await play.client.frames(expected)
            for frame_index in (5, 13, 11):
                play.client.say(events.PromptObject(GivenPrompt(click(1, frame_index, 0))))
                expected += NUM_FRAMES - frame_index
                await play.client.frames(expected)
            found.append(play.client.all(replies.FrameResult))
            assert bool(play.redecoded()) == (window == WINDOW)
    for narrow, wide in zip(*found, strict=True):
        assert (narrow.frame_index, narrow.revision) == (wide.frame_index, wide.revision)
        assert narrow.objects
        for one, other in zip(narrow.objects, wide.objects, strict=True):
            assert one.logits is not None
            assert other.logits is not None
            assert np.array_equal(one.logits, other.logits), f"frame {narrow.frame_index}"
