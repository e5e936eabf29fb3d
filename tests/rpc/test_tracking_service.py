"""The service over a real channel on this machine, above a fake engine."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest
from PIL import Image

from masklet.errors import ResourceExhausted
from masklet.v1 import common_pb2, image_pb2, server_info_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.engine.network.mask_input import logits_of_mask
from masklet_server.engine.serving.jobs import FrameJob
from masklet_server.limit_names import OTHER_LIMITS
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, encode
from masklet_server.masks.runs import Runs
from masklet_server.models.registry import Registry
from tests.hostile.attacks.connections import DATA, HEADERS, frame, headers, raw
from tests.support.fake_sources import BROKEN
from tests.support.fakes import HEIGHT, LOGITS_SIZE, WIDTH, fake_mask
from tests.support.house import (
    END,
    FRAME,
    PATIENCE,
    Request,
    ack,
    chunk,
    click,
    config,
    failure,
    house,
    kinds,
    mask_of,
    track,
)
from tests.support.processes import decoders
from tests.support.rpc import details_of, status_of

# Track


async def test_a_clip_is_tracked_from_end_to_end() -> None:
    async with house() as h:
        responses = await track(h.stub, config(), click(1), click(2), chunk(20), END)
        assert kinds(responses) == [
            "session",
            "video_info",
            *["prompt_result"] * 2,
            *["frame_result"] * 20,
            "done",
        ]
        results = [response.frame_result for response in responses[4:-1]]
        assert [result.frame_index for result in results] == list(range(20))
        for result in results:
            assert [one.object_id for one in result.objects] == [1, 2]
            assert np.array_equal(mask_of(result.objects[1].mask), fake_mask(1, result.frame_index))
        assert responses[-1].done.frame_count == 20
        await h.until(lambda: h.sample("sessions") == 0)
        assert h.sample("frames_total") == 20
        assert h.sources.made[0].closed


async def test_real_pictures_go_through_the_sandbox() -> None:
    async with house(real_video=True) as h:
        pixels = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
        picture = common_pb2.Picture(
            format=common_pb2.PICTURE_FORMAT_RGB24, height=HEIGHT, width=WIDTH, data=pixels.tobytes()
        )
        responses = await track(h.stub, config(), click(), *[Request(frame=picture)] * 3, END)
        results = [response.frame_result for response in responses if response.HasField("frame_result")]
        assert [result.pts_nanoseconds for result in results] == [0, 33_333_333, 66_666_667]
        assert [job.frame.clip_length for job in h.engine.jobs] == [3] * 3
        assert (h.engine.jobs[0].frame.pixels == 200).all()


def mp4(frames: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for i in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


async def test_a_real_clip_goes_through_the_sandbox() -> None:
    async with house(real_video=True) as h:
        data = mp4(12)
        chunks = [Request(video_chunk=data[i : i + 1000]) for i in range(0, len(data), 1000)]
        responses = await track(h.stub, config(), click(1, 2), *chunks, END)
        (info,) = [response.video_info for response in responses if response.HasField("video_info")]
        assert (info.height, info.width, info.codec, info.frame_rate) == (HEIGHT, WIDTH, "mpeg4", 25.0)
        results = [response.frame_result for response in responses if response.HasField("frame_result")]
        assert [result.pts_nanoseconds for result in results] == [i * 40_000_000 for i in range(12)]
        assert [len(result.objects) for result in results] == [0, 0, *[1] * 10]
        assert [job.frame.clip_length for job in h.engine.jobs] == [12] * 10


async def test_the_decoder_of_a_client_that_vanishes_during_its_upload_is_ended() -> None:
    async with house(real_video=True) as h:
        before = decoders()
        call = h.stub.Track(timeout=PATIENCE)
        await call.write(config())
        await call.write(Request(video_chunk=mp4(12)[:2000]))
        await h.until(lambda: decoders() - before)
        call.cancel()
        await h.until(lambda: h.sample("sessions") == 0)
        assert decoders() == before


async def test_a_file_that_is_no_video_is_data_loss_and_counted() -> None:
    async with house(real_video=True) as h:
        error = await failure(h.stub, config(), Request(video_chunk=b"this is no video" * 100), END)
        assert error.code() is grpc.StatusCode.DATA_LOSS
        assert "this is no video" in (error.details() or "")
        empty = await failure(h.stub, config(), END)
        assert empty.code() is grpc.StatusCode.DATA_LOSS
        await h.until(lambda: h.sample("decode_errors_total", kind="DataLoss") == 2)


async def test_what_a_client_can_mend_comes_inline_with_the_field() -> None:
    wrong = [
        (click(0), "prompt.object_id"),
        (click(1, label=7), "prompt.points[0].label"),
        (click(1, x=float("nan")), "prompt.points[0]"),
        (Request(prompt=common_pb2.Prompt(object_id=1)), "prompt.points"),
        (
            Request(prompt=common_pb2.Prompt(object_id=1, box=common_pb2.Box(x0=9, y0=9, x1=1, y1=1))),
            "prompt.box",
        ),
        (ack(99), "ack.sequence"),
    ]
    async with house() as h:
        responses = await track(h.stub, config(), *(request for request, _ in wrong), click(3), chunk(2), END)
        problems = [response.error for response in responses if response.HasField("error")]
        assert [problem.code for problem in problems] == [3] * len(wrong)
        assert [problem.message.partition(":")[0] for problem in problems] == [field for _, field in wrong]
        assert kinds(responses)[-3:] == ["frame_result", "frame_result", "done"]


async def test_late_unknown_and_too_many_come_inline_too() -> None:
    async with house(max_objects=2, window=1, correction_window=0) as h:
        call = h.stub.Track(timeout=PATIENCE)
        for request in (config(), click(1), chunk(20), END):
            await call.write(request)
        seen = [await call.read() for _ in range(4)]
        assert kinds(seen)[-1] == "frame_result"
        remove = Request(remove_object=tracking_pb2.RemoveObject(object_id=9))
        for request in (click(1, 0), remove, click(2, 5), click(3, 5)):
            await call.write(request)
        codes = [(await call.read()).error.code for _ in range(3)]
        assert codes == [
            grpc.StatusCode.FAILED_PRECONDITION.value[0],
            grpc.StatusCode.NOT_FOUND.value[0],
            grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
        ]
        call.cancel()


async def test_a_correction_comes_as_further_results_with_a_higher_revision() -> None:
    async with house() as h:
        call = h.stub.Track(timeout=PATIENCE)
        for request in (config(correction_window=2), click(1), chunk(3), END):
            await call.write(request)
        assert kinds([await call.read() for _ in range(6)])[3:] == ["frame_result"] * 3
        cleared = Request(clear_prompts=tracking_pb2.ClearPrompts(object_id=1, frame_index=2))
        for request in (click(1, 1), click(1, 0), cleared):
            await call.write(request)
        answers = [await call.read() for _ in range(8)]
        problems = [a.error.code for a in answers if a.HasField("error")]
        assert problems == [grpc.StatusCode.NOT_FOUND.value[0]]
        again = [(a.frame_result.frame_index, a.frame_result.revision) for a in answers if a.HasField("frame_result")]
        assert again == [(1, 1), (2, 1), (0, 1), (1, 2), (2, 2)], "the first frame lies before the window"
        await call.write(ack(max(a.frame_result.sequence for a in answers)))
        assert kinds([await call.read()]) == ["done"]
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("requests", "code", "words"),
    [
        ([chunk(1)], grpc.StatusCode.FAILED_PRECONDITION, "first message of a stream must be config"),
        ([click()], grpc.StatusCode.FAILED_PRECONDITION, "first message of a stream must be config"),
        ([click(0)], grpc.StatusCode.INVALID_ARGUMENT, "prompt.object_id"),
        ([Request()], grpc.StatusCode.INVALID_ARGUMENT, "request: is not set"),
        ([config(), config()], grpc.StatusCode.FAILED_PRECONDITION, "config came twice"),
        ([config(model="huge")], grpc.StatusCode.NOT_FOUND, "'huge' is not loaded"),
        ([config(mask_encoding=9)], grpc.StatusCode.INVALID_ARGUMENT, "config.mask_encoding"),
        ([config(), chunk(1), FRAME], grpc.StatusCode.INVALID_ARGUMENT, "frame: cannot follow video_chunk"),
        ([config(), FRAME, chunk(1)], grpc.StatusCode.INVALID_ARGUMENT, "video_chunk: cannot follow frame"),
        ([config(), chunk(40), END, END], grpc.StatusCode.FAILED_PRECONDITION, "end_of_video came twice"),
        ([config(), END], grpc.StatusCode.DATA_LOSS, "the video is empty"),
        ([config(), Request(video_chunk=bytes([BROKEN]))], grpc.StatusCode.DATA_LOSS, "broken"),
        ([config(), Request(frame=common_pb2.Picture(data=b"x"))], grpc.StatusCode.INVALID_ARGUMENT, "frame.format"),
        ([config(), Request(cancel=tracking_pb2.Cancel())], grpc.StatusCode.CANCELLED, "asked to cancel"),
        ([Request(resume=tracking_pb2.Resume(token="x"))], grpc.StatusCode.NOT_FOUND, "begin a new one with config"),
    ],
)
async def test_what_cannot_be_mended_ends_in_its_status(
    requests: list[Request], code: grpc.StatusCode, words: str
) -> None:
    async with house(window=2) as h:
        error = await failure(h.stub, *requests)
        assert error.code() is code
        assert words in (error.details() or "")
        await h.until(lambda: h.sample("sessions") == 0)
        assert all(source.closed for source in h.sources.made)


async def test_a_wrong_field_is_in_the_details_of_the_status() -> None:
    async with house() as h:
        error = await failure(h.stub, config(mask_encoding=9))
        (violation,) = details_of(error)["BadRequest"].field_violations
        assert violation.field == "config.mask_encoding"
        assert status_of(error).code == 3


async def test_a_half_closed_stream_without_end_is_cancelled() -> None:
    async with house() as h:
        call = h.stub.Track(timeout=PATIENCE)
        for request in (config(), click(), chunk(3)):
            await call.write(request)
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in call:
                pass
        assert raised.value.code() is grpc.StatusCode.CANCELLED
        assert "before end_of_video" in (raised.value.details() or "")


async def test_half_closing_right_after_the_end_still_gives_everything() -> None:
    async with house() as h:
        call = h.stub.Track(timeout=PATIENCE)
        for request in (config(), click(), chunk(30), END):
            await call.write(request)
        await call.done_writing()
        responses = [response async for response in call]
        assert kinds(responses).count("frame_result") == 30


@pytest.mark.slow
async def test_a_client_that_half_closes_and_does_not_read_is_not_run_ahead_of() -> None:
    frames = 2000
    small = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]  # 64 KiB, and no more with time
    async with house() as h, grpc.aio.insecure_channel(h.address, options=small) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(timeout=10 * PATIENCE)
        clicks = [click(object_id) for object_id in range(1, 9)]
        for request in (config(mask_encoding=common_pb2.MASK_ENCODING_PNG), *clicks, chunk(frames), END):
            await call.write(request)
        await call.done_writing()
        await h.until(lambda: h.engine.jobs)
        before = -1
        while before < len(h.engine.jobs):
            before = len(h.engine.jobs)
            await asyncio.sleep(1)
        assert before < frames / 2, "as far as the network's own buffers reach"
        responses = [response async for response in call]
        assert kinds(responses).count("frame_result") == frames


async def test_pictures_that_wait_on_disk_are_bounded_and_the_error_comes_at_once() -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(file, "PNG")
    picture = common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=file.getvalue())
    pictures = [Request(frame=picture)] * 100
    async with house(real_video=True, window=2, max_upload_bytes=20 * len(picture.data)) as h:
        error = await failure(h.stub, config(), click(), *pictures)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "frame: results wait for the client" in (error.details() or "")
        assert "max_upload_bytes" in (error.details() or "")
        assert "(ack)" in (error.details() or "")
        call = h.stub.Track(timeout=PATIENCE)
        for request in (config(), click(), *pictures[:20], END):
            await call.write(request)
        await call.done_writing()
        assert kinds([response async for response in call]).count("frame_result") == 20


async def test_a_stream_that_never_begins_ends_with_deadline_exceeded() -> None:
    async with house(idle_timeout_seconds=0.5) as h:
        call = h.stub.Track()
        await call.wait_for_connection()
        await h.until(lambda: h.sample("sessions") == 1)
        assert await asyncio.wait_for(call.code(), 10) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no progress for 0.5 s while waiting for the first message, config" in await call.details()
        await h.until(lambda: h.sample("sessions") == 0)


async def test_an_idle_stream_ends_with_deadline_exceeded() -> None:
    async with house(idle_timeout_seconds=1.0, window=4) as h:
        error = await failure(h.stub, config(), click(), chunk(40), END)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "an ack, because the window of 4 frame results is full" in (error.details() or "")


async def test_a_file_that_comes_by_single_bytes_is_no_progress() -> None:
    async with house(real_video=True, idle_timeout_seconds=1) as h:
        call = h.stub.Track()
        await call.write(config())
        dripping = asyncio.create_task(_drip(call, mp4(10)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _read_all(call)
        await asyncio.gather(dripping, return_exceptions=True)  # a message on its way as the call ends has no status
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no progress for 1 s" in str(caught.value.details())


async def _drip(call: Any, data: bytes) -> None:
    """Send ten bytes a second for ten seconds."""
    for position in range(100):
        if call.done():
            return
        await call.write(Request(video_chunk=data[position : position + 1]))
        await asyncio.sleep(0.1)


async def _read_all(call: Any) -> None:
    async for _ in call:
        pass


async def test_a_client_that_never_acknowledges_gets_exactly_the_window() -> None:
    async with house(window=5) as h:
        call = h.stub.Track(timeout=PATIENCE)
        for request in (config(), chunk(40), END):
            await call.write(request)
        for _ in range(2):
            await call.read()
        results = [(await call.read()).frame_result for _ in range(5)]
        extra = asyncio.ensure_future(call.read())
        await asyncio.sleep(0.3)
        assert not extra.done()
        await call.write(ack(results[2].sequence))
        results += [(await extra).frame_result, *[(await call.read()).frame_result for _ in range(2)]]
        assert [result.frame_index for result in results] == list(range(8))
        extra = asyncio.ensure_future(call.read())
        await asyncio.sleep(0.3)
        assert not extra.done()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await extra


async def test_a_client_that_acknowledges_gets_a_long_video() -> None:
    async with house(window=3) as h:
        call = h.stub.Track(timeout=PATIENCE)

        async def write() -> None:
            for request in (config(), click(), chunk(300), END):
                await call.write(request)

        writing = asyncio.create_task(write())
        indices = []
        async for response in call:
            if response.HasField("frame_result"):
                indices.append(response.frame_result.frame_index)
                if len(indices) <= 300 - 3:  # the call may have ended when the others would be written
                    await call.write(ack(response.frame_result.sequence))
            if response.HasField("done"):
                break
        await writing
        assert indices == list(range(300))


@pytest.mark.parametrize(
    ("requests", "gate"),
    [
        ([config()], True),
        ([config(), click(), chunk(0)], True),
        ([config(), click(), chunk(20)], False),
        ([config(), click(), chunk(20)], True),
        ([config(), click(), chunk(20), END], True),
        ([config(), click(), *[FRAME] * 40], True),
    ],
    ids=["configured", "receiving", "in the engine", "window full", "draining", "feeding"],
)
@pytest.mark.parametrize("how", ["cancel", "channel"])
async def test_everything_of_a_client_that_goes_away_is_freed(requests: list[Request], gate: bool, how: str) -> None:
    async with house(window=3) as h, grpc.aio.insecure_channel(h.address) as channel:
        if not gate:
            h.engine.open_gate.clear()
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(timeout=PATIENCE)
        writing = asyncio.create_task(_write_all(call, requests))
        await call.read()
        await asyncio.sleep(0.2)
        assert h.sample("sessions") == 1
        loop = asyncio.get_running_loop()
        gone = loop.time()
        if how == "cancel":
            call.cancel()
        else:
            await channel.close()
        await h.until(lambda: h.sample("sessions") == 0)
        assert loop.time() - gone < 2
        assert all(source.closed for source in h.sources.made)
        assert h.engine.running == 0
        assert len(h.engine.forgotten) == 1
        await asyncio.gather(writing, return_exceptions=True)


async def _write_all(call: Any, requests: list[Request]) -> None:
    for request in requests:
        await call.write(request)


async def test_the_engine_running_out_of_memory_ends_one_stream_only() -> None:
    async with house() as h:

        def refuse(job: FrameJob) -> Exception | None:
            return ResourceExhausted("no memory; use a smaller model") if len(job.memories) == 2 else None

        h.engine.refuse = refuse
        good = asyncio.create_task(track(h.stub, config(), click(1), chunk(60), END))
        error = await failure(h.stub, config(), click(1), click(2), chunk(20), END)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "smaller model" in (error.details() or "")
        assert kinds(await good)[-1] == "done"


async def test_a_bug_is_internal_with_an_id_and_without_its_own_message(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as h:
        h.engine.refuse = lambda _: RuntimeError("secret")
        error = await failure(h.stub, config(), click(1), chunk(20), END)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in (error.details() or "")
        assert "secret" in caplog.text


# SegmentImage


def jpeg(height: int = HEIGHT, width: int = WIDTH) -> common_pb2.Picture:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, "JPEG")
    return common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=file.getvalue())


def at(x: float = 5, y: float = 5) -> image_pb2.SegmentPrompt:
    return image_pb2.SegmentPrompt(points=[common_pb2.Point(x=x, y=y, label=common_pb2.POINT_LABEL_FOREGROUND)])


def with_mask(mask: EncodedMask) -> image_pb2.SegmentPrompt:
    return image_pb2.SegmentPrompt(
        mask=common_pb2.Mask(
            encoding=common_pb2.MASK_ENCODING_COCO_RLE, height=mask.height, width=mask.width, data=mask.data
        )
    )


def picture_request(*prompts: image_pb2.SegmentPrompt, **fields: Any) -> image_pb2.SegmentImageRequest:
    if "image_id" not in fields and "picture" not in fields:
        fields["picture"] = jpeg()
    return image_pb2.SegmentImageRequest(prompts=prompts, **fields)


async def test_boxes_of_a_detector_give_as_many_masks() -> None:
    boxes = [image_pb2.SegmentPrompt(box=common_pb2.Box(x0=i, y0=0, x1=i + 9, y1=9)) for i in range(5)]
    async with house() as h:
        response = await h.stub.SegmentImage(picture_request(*boxes))
        assert (response.height, response.width, response.model) == (HEIGHT, WIDTH, "fake")
        assert len(response.results) == 5
        for result in response.results:
            (candidate,) = result.candidates
            assert np.array_equal(mask_of(candidate.mask), fake_mask(0, 0))
            assert candidate.box == common_pb2.Box(x0=0, y0=0, x1=8, y1=8)
            assert candidate.area == 64
            assert not candidate.HasField("logits")
        (job,) = h.engine.pictures
        assert not isinstance(job.picture, str)
        assert job.picture.shape == (HEIGHT, WIDTH, 3)


async def test_three_candidates_and_their_logits_on_request() -> None:
    async with house() as h:
        response = await h.stub.SegmentImage(picture_request(at(), multimask_output=True, return_logits=True))
        candidates = response.results[0].candidates
        assert [round(candidate.predicted_iou, 3) for candidate in candidates] == [0.9, 0.8, 0.7]
        logits = candidates[2].logits
        assert (logits.height, logits.width) == (LOGITS_SIZE, LOGITS_SIZE)
        assert (np.frombuffer(logits.data, "<f4") == 2).all()
        refined = image_pb2.SegmentPrompt(points=at().points, mask_input=logits)
        await h.stub.SegmentImage(picture_request(refined))
        mask_input = h.engine.pictures[-1].prompts[0].mask_input
        assert mask_input is not None
        assert (mask_input == 2).all()


async def test_a_picture_is_segmented_again_by_its_id() -> None:
    async with house() as h:
        first = await h.stub.SegmentImage(picture_request(at()))
        again = await h.stub.SegmentImage(picture_request(at(9, 9), image_id=first.image_id))
        assert again.image_id == first.image_id
        assert h.engine.pictures[-1].picture == first.image_id


async def test_a_pictures_id_is_known_to_its_client_alone(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("alice one\nbob two\n")
    alice, bob = ((("authorization", f"Bearer {token}"),) for token in ("one", "two"))
    async with house(token_file=tokens) as h:
        picture = await h.stub.SegmentImage(picture_request(at()), metadata=alice)
        again = picture_request(at(9, 9), image_id=picture.image_id)
        await h.stub.SegmentImage(again, metadata=alice)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await h.stub.SegmentImage(again, metadata=bob)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await h.stub.SegmentImage(picture_request(at()), metadata=bob)
        await h.stub.SegmentImage(again, metadata=bob)


async def test_one_client_cannot_fill_the_disk(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("alice one\nbob two\n")
    alice, bob = ((("authorization", f"Bearer {token}"),) for token in ("one", "two"))
    part = Request(video_chunk=bytes(300_000))
    async with house(real_video=True, token_file=tokens, max_disk_bytes_per_client=1_000_000) as h:
        calls = [h.stub.Track(metadata=alice) for _ in range(3)]
        for call in calls:
            await call.write(config())
            await call.write(part)
        await h.until(lambda: h.sample("budget_used", budget="max_disk_bytes") == 900_000)
        other = h.stub.Track(metadata=bob)
        await other.write(config())
        await other.write(part)
        await h.until(lambda: h.sample("budget_used", budget="max_disk_bytes") == 1_200_000)
        await calls[0].write(part)
        assert (await calls[0].read()).WhichOneof("response") == "session"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls[0].read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "of alice would take more than the 1000000 bytes" in str(caught.value.details())
        assert h.sample("refusals_total", limit="max_disk_bytes_per_client") == 1
        for call in (*calls[1:], other):
            call.cancel()
        await h.until(lambda: h.sample("budget_used", budget="max_disk_bytes") == 0)
        await h.until(lambda: h.sample("budget_used", budget="max_decoder_memory_bytes") == 0)


async def test_a_mask_prompt_reaches_the_engine_as_small_logits() -> None:
    """Thirty masks of 35 megapixels fit into a kilobyte, and would take a gigabyte at full size."""
    async with house() as h:
        mask = fake_mask(2, 3)
        await h.stub.SegmentImage(picture_request(with_mask(encode(Runs.of(mask), MaskEncoding.COCO_RLE))))
        sent = h.engine.pictures[-1].prompts[0]
        assert sent.mask is None
        assert sent.mask_input is not None
        size = next(iter(h.engine.models.values())).logits_size
        assert np.array_equal(sent.mask_input, logits_of_mask(mask, size))


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (picture_request(), grpc.StatusCode.INVALID_ARGUMENT, "prompts: is empty"),
        (image_pb2.SegmentImageRequest(prompts=[at()]), grpc.StatusCode.INVALID_ARGUMENT, "source: is not set"),
        (picture_request(at(), image_id="gone"), grpc.StatusCode.NOT_FOUND, "send the picture"),
        (picture_request(at(), model="huge"), grpc.StatusCode.NOT_FOUND, "'huge' is not loaded"),
        (picture_request(*[at()] * 5), grpc.StatusCode.RESOURCE_EXHAUSTED, "at most max_objects = 4"),
        (picture_request(at(), at(WIDTH + 1)), grpc.StatusCode.INVALID_ARGUMENT, "prompts[1].points[0]"),
        (picture_request(at(float("nan"))), grpc.StatusCode.INVALID_ARGUMENT, "prompts[0].points[0]"),
        (picture_request(image_pb2.SegmentPrompt()), grpc.StatusCode.INVALID_ARGUMENT, "prompts[0].points"),
        (picture_request(at(), mask_encoding=9), grpc.StatusCode.INVALID_ARGUMENT, "mask_encoding"),
        (
            picture_request(at(), picture=common_pb2.Picture(data=b"x")),
            grpc.StatusCode.INVALID_ARGUMENT,
            "picture.format",
        ),
        (
            picture_request(at(), picture=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=b"no")),
            grpc.StatusCode.INVALID_ARGUMENT,
            "picture.data",
        ),
        (
            picture_request(with_mask(encode(Runs.of(np.ones((9, 9), np.bool_)), MaskEncoding.COCO_RLE))),
            grpc.StatusCode.INVALID_ARGUMENT,
            "prompts[0].mask: is 9x9",
        ),
        (
            picture_request(with_mask(EncodedMask(MaskEncoding.COCO_RLE, HEIGHT, WIDTH, b"00"))),
            grpc.StatusCode.INVALID_ARGUMENT,
            "prompts[0].mask.data",
        ),
        (
            picture_request(image_pb2.SegmentPrompt(mask_input=common_pb2.Logits(height=8, width=8, data=b"1"))),
            grpc.StatusCode.INVALID_ARGUMENT,
            "prompts[0].mask_input.data",
        ),
    ],
)
async def test_wrong_picture_requests_end_in_their_status(
    request_: image_pb2.SegmentImageRequest, code: grpc.StatusCode, words: str
) -> None:
    async with house(max_objects=4) as h:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await h.stub.SegmentImage(request_)
        assert raised.value.code() is code
        assert words in (raised.value.details() or "")
        assert h.engine.pictures == []


async def test_an_answer_that_is_too_long_for_a_message_says_what_to_do() -> None:
    async with house(max_message_bytes=2**20, max_objects=4000) as h:
        requests = picture_request(*[at()] * 2000, multimask_output=True, return_logits=True)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await h.stub.SegmentImage(requests)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "leave out return_logits" in (raised.value.details() or "")


async def test_the_masks_of_one_answer_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masklet_server.rpc.segment_image.MAX_MASK_PIXELS", 5 * HEIGHT * WIDTH)
    async with house() as h:
        await h.stub.SegmentImage(picture_request(*[at()] * 5))
        with pytest.raises(grpc.aio.AioRpcError, match="ask for 5 at a time") as raised:
            await h.stub.SegmentImage(picture_request(*[at()] * 2, multimask_output=True))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# GetServerInfo


async def test_the_server_describes_itself_and_its_limits() -> None:
    async with house(max_objects=7, max_frames=0) as h:
        info = await h.stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())
        assert info.server_version
        assert (info.device, info.device_name) == ("cpu", "a fake")
        assert set(info.versions) == {"torch", "sam2", "av", "grpcio"}
        assert [model.name for model in info.models] == ["fake", "other", *Registry.load().names]
        assert [model.loaded for model in info.models[:3]] == [True, True, False]
        assert [model.default for model in info.models[:3]] == [True, False, False]
        assert info.models[0].parameter_count == 7
        assert info.models[2].description
        assert (info.limits.max_objects, info.limits.max_frames) == (7, 0)
        assert info.limits.others["max_side"] == 16384
        assert set(info.limits.others) == set(OTHER_LIMITS)
        assert "h264" in info.codecs
        assert "mp4" in info.containers


async def test_a_client_that_never_reads_its_first_message_frees_everything() -> None:
    """By HTTP/2 itself: nothing may be sent on its stream, so that not even `session` arrives."""
    async with house(idle_timeout_seconds=1.0) as h:
        reader, writer = await raw(h, window=0)
        writer.write(frame(HEADERS, 4, 1, headers("/masklet.v1.TrackingService/Track")))
        for request in (config(), click(), chunk(20), END):
            message = request.SerializeToString()
            writer.write(frame(DATA, 0, 1, b"\0" + len(message).to_bytes(4, "big") + message))
        method = "masklet.v1.TrackingService/Track"
        await h.until(lambda: h.sample("rpcs_total", method=method, code="DEADLINE_EXCEEDED") == 1)
        await h.until(lambda: h.sample("sessions") == 0)
        assert all(source.closed for source in h.sources.made)
        assert not reader.at_eof()
        writer.close()
