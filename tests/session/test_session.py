"""One stream's life, from the client's side of the session."""

from __future__ import annotations

import numpy as np
import pytest

from masklet.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from masklet.prompts import Prompt
from masklet_server.engine.memory.object_memory import MAX_CONDITIONING_FRAMES
from masklet_server.engine.serving.jobs import FrameJob
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, encode
from masklet_server.masks.runs import Runs
from masklet_server.session import events, replies
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.session import configuration
from masklet_server.session.state import State
from masklet_server.video.picture import Picture
from tests.support.fakes import HEIGHT, WIDTH, FakeEngine, prompts_in
from tests.support.session import click, ids, shows, talk, video

PICTURE = events.NextPicture(Picture("encoded", b"x"))


def mask_prompt(mask: EncodedMask, object_id: int = 1, frame_index: int = 0) -> events.PromptObject:
    return events.PromptObject(GivenPrompt(Prompt(object_id, frame_index, mask=np.ones((1, 1), np.bool_)), mask))


def square() -> EncodedMask:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:20, 10:20] = True
    return encode(Runs.of(mask), MaskEncoding.COCO_RLE)


# The whole way


async def test_a_clip_comes_back_frame_by_frame_in_order() -> None:
    async with talk() as client:
        client.say(click(2), click(1), *video(20))
        await client.end()
        opened, described, *rest = client.responses
        assert isinstance(opened, replies.Opened)
        assert (opened.model, opened.window, opened.max_objects) == ("fake", 64, 64)
        assert opened.session_id == client.session.id
        assert isinstance(described, replies.Described)
        assert (described.info.height, described.info.width) == (HEIGHT, WIDTH)
        assert [type(response) for response in rest] == [
            *[replies.PromptResult] * 2,
            *[replies.FrameResult] * 20,
            replies.Done,
        ]
        results = client.all(replies.FrameResult)
        assert [result.frame_index for result in results] == list(range(20))
        assert [result.sequence for result in results] == list(range(3, 23))
        assert [result.pts_nanoseconds for result in results] == [i * 40_000_000 for i in range(20)]
        assert all(ids(result) == [1, 2] for result in results)
        # Object 2 was prompted first, so its bank is the first one made.
        assert all(shows(result.objects[1], 0, result.frame_index) for result in results)
        assert all(shows(result.objects[0], 1, result.frame_index) for result in results)
        assert results[0].objects[0].area == 64
        assert results[0].objects[0].visible
        assert client.all(replies.Done) == [replies.Done(20)]
        assert client.session.state is State.DONE
        assert client.source.closed
        assert client.engine.forgotten == [client.session.id]


async def test_frames_before_the_first_prompt_cost_the_engine_nothing() -> None:
    async with talk() as client:
        client.say(click(1, 3), *video(5))
        await client.end()
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[], [], [], [1], [1]]
        assert [job.frame.index for job in client.engine.jobs] == [3, 4]
        (prompted,) = client.all(replies.PromptResult)
        assert (prompted.frame_index, prompted.object.object_id) == (3, 1)


async def test_a_video_without_prompts_is_only_decoded() -> None:
    async with talk() as client:
        client.say(*video(4))
        await client.end()
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[]] * 4
        assert client.engine.jobs == []


async def test_pictures_are_a_video_too() -> None:
    async with talk() as client:
        client.say(click(), *[PICTURE] * 30, events.EndOfVideo())
        await client.end()
        assert len(client.all(replies.FrameResult)) == 30


async def test_half_closing_after_the_end_of_the_video_is_fine() -> None:
    async with talk() as client:
        client.say(click(), *video(3))
        client.half_close()
        await client.end()
        assert len(client.all(replies.FrameResult)) == 3


async def test_masks_come_in_the_encoding_asked_for() -> None:
    for encoding in MaskEncoding:
        async with talk(events.Configure(mask_encoding=encoding)) as client:
            client.say(click(), *video(1))
            await client.end()
            (result,) = client.all(replies.FrameResult)
            assert result.objects[0].mask.encoding is encoding
            assert result.objects[0].area == 64


async def test_the_configuration_reaches_the_engine() -> None:
    async with talk(events.Configure(model="other", deterministic=True)) as client:
        client.say(click(), *video(1))
        await client.end()
        (job,) = client.engine.jobs
        assert (job.stream.model, job.stream.deterministic, job.stream.id) == ("other", True, client.session.id)
        assert (job.frame.height, job.frame.width, job.frame.pixels.shape) == (HEIGHT, WIDTH, (16, 16, 3))


async def test_an_unknown_model_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFound, match=r"'huge' is not loaded; this server has fake, other"):
        async with talk(events.Configure(model="huge")):
            pass


def test_the_first_message_must_be_the_configuration() -> None:
    assert configuration(events.Configure("m")) == events.Configure("m")
    with pytest.raises(FailedPrecondition, match="first message of a stream must be config"):
        configuration(events.EndOfVideo())
    with pytest.raises(FailedPrecondition, match="ended before its first message"):
        configuration(None)
    with pytest.raises(InvalidArgument, match="bad"):
        configuration(events.Unreadable(InvalidArgument.of("prompt", "bad")))


# Prompts and objects


async def test_several_prompts_for_one_object_are_applied_in_order() -> None:
    async with talk() as client:
        prompts = [click(1, 0, (x, 5)) for x in (1, 2, 3)]
        client.say(*prompts, *video(1))
        await client.end()
        (job,) = client.engine.jobs
        assert prompts_in(job) == [prompt.prompt.prompt for prompt in prompts]
        assert [result.sequence for result in client.all(replies.PromptResult)] == [1, 2, 3]


async def test_a_prompt_for_a_later_frame_of_a_tracked_object_goes_to_its_bank() -> None:
    async with talk() as client:
        client.say(click(1, 0), click(1, 2, (9, 9)), *video(4))
        await client.end()
        assert [len(prompts_in(job)) for job in client.engine.jobs] == [1, 0, 1, 0]
        assert len(client.engine.banks) == 1


async def test_prompts_are_in_time_until_their_frame_is_tracked() -> None:
    async with talk(window=1, correction_window=0) as client:
        client.say(click(1, 0), *video(20))
        await client.frames(1)
        # The window is full: frame 1 waits for the ack, so this prompt comes before it.
        client.say(click(2, 1), click(3, 0), events.Ack(client.responses[-1].sequence))  # type: ignore[union-attr]
        results = await client.frames(2)
        assert ids(results[1]) == [1, 2]
        assert client.problems == [
            "the prompt for object 3 is too late for frame 0, which is tracked already; "
            "frame 1 is the next one that takes prompts"
        ]


async def test_a_prompt_outside_the_video_is_answered_and_the_stream_goes_on() -> None:
    async with talk() as client:
        client.say(click(1, 0, (WIDTH + 1, 5)), click(2, 0), *video(3))
        await client.end()
        (problem,) = client.all(replies.Problem)
        assert isinstance(problem.error, InvalidArgument)
        assert problem.error.violations[0].field == "prompt.points[0]"
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[2]] * 3


async def test_a_prompt_beyond_the_end_is_answered_at_the_end() -> None:
    async with talk() as client:
        client.say(click(1, 7), *video(7))
        await client.end()
        assert client.problems == ["prompt.frame_index: is 7 (object 1), but the video has 7 frames, 0 to 6"]
        assert isinstance(client.responses[-1], replies.Done)


@pytest.mark.slow
async def test_ten_thousand_objects_are_too_many_and_harm_nothing() -> None:
    async with talk(max_objects=8) as client:
        client.say(*[click(i) for i in range(1, 10_001)], *video(2))
        await client.end()
        problems = client.all(replies.Problem)
        assert len(problems) == 10_000 - 8
        assert all(isinstance(problem.error, ResourceExhausted) for problem in problems)
        assert "max_objects is 8" in problems[0].error.message
        assert [ids(result) for result in client.all(replies.FrameResult)] == [list(range(1, 9))] * 2


async def test_unreadable_messages_are_answered_and_the_stream_goes_on() -> None:
    async with talk() as client:
        client.say(events.Unreadable(InvalidArgument.of("prompt.object_id", "is 0")), *video(1))
        await client.end()
        assert client.problems == ["prompt.object_id: is 0"]


async def test_a_removed_object_is_gone_from_the_next_frame_and_its_id_is_free() -> None:
    async with talk(window=1) as client:
        client.say(click(1), click(2), click(1, 19), *video(20))
        await client.frames(1)
        client.say(events.RemoveObject(1), events.Ack(3))
        results = await client.frames(2)
        assert ids(results[1]) == [2]
        client.say(click(1, 2), events.Ack(results[1].sequence))
        results = await client.frames(3)
        assert ids(results[2]) == [1, 2]
        assert shows(results[2].objects[0], 2, 2), "the id has a memory of its own the second time"
        assert client.automatic.prompts.frames_of(1) == set(), "prompts that waited went with the object"


async def test_an_object_removed_while_its_frame_is_tracked_is_still_shown_there() -> None:
    engine = FakeEngine()
    engine.open_gate.clear()
    async with talk(engine=engine) as client:
        client.say(click(1), click(2), *video(20))
        await client.until(lambda: engine.jobs)
        client.say(events.RemoveObject(1))
        await client.quiet()
        engine.open_gate.set()
        await client.end()
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1, 2], *[[2]] * 19]


async def test_a_prompt_that_waits_can_be_taken_back() -> None:
    async with talk() as client:
        client.say(click(1), events.RemoveObject(1), *video(1))
        await client.end()
        assert client.problems == []
        assert client.engine.jobs == []


async def test_removing_an_unknown_object_is_answered() -> None:
    async with talk() as client:
        client.say(events.RemoveObject(5), *video(1))
        await client.end()
        (problem,) = client.all(replies.Problem)
        assert isinstance(problem.error, NotFound)
        assert problem.error.message == "object 5 is not tracked, and no prompt for it waits"


async def test_an_object_takes_only_so_many_prompted_frames() -> None:
    async with talk(window=1, max_objects=64) as client:
        client.say(*[click(1, i) for i in range(MAX_CONDITIONING_FRAMES + 1)])
        client.say(events.VideoChunk(bytes(20)))
        await client.frames(1)
        assert len(client.problems) == 1
        assert f"object 1 has prompts on {MAX_CONDITIONING_FRAMES} frames" in client.problems[0]
        client.say(click(1, 40), click(2, 40))
        await client.quiet()
        assert len(client.problems) == 2, "frames prompted before count with those that wait"


async def test_prompts_of_the_frame_in_the_engine_count_too() -> None:
    engine = FakeEngine()
    engine.open_gate.clear()
    async with talk(engine=engine, max_objects=64) as client:
        client.say(*[click(1, i) for i in range(MAX_CONDITIONING_FRAMES)], events.VideoChunk(bytes(20)))
        await client.until(lambda: engine.jobs)
        client.say(click(1, 40))
        await client.quiet()
        assert len(client.problems) == 1
        assert f"object 1 has prompts on {MAX_CONDITIONING_FRAMES} frames" in client.problems[0]


# Masks as prompts


async def test_a_mask_reaches_the_engine_at_the_models_size() -> None:
    async with talk() as client:
        client.say(mask_prompt(square()), *video(1))
        await client.end()
        mask = prompts_in(client.engine.jobs[0])[0].mask
        assert mask is not None
        size = next(iter(client.engine.models.values())).image_size
        assert mask.shape == (size, size)
        y, x = (slice(round(10 * size / side), round(20 * size / side)) for side in (HEIGHT, WIDTH))
        assert mask[y, x].mean() > 0.5
        assert mask.mean() == pytest.approx(100 / (HEIGHT * WIDTH), abs=0.02)


@pytest.mark.parametrize(
    ("mask", "field"),
    [
        (EncodedMask(MaskEncoding.COCO_RLE, HEIGHT, WIDTH, b"00"), "prompt.mask.data"),
        (EncodedMask(MaskEncoding.PNG, HEIGHT, WIDTH, b"not a png"), "prompt.mask.data"),
        (
            EncodedMask(
                MaskEncoding.PNG,
                HEIGHT,
                WIDTH,
                encode(Runs.of(np.ones((48, 64), np.bool_)), MaskEncoding.PNG).data[:50],
            ),
            "prompt.mask.data",
        ),
        (encode(Runs.of(np.ones((9, 9), np.bool_)), MaskEncoding.COCO_RLE), "prompt.mask"),
        (encode(Runs.of(np.zeros((HEIGHT, WIDTH), np.bool_)), MaskEncoding.COCO_RLE), "prompt.mask"),
    ],
    ids=["rle", "png", "cut png", "size", "empty"],
)
async def test_a_bad_mask_is_answered_and_the_others_go_on(mask: EncodedMask, field: str) -> None:
    async with talk() as client:
        client.say(mask_prompt(mask, 1), click(2), *video(2))
        await client.end()
        (problem,) = client.all(replies.Problem)
        assert [violation.field for violation in problem.error.violations] == [field]
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[2], [2]]


async def test_a_bad_mask_for_a_tracked_object_leaves_it_tracked() -> None:
    empty = encode(Runs.of(np.zeros((HEIGHT, WIDTH), np.bool_)), MaskEncoding.COCO_RLE)
    async with talk() as client:
        client.say(click(1), mask_prompt(empty, 1, 1), *video(3))
        await client.end()
        assert len(client.problems) == 1
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1]] * 3


async def test_only_the_prompt_that_the_engine_refuses_is_dropped() -> None:
    engine = FakeEngine()

    def refuse(job: FrameJob) -> InvalidArgument | None:
        masks = any(prompt.mask is not None for prompt in prompts_in(job))
        return InvalidArgument.of("mask", "is too small") if masks else None

    engine.refuse = refuse
    async with talk(engine=engine) as client:
        client.say(click(1), mask_prompt(square(), 2), click(3), mask_prompt(square(), 3), *video(2))
        await client.end()
        assert client.problems == ["prompt.mask: is too small"] * 2
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1, 3], [1, 3]]
        assert [result.object.object_id for result in client.all(replies.PromptResult)] == [1, 3]


async def test_a_refusal_that_no_prompt_alone_explains_ends_the_stream() -> None:
    engine = FakeEngine()
    engine.refuse = lambda job: (
        InvalidArgument.of("mask", "together they are wrong") if len(job.memories) == 2 else None
    )
    async with talk(engine=engine) as client:
        client.say(click(1), click(2), *video(2))
        with pytest.raises(InvalidArgument, match="together they are wrong"):
            await client.end()
        assert len(engine.jobs) == 4, "the frame, each prompt alone, and the frame once more"


# Flow control


async def test_a_client_that_never_acknowledges_gets_the_window_and_no_more() -> None:
    async with talk(window=5) as client:
        client.say(click(), *video(40))
        await client.frames(5)
        await client.quiet()
        assert len(client.all(replies.FrameResult)) == 5
        assert len(client.engine.jobs) == 5, "credits are taken before a frame is tracked"
        client.say(events.Ack(4))  # the prompt's result and three frames
        await client.frames(8)
        await client.quiet()
        assert len(client.all(replies.FrameResult)) == 8


@pytest.mark.parametrize(("asked", "granted"), [(0, 6), (2, 2), (6, 6), (1000, 6)])
async def test_the_window_is_the_smaller_of_both_wishes(asked: int, granted: int) -> None:
    async with talk(events.Configure(window=asked), window=6) as client:
        client.say(*video(20))
        await client.frames(granted)
        await client.quiet()
        assert len(client.all(replies.FrameResult)) == granted
        assert client.all(replies.Opened)[0].window == granted


async def test_an_ack_of_what_was_never_sent_is_answered() -> None:
    async with talk(window=2) as client:
        client.say(*video(4))
        await client.frames(2)
        client.say(events.Ack(3), events.Ack(2), events.Ack(1))
        await client.end()
        assert client.problems == [
            "ack.sequence: is 3, but the last response sent was 2",
            "ack.sequence: is 1, but 2 was acknowledged before; it must not go back",
        ]


async def test_at_most_one_job_of_a_session_is_with_the_engine() -> None:
    async with talk() as client:
        client.say(click(), *video(40))
        await client.end()
        assert client.engine.max_running == 1


async def test_a_client_that_does_not_read_holds_up_tracking() -> None:
    async with talk() as client:
        await client.until(lambda: client.responses)
        client.reading.clear()
        client.say(click(), *video(60))
        await client.quiet()
        assert len(client.engine.jobs) == 0  # even the description of the video waits
        client.reading.set()
        await client.frames(3)
        client.reading.clear()
        await client.quiet()
        tracked, shown = len(client.engine.jobs), len(client.all(replies.FrameResult))
        assert tracked - shown <= 2
        client.reading.set()
        await client.end()
