"""Sessions whose calls break, and come back."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace

import pytest

from masklet.errors import Aborted, Cancelled, DataLoss, DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from masklet_server.session import events, replies
from masklet_server.session.resuming import attachment
from masklet_server.session.resuming.resumable_session import Owner
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture
from tests.support.fake_sources import BROKEN, LOST
from tests.support.resuming import CONFIG, Call, Lot, lot
from tests.support.session import ON_REQUEST, click, video


def numbered(request: events.PromptObject, request_id: int) -> events.PromptObject:
    return replace(request, request_id=request_id)


def chunk(frames: int) -> events.VideoChunk:
    return events.VideoChunk(bytes(frames))


def marks(*calls: Call) -> list[tuple[int, int]]:
    """(frame, revision) of all results, in the order in which the client got them."""
    return [(one.frame_index, one.revision) for call in calls for one in call.all(replies.FrameResult)]


def contiguous(*calls: Call) -> bool:
    numbers = [number for call in calls for number in call.numbers]
    return numbers == list(range(1, len(numbers) + 1))


# A call breaks, and comes back


async def test_nothing_is_lost_and_nothing_comes_twice() -> None:
    async with lot(window=4) as held:
        first = held.begin()
        first.say(numbered(click(), 1), chunk(20))
        await first.frames(4)
        await first.breaks()
        assert held.counts.parked_now == 1
        second = held.again(first)
        await second.until(lambda: second.all(replies.Resumed))
        assert second.resumed.how is replies.Resumption.ATTACHED
        assert second.resumed.position == replies.InputPosition("video_bytes", 20, request_id=1, size=20)
        assert (first.grant.epoch, second.grant.epoch) == (1, 2)
        second.say(events.Ack(first.all(replies.FrameResult)[-1].sequence))
        second.say(chunk(5), events.EndOfVideo())
        second.half_close()
        await second.end()
        assert marks(first, second) == [(index, 0) for index in range(25)]
        assert contiguous(first, second)
        assert second.responses[-1] == replies.Numbered(second.numbers[-1], replies.Done(25))
        assert held.counts.resumes == {"attached": 1}


async def test_what_the_client_has_not_received_comes_again() -> None:
    async with lot(window=4) as held:
        first = held.begin()
        first.say(numbered(click(), 1), chunk(20))
        await first.frames(4)
        await first.breaks()
        second = held.again(first, last=2)
        await second.frames(3)
        assert second.numbers[:4] == [3, 4, 5, 6]
        assert [response for _, response in second.numbered] == [response for _, response in first.numbered][2:]


async def test_only_what_the_session_took_counts() -> None:
    async with lot(window=4) as held:
        held.engine.open_gate.clear()
        first = held.begin(replace(CONFIG, frame_count=30))
        pictures = [events.NextPicture(Picture("encoded", bytes([i]))) for i in range(12)]
        first.say(numbered(click(), 1), *pictures)
        await held.quiet()
        await first.breaks()
        second = held.again(first)
        await second.until(lambda: second.all(replies.Resumed))
        taken = second.resumed.position.count
        assert second.resumed.position.unit == "frame_count"
        assert 4 <= taken < 12, "there is no room for more"
        assert taken - 2 <= held.source.fed <= taken, "one waits in the inbox, and one until there is room"
        held.engine.open_gate.set()
        second.say(*pictures[taken:], events.EndOfVideo())
        second.half_close()
        await second.end()
        assert marks(first, second) == [(index, 0) for index in range(12)]


async def left_before_the_first_result(held: Lot) -> Call:
    """A call that broke when its video was described; its session has then done all that it can without a client."""
    held.engine.open_gate.clear()
    call = held.begin()
    call.say(numbered(click(), 1), chunk(20))
    await call.until(lambda: call.all(replies.Described))
    await call.breaks()
    held.engine.open_gate.set()
    await held.quiet()
    return call


async def test_a_parked_session_goes_on_until_its_window_is_full() -> None:
    async with lot(window=4) as held:
        first = await left_before_the_first_result(held)
        assert len(held.engine.jobs) == 4
        second = held.again(first)
        await second.frames(4)
        assert contiguous(first, second)


async def test_an_ack_of_what_was_not_sent_leaves_no_gap() -> None:
    async with lot(window=4) as held:
        first = await left_before_the_first_result(held)
        second = held.again(first)
        second.reading.clear()
        second.say(events.Ack(4))
        await held.quiet()
        second.reading.set()
        await second.frames(4)
        assert contiguous(first, second)


async def test_a_session_that_no_client_knows_is_not_parked() -> None:
    async with lot() as held:
        call = held.begin()
        call.reading.clear()  # so that the client never gets the token
        call.say(numbered(click(), 1), chunk(20))
        await held.quiet()
        await call.breaks()
        assert held.sessions.parked == 0
        await held.nothing_is_left()


async def test_a_session_that_is_over_does_not_count_as_one_that_was_lost() -> None:
    async with lot(park_seconds=0.1, max_parked=1) as held:
        for _ in range(2):
            call = held.begin()
            call.say(numbered(click(), 1), *video(3))
            call.half_close()
            await call.end()
        assert held.sessions.parked == 1
        await asyncio.sleep(0.15)
        assert held.sessions.parked == 0
        assert not held.counts.ended


async def test_responses_of_a_parked_session_are_bounded_in_bytes() -> None:
    async with lot(keep_bytes=5000) as held:
        held.engine.open_gate.clear()
        first = held.begin()
        first.say(numbered(click(), 1), *video(60))
        first.half_close()  # so there is no window
        await asyncio.sleep(0.4)
        await first.breaks()
        held.engine.open_gate.set()
        await held.quiet()
        session = first.attachment.session
        assert 3000 < session.kept.size < 8000
        assert len(held.engine.jobs) < 20
        second = held.again(first)
        await second.end()
        assert marks(first, second) == [(index, 0) for index in range(60)]
        assert contiguous(first, second)


async def test_operations_take_effect_once() -> None:
    async with lot(window=4) as held:
        first = held.begin()
        first.say(numbered(click(1), 1), numbered(click(2), 2), chunk(20))
        await first.frames(4)
        await first.breaks()
        second = held.again(first)
        again: list[events.Event] = [
            numbered(click(1, 4), 1),
            numbered(click(2, 4), 2),
            events.RemoveObject(2, request_id=3),
        ]
        second.say(*again, events.RemoveObject(2, request_id=3), events.Ack(6))
        await second.frames(4)
        assert not second.all(replies.PromptResult), "both prompts were taken before"
        assert len(second.all(replies.Applied)) == 1
        assert not second.all(replies.Problem), "a second removal would be an error"
        assert [len(one.objects) for one in second.all(replies.FrameResult)] == [1, 1, 1, 1]


async def test_answers_name_the_request_and_when_it_was_taken() -> None:
    async with lot(window=4) as held:
        first = held.begin()
        first.say(numbered(click(1), 1), chunk(20))
        await first.frames(4)
        first.say(numbered(click(1, 2), 5), events.Ack(4))
        await first.frames(5)
        prompts = first.all(replies.PromptResult)
        assert prompts[0].taken == replies.Taken(1, None, 0)
        assert prompts[1].taken == replies.Taken(5, 3, 5)
        answers = [one.response for one in first.responses if isinstance(one, replies.Numbered)]
        assert [one.request_id for one in answers if isinstance(one, replies.Answer)] == [1, 1, 5, 5]


async def test_errors_name_the_request_whenever_they_come() -> None:
    async with lot() as held:
        first = held.begin()
        first.say(numbered(click(1), 1), numbered(click(2, 0, (999, 5)), 2), numbered(click(3, 90), 3))
        first.say(numbered(click(1), 1), events.RemoveObject(7, request_id=4), *video(20))
        first.half_close()
        await first.end()
        answers = [one.response for one in first.responses if isinstance(one, replies.Numbered)]
        refused = {
            one.request_id: one.response.error.message
            for one in answers
            if isinstance(one, replies.Answer) and isinstance(one.response, replies.Problem)
        }
        assert {number: message.split(":")[0] for number, message in refused.items()} == {
            2: "prompt.points[0]",
            3: "prompt.frame_index",
            4: "object 7 is not tracked, and no prompt for it waits",
        }
        assert not any(isinstance(one, replies.Problem) for one in answers)


async def test_an_acknowledged_response_is_not_kept() -> None:
    async with lot(window=4) as held:
        first = held.begin()
        first.say(numbered(click(), 1), chunk(40))
        for _ in range(5):
            count = len(first.all(replies.FrameResult))
            await first.frames(count + 4)
            first.ack()
        await first.frames(24)
        kept = first.attachment.session.kept
        assert len(kept) <= 4
        assert kept.last > 20


async def test_the_client_is_told_what_it_need_not_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lot() as held:
        first = held.begin()
        first.say(*[events.NextPicture(Picture("encoded", b"x")) for _ in range(33)])
        await first.until(lambda: first.all(replies.InputKept))
        (kept,) = first.all(replies.InputKept)
        assert kept.position.unit == "frame_count"
        assert kept.position.count >= 32
        monkeypatch.setattr(attachment, "KEPT_BYTES", 10)
        second = held.begin()
        second.say(chunk(9))
        await held.quiet()
        assert not second.all(replies.InputKept)
        second.say(chunk(2))
        await second.until(lambda: second.all(replies.InputKept))
        third = held.begin()
        third.say(*[events.NextPicture(Picture("encoded", b"xxxx")) for _ in range(3)])
        await third.until(lambda: third.all(replies.InputKept))
        assert third.all(replies.InputKept)[0].position.count == 3
        assert second.all(replies.InputKept) == [replies.InputKept(replies.InputPosition("video_bytes", 11, size=11))]


async def test_a_session_on_request_is_resumed() -> None:
    async with lot() as held:
        first = held.begin(ON_REQUEST)
        first.say(*video(20), numbered(click(), 1), events.Propagate(request_id=2))
        await first.frames(20)
        await first.breaks()
        second = held.again(first)
        second.say(events.Propagate(request_id=2), events.Propagate(max_frames=2, request_id=3))
        await second.frames(3)
        second.half_close()
        await second.end()
        assert contiguous(first, second)
        assert marks(second) == [(0, 1), (1, 1), (2, 1)], "the second propagation was taken once"


# Who comes back


async def test_a_newer_call_ends_the_older_one() -> None:
    async with lot(window=4) as held:
        first = held.begin()
        first.say(numbered(click(), 1), chunk(20))
        await first.frames(4)
        second, third = held.again(first), held.again(first)
        for call in (first, second):
            with pytest.raises(Aborted, match="another call has resumed this session"):
                await call.end()
        third.say(events.Ack(4))
        await third.frames(3)
        assert third.grant.epoch == 3
        assert contiguous(first, third)
        assert held.counts.parked_now == 0
        first.say(chunk(1))
        await held.quiet()
        assert third.attachment.session.inbox.position.count == 20, "an older call's messages are not taken"


async def test_a_call_that_writes_still_is_replaced_at_once() -> None:
    async with lot(window=4) as held:
        first = held.begin()
        await first.until(lambda: first.all(replies.Opened))
        first.reading.clear()
        first.say(numbered(click(), 1), chunk(20))
        await held.quiet()
        assert first.attachment.session.kept.last < 3, "it waits until the client reads"
        second = held.again(first)
        with pytest.raises(Aborted):
            await first.end()
        await second.until(lambda: max(second.numbers, default=0) == 7)
        assert contiguous(second)


@pytest.mark.parametrize("token", ["", "nonsense", "QUJD"])
async def test_forged_tokens_name_nothing(token: str) -> None:
    async with lot() as held:
        first = held.begin()
        await first.until(lambda: first.all(replies.Opened))
        with pytest.raises(NotFound, match="can't be resumed: it has ended, it is of another server"):
            held.resume(events.Resume(token))
        with pytest.raises(NotFound, match="can't be resumed: it has ended, it is of another server"):
            held.resume(events.Resume(first.grant.token), Owner("me", "somebody else"))
        assert held.counts.resumes == {"refused": 2}
        assert not first.task.done()


@pytest.mark.parametrize(("last", "words"), [(99, "is 99, but the last response"), (1, "has acknowledged")])
async def test_a_wrong_last_response_harms_nobody(last: int, words: str) -> None:
    async with lot(window=4) as held:
        first = held.begin()
        first.say(numbered(click(), 1), chunk(20))
        await first.frames(4)
        first.ack()
        await first.frames(8)
        with pytest.raises(InvalidArgument, match=words):
            held.again(first, last=last)
        assert not first.task.done()


async def test_responses_that_are_not_kept_any_more_are_named() -> None:
    async with lot(keep_bytes=3000) as held:
        first = held.begin()
        first.say(numbered(click(), 1), *video(40))
        first.half_close()
        await first.frames(30)
        with pytest.raises(NotFound, match=r"only 3000 bytes of responses are kept \(max_kept_response_bytes\)"):
            held.again(first, last=2)
        await held.nothing_is_left()


# How it ends


async def test_a_session_that_ended_while_parked_tells_its_end() -> None:
    async with lot() as held:
        held.engine.open_gate.clear()
        first = held.begin()
        first.say(numbered(click(), 1), *video(20))
        await first.until(lambda: first.all(replies.Described))
        await first.breaks()
        held.engine.open_gate.set()
        await held.quiet()
        assert held.sessions.running == 0, "it is over"
        assert held.source.closed
        second = held.again(first)
        await second.end()
        assert second.all(replies.Done) == [replies.Done(20)]
        third = held.again(first)
        with pytest.raises(InvalidArgument):
            held.again(first, last=1000)
        await third.end()
        assert third.numbers == second.numbers, "the client may have lost that call, too"


async def test_an_error_of_a_parked_session_waits_for_its_client() -> None:
    async with lot() as held:
        held.engine.open_gate.clear()
        first = held.begin()
        first.say(numbered(click(), 1), events.VideoChunk(bytes([*[0] * 20, BROKEN])))
        await first.until(lambda: first.all(replies.Described))
        await first.breaks()
        held.engine.open_gate.set()
        await held.quiet()
        for _ in range(2):
            second = held.again(first)
            with pytest.raises(DataLoss, match="broken"):
                await second.end()
            assert marks(first, second) == [(index, 0) for index in range(20)]


@pytest.mark.parametrize("frames", [0, 30])
async def test_a_session_that_the_server_has_lost_is_not_resumed_but_begun_anew(frames: int) -> None:
    async with lot() as held:
        first = held.begin()
        first.say(numbered(click(), 1), events.VideoChunk(bytes([*[0] * frames, LOST])))
        with pytest.raises(Unavailable, match="process was lost"):
            await first.end()
        assert [mark[0] for mark in marks(first)] == list(range(frames))
        back = events.Resume(first.grant.token, max(first.numbers, default=0), can_rewind=True, config=CONFIG)
        second = held.resume(back)
        second.say(numbered(click(), 1), *video(frames + 1))
        await second.end()
        assert second.resumed.how is replies.Resumption.REWOUND
        assert second.all(replies.Done)


async def test_a_client_that_cannot_begin_anew_is_told_why_its_session_has_ended() -> None:
    async with lot() as held:
        first = held.begin()
        first.say(numbered(click(), 1), events.VideoChunk(bytes([0, 0, LOST])))
        with pytest.raises(Unavailable):
            await first.end()
        second = held.again(first, last=1)
        with pytest.raises(Unavailable):
            await second.end()
        assert contiguous(first), "what it has not received comes first"
        with pytest.raises(NotFound, match="because it has ended: the decoding process was lost; begin a new one"):
            held.again(first)


async def test_a_client_that_cancels_is_not_waited_for() -> None:
    async with lot() as held:
        held.engine.open_gate.clear()
        first = held.begin()
        first.say(numbered(click(), 1), *video(20))
        await first.until(lambda: first.all(replies.Described))
        first.say(events.Cancel())
        with pytest.raises(Cancelled, match="the client asked to cancel"):
            await first.end()
        await held.nothing_is_left()
        with pytest.raises(NotFound):
            held.again(first)


async def test_a_client_that_has_left_cancels_by_a_call_of_its_own() -> None:
    async with lot() as held:
        held.engine.open_gate.clear()
        attached, parked = held.begin(), held.begin()
        for call in (attached, parked):
            call.say(numbered(click(), 1), *video(20))
            await call.until(lambda: call.all(replies.Described))  # noqa: B023 - it is called at once
        await parked.breaks()
        for call in (attached, parked):
            last = held.again(call, last=0)
            last.say(events.Cancel())
            last.half_close()
            with pytest.raises(Cancelled):
                await last.end()
        with pytest.raises(Aborted):
            await attached.end()
        await held.nothing_is_left()


async def test_a_session_expires_and_nothing_is_left() -> None:
    async with lot(park_seconds=0.1) as held:
        first = held.begin()
        first.say(numbered(click(), 1), chunk(20))
        await first.frames(20)
        session = weakref.ref(first.attachment.session)
        await first.breaks()
        assert held.sessions.running == 1
        await asyncio.sleep(0.15)
        await held.nothing_is_left()
        assert held.engine.forgotten == [first.attachment.session.id]
        assert held.counts.ended == {"expired": 1}
        assert held.counts.parked_now == 0
        with pytest.raises(NotFound, match=r"its client was away for more than 0.1 s; begin a new one"):
            held.again(first)
        held.calls.clear()
        del first
        gc.collect()
        assert session() is None


async def test_a_session_that_comes_back_in_time_does_not_expire() -> None:
    async with lot(park_seconds=2.0, window=4) as held:
        call = held.begin()
        call.say(numbered(click(), 1), chunk(20))
        await call.frames(4)
        for _ in range(4):
            await call.breaks()
            await asyncio.sleep(0.6)
            grant, last = call.grant, max(one for c in held.calls for one in c.numbers)
            call = held.resume(events.Resume(grant.token, last))
            await call.until(lambda: call.all(replies.Opened))  # noqa: B023 - it is called at once
        assert call.grant.epoch == 5
        assert held.sessions.running == 1


async def test_a_client_that_comes_again_and_again_without_taking_anything_is_ended() -> None:
    async with lot(park_seconds=0.2, window=2, idle_timeout_seconds=0.3) as held:
        call = held.begin()
        call.say(numbered(click(), 1), chunk(20))
        await call.frames(2)
        token, began = call.grant.token, asyncio.get_running_loop().time()
        while not call.task.done():
            await call.breaks()
            assert asyncio.get_running_loop().time() < began + 3
            await asyncio.sleep(0.05)
            call = held.resume(events.Resume(token, 4))
            await asyncio.sleep(0.02)
        with pytest.raises(DeadlineExceeded, match=r"no progress for 0.3 s while waiting for an ack"):
            await call.end()


async def test_the_time_in_which_the_client_is_away_is_not_idle() -> None:
    async with lot(window=2, idle_timeout_seconds=0.3) as held:
        first = held.begin()
        first.say(numbered(click(), 1), chunk(20))
        await first.frames(2)
        await first.breaks()
        await asyncio.sleep(0.6)
        second = held.again(first)
        second.say(events.Ack(3))
        await second.frames(2)


# Bounds


async def test_the_longest_parked_session_makes_room() -> None:
    async with lot(max_parked=2) as held:
        calls = [held.begin(owner=Owner(f"client {i}")) for i in range(3)]
        for call in calls:
            await call.until(lambda: call.all(replies.Opened))  # noqa: B023 - it is called at once
            await call.breaks()
        assert held.sessions.parked == 2
        with pytest.raises(NotFound, match="too many sessions waited for their clients"):
            held.again(calls[0])
        assert held.counts.ended == {"evicted": 1}
        held.again(calls[1])
        held.again(calls[2])


async def test_a_client_makes_room_of_its_own_sessions() -> None:
    async with lot(max_parked_per_client=1) as held:
        other = held.begin(owner=Owner("other"))
        mine = [held.begin(), held.begin()]
        for call in (other, *mine):
            await call.until(lambda: call.all(replies.Opened))  # noqa: B023 - it is called at once
            await call.breaks()
        with pytest.raises(NotFound):
            held.again(mine[0])
        held.again(mine[1])
        held.again(other)


async def test_sessions_that_are_over_make_room_first() -> None:
    async with lot(max_parked=1) as held:
        running, over = held.begin(), held.begin()
        over.say(*video(3))
        over.half_close()
        await over.end()
        await running.until(lambda: running.all(replies.Opened))
        await running.breaks()
        held.again(running)
        with pytest.raises(NotFound):
            held.again(over)


# The server stops


async def test_clients_are_told_that_the_server_stops_and_parked_sessions_end() -> None:
    async with lot(window=4) as held:
        first, second = held.begin(), held.begin()
        for call in (first, second):
            call.say(numbered(click(), 1), chunk(20))
            await call.frames(4)
        await first.breaks()
        held.sessions.announce_stop(3.0)
        await second.until(lambda: second.all(replies.Moving))
        assert second.all(replies.Moving) == [replies.Moving(second.grant.token, 3.0)]
        with pytest.raises(NotFound, match="the server was stopped"):
            held.again(first)
        assert held.counts.ended == {"stopped": 1}
        second.ack()
        await second.frames(8)
        await held.sessions.close()
        assert held.sessions.running == 0
        with pytest.raises(Unavailable, match="the server was stopped; resume the session"):
            await second.end()


async def test_a_call_that_ends_while_the_server_stops_is_not_parked() -> None:
    async with lot() as held:
        first = held.begin()
        await first.until(lambda: first.all(replies.Opened))
        held.sessions.announce_stop(3.0)
        await first.breaks()
        assert held.sessions.parked == 0
        await held.nothing_is_left()


async def test_closing_ends_everything_within_a_second() -> None:
    async with lot() as held:
        held.engine.open_gate.clear()
        calls = [held.begin() for _ in range(6)]
        for call in calls:
            call.say(numbered(click(), 1), *video(20))
            await call.until(lambda: call.all(replies.Described))  # noqa: B023 - it is called at once
        for call in calls[:3]:
            await call.breaks()
        await asyncio.wait_for(held.sessions.close(), 1.0)
        assert held.sessions.running == 0
        assert all(source.closed for source in held.sources.made)


# All kinds of video


async def test_of_packets_the_number_that_was_taken_is_told() -> None:
    async with lot() as held:
        first = held.begin()
        first.say(numbered(click(), 1), *[events.NextPacket(Packet(b"x", codec="h264"))] * 5)
        await first.frames(5)
        await first.breaks()
        second = held.again(first)
        await second.until(lambda: second.all(replies.Resumed))
        assert second.resumed.position == replies.InputPosition("packet_count", 5, request_id=1, size=5)
        second.say(*[events.NextPacket(Packet(b"x", codec="h264"))] * 3, events.EndOfVideo())
        second.half_close()
        await second.end()
        assert marks(first, second) == [(index, 0) for index in range(8)]


async def test_a_video_that_the_server_fetches_goes_on_meanwhile() -> None:
    async with lot(window=4) as held:
        first = held.begin(events.Configure(source_url="http://x/20"))
        first.say(numbered(click(), 1), events.EndOfVideo())
        await first.frames(4)
        await first.breaks()
        second = held.again(first)
        await second.until(lambda: second.all(replies.Resumed))
        assert second.resumed.position == replies.InputPosition(end_of_video=True, request_id=1)
        second.say(events.EndOfVideo())
        second.half_close()
        await second.end()
        assert marks(first, second) == [(index, 0) for index in range(20)]


async def test_of_the_latest_delivery_frames_are_results_or_skipped_by_name() -> None:
    async with lot(window=4) as held:
        first = held.begin(events.Configure(delivery=events.Delivery.LATEST, max_latency_seconds=0.01))
        picture = events.NextPicture(Picture("encoded", b"x"))
        first.say(numbered(click(), 1), *[picture] * 30)
        await first.frames(2)
        await first.breaks()
        await asyncio.sleep(0.05)
        second = held.again(first)
        await second.until(lambda: second.all(replies.Resumed))
        taken = second.resumed.position.count
        second.say(events.Ack(first.all(replies.FrameResult)[-1].sequence))
        for _ in range(10):
            second.say(picture)
            await asyncio.sleep(0.02)
        second.say(events.EndOfVideo())
        second.half_close()
        await second.end()
        results = [*first.all(replies.FrameResult), *second.all(replies.FrameResult)]
        named = [index for result in results for index in (*result.skipped, result.frame_index)]
        assert named == list(range(len(named)))
        assert len(named) == taken + 10
        assert contiguous(first, second)
