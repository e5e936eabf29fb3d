"""Sessions that go on from a snapshot on another server: the client sees what it would have seen."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from masklet.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from masklet_server.session import events, replies
from masklet_server.session.resuming.resumable_session import Owner
from masklet_server.snapshots.blobs import BlobInfo, DirectoryBlobs
from tests.support.fakes import is_tracking
from tests.support.resuming import CONFIG, lot
from tests.support.session import click
from tests.support.viewer import FRAMES, PACKETS, PICTURES, PLAN, Plan, Viewer

WINDOWED = replace(CONFIG, correction_window=30)
COUNTED = replace(CONFIG, frame_count=30)
VIDEOS: dict[str, list[events.Event]] = {
    "file": [events.VideoChunk(bytes([i])) for i in range(FRAMES)],
    "pictures": PICTURES,
    "packets": PACKETS,
}


class Disk(DirectoryBlobs):
    """A folder that a server can lose: then nothing that it still does reaches the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_lost = False
        self.is_full = False

    async def put(self, name: str, data: bytes) -> None:
        self._check()
        await super().put(name, data)

    async def create(self, name: str, data: bytes) -> bool:
        self._check()
        return await super().create(name, data)

    async def delete(self, names: Sequence[str]) -> None:
        self._check()
        await super().delete(names)

    async def names(self, prefix: str) -> Sequence[BlobInfo]:
        self._check()
        return await super().names(prefix)

    def _check(self) -> None:
        if self.is_lost:
            raise Unavailable("the disk is gone")
        if self.is_full:
            raise Unavailable("the disk is full")


def stored(folder: Path) -> list[Path]:
    """The snapshots in a folder, the newest last."""
    return sorted(folder.rglob("*.snapshot"))


def viewer_of(kind: str, plan: Plan = PLAN, config: events.Configure = WINDOWED) -> Viewer:
    viewer = Viewer(plan, config)
    viewer.video = VIDEOS[kind]
    return viewer


async def undisturbed(kind: str, plan: Plan = PLAN, config: events.Configure = WINDOWED) -> Viewer:
    viewer = viewer_of(kind, plan, config)
    async with lot() as held:
        await viewer.watch(held)
    return viewer


async def dies(viewer: Viewer, folder: Path, after: int) -> None:
    """Watch until so many responses have come, and the server dies; at once, whatever it is storing."""
    disk = Disk(folder)
    async with lot(blobs=disk) as held:
        await viewer.watch(held, breaks_after=after)
        disk.is_lost = True


@pytest.mark.parametrize("kind", VIDEOS)
@pytest.mark.parametrize("part", range(2))
async def test_wherever_a_server_dies_the_client_sees_the_same(kind: str, part: int, tmp_path: Path) -> None:
    reference = await undisturbed(kind)
    assert reference.done == replies.Done(FRAMES)
    restored = 0
    for cut in range(8 + part, len(reference.numbers), 5):
        viewer, folder = viewer_of(kind), tmp_path / str(cut)
        await dies(viewer, folder, cut)
        async with lot(blobs=DirectoryBlobs(folder)) as another:
            try:
                await viewer.come_back(another)
            except NotFound:
                assert viewer.kept is None, "a client that was told of a snapshot can rely on it"
                continue
            restored += another.counts.resumes["restored"]
        assert viewer.seen == reference.seen, f"cut after {cut}"
        assert viewer.problems == reference.problems
        assert viewer.taken == reference.taken
        assert viewer.done == reference.done
        assert viewer.numbers == list(range(1, len(viewer.numbers) + 1))
    assert restored >= 8


async def test_servers_may_die_one_after_the_other(tmp_path: Path) -> None:
    reference = await undisturbed("pictures")
    viewer = viewer_of("pictures")
    await dies(viewer, tmp_path, 12)
    for cut in (22, 35, 50, 70):
        disk = Disk(tmp_path)
        async with lot(blobs=disk) as another:
            await viewer.come_back(another, breaks_after=cut)
            await another.quiet()
            disk.is_lost = True
    async with lot(blobs=DirectoryBlobs(tmp_path)) as last:
        await viewer.come_back(last)
    assert viewer.seen == reference.seen
    assert viewer.taken == reference.taken


async def test_a_client_lets_go_of_what_a_snapshot_has_and_of_nothing_else(tmp_path: Path) -> None:
    async with lot(window=8, blobs=DirectoryBlobs(tmp_path)) as held:
        call = held.begin()
        call.say(replace(click(), request_id=1), *PICTURES[:20])
        await call.frames(8)
        await call.until(lambda: call.all(replies.InputKept))
        first = call.all(replies.InputKept)[0]
        assert first.snapshot_frame is not None
        assert first.position == replies.InputPosition("frame_count", first.snapshot_frame + 1, request_id=1)
        assert stored(tmp_path), "it is there before the client is told of it"


async def test_an_ended_session_leaves_nothing(tmp_path: Path) -> None:
    viewer = viewer_of("file")
    async with lot(blobs=DirectoryBlobs(tmp_path), park_seconds=0.05) as held:
        await viewer.watch(held)
        await asyncio.sleep(0.3)
        assert held.counts.snapshots["stored"] > 1
        assert not stored(tmp_path)
        assert held.counts.bytes_now == 0


async def test_a_cancelled_session_leaves_nothing_and_an_expired_one_goes_on(tmp_path: Path) -> None:
    async with lot(window=4, blobs=DirectoryBlobs(tmp_path), park_seconds=0.05) as held:
        call = held.begin()
        call.say(replace(click(), request_id=1), *PICTURES[:20])
        await call.until(lambda: call.all(replies.InputKept))
        await call.frames(4)
        await call.breaks()
        await asyncio.sleep(0.2)
        assert held.counts.ended == {"expired": 1}
        resume = events.Resume(call.grant.token, max(call.numbers), config=CONFIG)
        again = await held.come_back(resume)
        await again.until(lambda: again.all(replies.Resumed))
        assert again.resumed.how is replies.Resumption.RESTORED
        again.say(events.Cancel())
        await asyncio.sleep(0.2)
        assert not stored(tmp_path)


# One server at a time


async def test_two_servers_one_session_and_only_one_sends(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    async with lot(window=8, blobs=blobs) as old, lot(window=8, blobs=blobs, alone=False) as new:
        first = old.begin(COUNTED)
        first.say(replace(click(), request_id=1), *PICTURES[:6])
        await first.frames(6)
        await first.until(lambda: first.all(replies.InputKept))
        second = await new.come_back(events.Resume(first.grant.token, max(first.numbers), config=COUNTED))
        await second.until(lambda: second.all(replies.Resumed))
        first.ack()
        first.say(*PICTURES[6:20])  # the old server makes a snapshot, and is told
        with pytest.raises(Aborted):
            await first.end()
        assert old.counts.snapshots["fenced"] == 1
        start = second.resumed.position.count
        second.say(*PICTURES[start:12], events.EndOfVideo())
        second.half_close()
        await second.frames(1)
        assert new.sessions.running == 1
        await old.quiet()
        assert old.sessions.running == 0


async def test_a_server_does_not_go_on_with_a_session_that_went_on_elsewhere(tmp_path: Path) -> None:
    """The client comes back to the first server, whose session was parked when another one took it."""
    blobs = DirectoryBlobs(tmp_path)
    async with lot(window=8, blobs=blobs) as old, lot(window=8, blobs=blobs, alone=False) as new:
        first = old.begin(COUNTED)
        first.say(replace(click(), request_id=1), *PICTURES[:6])
        await first.frames(6)
        await first.until(lambda: first.all(replies.InputKept))
        await first.breaks()
        resume = events.Resume(first.grant.token, max(first.numbers), config=COUNTED)
        second = await new.come_back(resume)
        await second.until(lambda: second.all(replies.Resumed))
        await second.breaks()
        third = await old.come_back(resume)
        await third.until(lambda: third.all(replies.Resumed))
        assert third.resumed.how is replies.Resumption.RESTORED
        assert old.counts.resumes == {"restored": 1}


async def test_calls_that_come_back_at_once_are_taken_in_turn(tmp_path: Path) -> None:
    viewer = viewer_of("pictures")
    await dies(viewer, tmp_path, 20)
    async with lot(blobs=DirectoryBlobs(tmp_path)) as one, lot(blobs=DirectoryBlobs(tmp_path), alone=False) as other:
        came = await asyncio.gather(
            *(each.come_back(viewer.resume()) for each in (one, other, one)), return_exceptions=True
        )
        assert all(not isinstance(each, BaseException) or isinstance(each, Aborted) for each in came)
        assert one.sessions.running <= 1, "the second call of one server took the place of the first one"
        assert any(not isinstance(each, BaseException) for each in came)


# Snapshots that are no good


def damage(folder: Path, number: int) -> None:
    """Damage the newest snapshots."""
    for path in stored(folder)[-number:]:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])


async def test_a_damaged_snapshot_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reference = await undisturbed("file")
    viewer = viewer_of("file")
    await dies(viewer, tmp_path, 40)
    damage(tmp_path, 1)
    async with lot(blobs=DirectoryBlobs(tmp_path)) as another:
        viewer.kept = None  # it can send all of the file again
        await viewer.come_back(another)
        assert another.counts.resumes == {"restored": 1}
    assert viewer.seen == reference.seen
    assert "is passed over" in caplog.text


async def test_without_a_good_snapshot_a_session_begins_anew_or_ends_by_name(tmp_path: Path) -> None:
    viewer = viewer_of("file")
    await dies(viewer, tmp_path, 40)
    damage(tmp_path, 2)
    async with lot(blobs=DirectoryBlobs(tmp_path)) as another:
        with pytest.raises(NotFound, match="can't be resumed"):
            await another.come_back(viewer.resume())
        call = await another.come_back(viewer.resume(can_rewind=True))
        await call.until(lambda: call.all(replies.Resumed))
        assert call.resumed.how is replies.Resumption.REWOUND


async def test_a_snapshot_of_another_version_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    viewer = viewer_of("file")
    await dies(viewer, tmp_path, 40)
    for path in stored(tmp_path):
        path.write_bytes(path.read_bytes().replace(b"masklet-snapshot-1\n", b"masklet-snapshot-0\n"))
    async with lot(blobs=DirectoryBlobs(tmp_path)) as another:
        with pytest.raises(NotFound):
            await another.come_back(viewer.resume())
    assert "the snapshot has version 0" in caplog.text


async def test_a_full_disk_stops_no_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reference = await undisturbed("pictures")
    viewer, disk = viewer_of("pictures"), Disk(tmp_path)
    disk.is_full = True
    async with lot(blobs=disk) as held:
        await viewer.watch(held)
        assert held.counts.snapshots == {"failed": 1}, "the next try comes after a pause"
    assert viewer.seen == reference.seen
    assert viewer.kept is None or viewer.kept.snapshot_frame is None
    assert "the disk is full" in caplog.text


# What a client may not do


async def test_another_configuration_is_refused(tmp_path: Path) -> None:
    viewer = viewer_of("file")
    await dies(viewer, tmp_path, 30)
    async with lot(blobs=DirectoryBlobs(tmp_path)) as another:
        resume = viewer.resume()
        with pytest.raises(InvalidArgument, match=r"resume\.config\.window: is 2, but the session began with 1"):
            await another.come_back(replace(resume, config=replace(viewer.config, window=2)))
        with pytest.raises(InvalidArgument, match=r"resume\.config: is missing"):
            await another.come_back(replace(resume, config=None))
        with pytest.raises(NotFound):
            await another.come_back(replace(resume, token="A" * 64))
        with pytest.raises(NotFound):
            await another.come_back(resume, Owner("you", identity="you"))
        await viewer.come_back(another)


async def test_another_video_is_noticed(tmp_path: Path) -> None:
    viewer = viewer_of("file")
    await dies(viewer, tmp_path, 30)
    async with lot(blobs=DirectoryBlobs(tmp_path)) as another:
        call = await another.come_back(viewer.resume())
        call.say(events.VideoChunk(bytes(2)), events.EndOfVideo())
        with pytest.raises(Exception, match="the video that was sent again ends after 2 frames"):
            await call.end()


async def test_a_video_that_ends_each_server_ends_the_stream(tmp_path: Path) -> None:
    viewer = viewer_of("file")
    await dies(viewer, tmp_path, 30)
    for _ in range(2):
        disk = Disk(tmp_path)
        async with lot(blobs=disk) as another:
            call = await another.come_back(viewer.resume(can_rewind=True))
            await call.until(functools.partial(call.all, replies.Resumed))
            disk.is_lost = True
    async with lot(blobs=DirectoryBlobs(tmp_path)) as last:
        with pytest.raises(FailedPrecondition, match="2 servers ended while they went over its video again"):
            await last.come_back(viewer.resume(can_rewind=True))


async def test_servers_that_end_in_an_orderly_way_do_not_count_as_dead(tmp_path: Path) -> None:
    reference = await undisturbed("file")
    viewer = viewer_of("file")
    await dies(viewer, tmp_path, 30)
    for _ in range(4):
        async with lot(blobs=DirectoryBlobs(tmp_path)) as another:
            call = await another.come_back(viewer.resume())
            await call.until(functools.partial(call.all, replies.Resumed))
    async with lot(blobs=DirectoryBlobs(tmp_path)) as last:
        await viewer.come_back(last)
    assert viewer.seen == reference.seen


@pytest.mark.parametrize("job", [1, 4, 9])
async def test_an_engine_without_memory_ends_a_stream_by_name(job: int, tmp_path: Path) -> None:
    """Whichever job fails: what came before is right, and nothing is left of the session or its snapshots."""
    reference = await undisturbed("file")
    viewer = viewer_of("file")
    async with lot(blobs=DirectoryBlobs(tmp_path), park_seconds=0.05) as held:
        held.engine.refuse = lambda one: (
            ResourceExhausted("the device has no memory left")
            if is_tracking(one) and len(held.engine.jobs) >= job
            else None
        )
        with pytest.raises(ResourceExhausted, match="no memory left"):
            await viewer.watch(held)
        await asyncio.sleep(0.3)
        assert not stored(tmp_path)
    assert viewer.seen == reference.seen[: len(viewer.seen)]


async def test_a_wrong_clock_deletes_no_snapshot_of_a_session_that_goes_on(tmp_path: Path) -> None:
    async with lot(window=4, blobs=DirectoryBlobs(tmp_path)) as held:
        call = held.begin(COUNTED)
        call.say(replace(click(), request_id=1), *PICTURES[:4])
        await call.until(functools.partial(call.all, replies.InputKept))
        for path in stored(tmp_path):
            os.utime(path, (0, 0))  # as if the clock had jumped by decades
        assert held.store is not None
        expiring = asyncio.create_task(held.store.expire())
        await asyncio.sleep(0.2)
        expiring.cancel()
        assert stored(tmp_path)


# Only the latest frames


async def test_of_a_live_stream_the_gap_is_named(tmp_path: Path) -> None:
    config = replace(CONFIG, delivery=events.Delivery.LATEST)
    disk = Disk(tmp_path)
    async with lot(blobs=disk) as held:
        first = held.begin(config)
        first.say(replace(click(), request_id=1))
        for picture in PICTURES[:8]:
            first.say(picture)
            await held.quiet()
        await first.until(lambda: first.all(replies.InputKept) and len(first.all(replies.FrameResult)) >= 6)
        await first.breaks()
        disk.is_lost = True
    seen = first.all(replies.FrameResult)
    async with lot(blobs=DirectoryBlobs(tmp_path)) as another:
        replay = events.Replay((), seen[-1].sequence, seen[-1].sequence)
        resume = events.Resume(
            first.grant.token, max(first.numbers), config=config, replay=replay, last_frame=seen[-1].frame_index
        )
        second = await another.come_back(resume)
        await second.until(lambda: second.all(replies.Resumed))
        assert second.resumed.position.count == seen[-1].frame_index + 1
        for picture in PICTURES[second.resumed.position.count : 20]:
            second.say(picture)
        second.say(events.EndOfVideo())
        second.half_close()
        await second.end()
    seen += second.all(replies.FrameResult)
    told = sorted([one.frame_index for one in seen] + [index for one in seen for index in one.skipped])
    assert told == list(range(20))
    assert [one.sequence for one in seen] == sorted({one.sequence for one in seen})
