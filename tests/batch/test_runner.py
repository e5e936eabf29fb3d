"""A batch against a server that follows a script: each clip once, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

import masklet
from masklet.batch import BatchEvent, BatchSettings, Clip, Entry, Patience, Shard
from masklet.batch.ledger import Ledger
from masklet.recording import Recording
from tests.batch.support import IMPATIENT, POINT, BatchServer, make_clips, run
from tests.support.scripted.fake_script import Script, status

NAMES = ("a.mp4", "b/c.mp4", "d.mp4")


def ledger_states(folder: Path, name: str = "ledger.jsonl") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (folder / name).read_text().splitlines():
        entry = Entry.from_line(line)
        found.setdefault(entry.clip, []).append(entry.state)
    return found


def test_every_clip_is_done_and_only_once(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *NAMES)
    with BatchServer() as server:
        summary, events = run(server.address, clips, tmp_path / "out")
        assert sorted(events) == [(name, "done") for name in NAMES]
        assert (summary.done, summary.frames, summary.is_complete) == (3, 15, True)
        again, events = run(server.address, clips, tmp_path / "out")
        assert sorted(events) == [(name, "already-done") for name in NAMES]
        assert (again.done, again.done_before, again.frames) == (3, 3, 0)
        assert len(server.sessions) == 3
    recording = masklet.Recording.load(tmp_path / "out" / "b" / "c.mp4" / "result.jsonl")
    assert (len(recording), recording.source) == (5, str(tmp_path / "b" / "c.mp4"))
    assert recording[2].objects[1].area == 400
    assert ledger_states(tmp_path / "out") == {name: ["started", "done"] for name in NAMES}
    assert not (tmp_path / "out" / ".partial").exists()


def test_results_in_other_forms(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4")
    settings = BatchSettings(results=".json", exports=["coco", "mot=track"])
    with BatchServer() as server:
        run(server.address, clips, tmp_path / "out", settings)
        # More formats later: they are made of what is there, and nothing is tracked again.
        _, events = run(
            server.address, clips, tmp_path / "out", replace(settings, exports=["coco", "mot=track", "cvat"])
        )
        assert events == [("a.mp4", "done")]
        assert len(server.sessions) == 1
    inside = {path.name for path in (tmp_path / "out" / "a.mp4").iterdir()}
    assert inside == {"clip.json", "result.json", "coco.json", "track", "cvat.xml"}
    assert len(masklet.importing.read(tmp_path / "out" / "a.mp4" / "coco.json")) == 5


WRONG = [
    {"exports": ["nothing"]},
    {"exports": ["coco=../x.json"]},
    {"exports": ["coco", "coco"]},
    {"results": ".txt"},
    {"jobs": 0},
]


@pytest.mark.parametrize("settings", WRONG)
def test_wrong_settings_are_refused_at_once(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(masklet.InvalidArgument):
        masklet.Batch([], tmp_path, BatchSettings(**settings))  # type: ignore[arg-type]


def test_a_clip_that_is_broken_is_put_on_the_list(tmp_path: Path) -> None:
    clips = [*make_clips(tmp_path, "a.mp4"), Clip("gone.mp4", tmp_path / "gone.mp4", [POINT])]
    clips += [Clip("unprompted.mp4", tmp_path / "a.mp4")]
    with BatchServer() as server:
        summary, events = run(server.address, clips, tmp_path / "out")
        assert sorted(events) == [("a.mp4", "done"), ("gone.mp4", "poisoned"), ("unprompted.mp4", "poisoned")]
        assert (summary.done, summary.poisoned, summary.left, summary.is_complete) == (1, 2, 0, False)
        lines = [json.loads(line) for line in (tmp_path / "out" / "poisoned.jsonl").read_text().splitlines()]
        assert {line["clip"]: line["code"] for line in lines} == {
            "gone.mp4": "OS",
            "unprompted.mp4": "INVALID_ARGUMENT",
        }
        assert "No such file" in next(line["error"] for line in lines if line["clip"] == "gone.mp4")
        # What was mended is done in the next run.
        (tmp_path / "gone.mp4").write_bytes(b"video")
        (tmp_path / "a.prompts.json").write_text('[{"points": [[20, 20]]}]')
        summary, events = run(server.address, clips, tmp_path / "out")
        assert summary.is_complete
        assert not (tmp_path / "out" / "poisoned.jsonl").exists()


def test_a_video_that_cannot_be_decoded_is_not_tried_again(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4")
    with BatchServer(Script(fail_at=2, failure=status(grpc.StatusCode.DATA_LOSS, "broken"))) as server:
        for kind in ("poisoned", "already-poisoned"):
            summary, events = run(server.address, clips, tmp_path / "out")
            assert events == [("a.mp4", kind)]
            assert [entry.code for entry in summary.failed] == ["DATA_LOSS"]
        assert len(server.sessions) == 1
        retry = BatchSettings(retry_poisoned=True, patience=IMPATIENT)
        assert run(server.address, clips, tmp_path / "out", retry)[1] == [("a.mp4", "poisoned")]
        assert len(server.sessions) == 2
    assert not (tmp_path / "out" / "a.mp4").exists()


def test_an_error_that_may_pass_is_tried_again(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4")
    script = Script(fail_at=2, failure=status(grpc.StatusCode.INTERNAL, "a bug"))
    pauses: list[float] = []

    def mend(event: BatchEvent) -> None:
        if event.kind == "retry":
            pauses.append(event.retry_seconds)
        if len(pauses) == 2:
            script.fail_at = script.failure = None

    with BatchServer(script) as server:
        summary, events = run(server.address, clips, tmp_path / "out", on_event=mend)
        assert events == [("a.mp4", "retry"), ("a.mp4", "retry"), ("a.mp4", "done")]
        assert summary.is_complete
        assert pauses[0] < pauses[1]
    assert ledger_states(tmp_path / "out")["a.mp4"] == ["started", "retry"] * 2 + ["started", "done"]


def test_an_error_that_does_not_pass_ends_on_the_list(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4")
    with BatchServer(Script(fail_at=2, failure=status(grpc.StatusCode.INTERNAL, "a bug"))) as server:
        summary, events = run(server.address, clips, tmp_path / "out")
        assert events == [("a.mp4", "retry"), ("a.mp4", "retry"), ("a.mp4", "poisoned")]
        assert summary.failed[0].attempt == 3


def test_a_server_without_room_costs_no_attempt(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4")
    wait = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=20_000_000))
    script = Script(fail_at=0, failure=status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", wait))
    seen = Counter[str]()

    def leave(event: BatchEvent) -> None:
        seen[event.kind] += 1
        if seen["retry"] == 5:  # more than there are attempts
            script.fail_at = script.failure = None

    with BatchServer(script) as server:
        summary, _ = run(server.address, clips, tmp_path / "out", on_event=leave)
        assert summary.is_complete
        assert seen == {"retry": 5, "done": 1}


def test_what_every_clip_would_meet_ends_the_batch(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *NAMES)
    script = Script(fail_at=2, failure=status(grpc.StatusCode.UNAUTHENTICATED, "the token is old"))
    with BatchServer(script) as server, pytest.raises(masklet.Unauthenticated, match="the token is old"):
        run(server.address, clips, tmp_path / "out", BatchSettings(jobs=1))
    assert "poisoned" not in str(ledger_states(tmp_path / "out"))
    with BatchServer() as server:
        with pytest.raises(masklet.NotFound, match="the server has no model 'huge'; it has nano"):
            run(server.address, clips, tmp_path / "out", BatchSettings(options={"model": "huge"}))
        assert run(server.address, clips, tmp_path / "out")[0].is_complete


def test_a_file_that_is_gone_is_told_by_name(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4")
    clips[0].video.unlink()
    with BatchServer() as server:
        summary, _ = run(server.address, clips, tmp_path / "out")
    assert summary.failed[0].error == f"{clips[0].video}: No such file or directory"


def test_clips_may_be_called_like_the_batchs_own_files(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "lock-1.txt", "ledger-a.jsonl")
    with BatchServer() as server:
        for _ in range(2):
            assert run(server.address, clips, tmp_path / "out")[0].is_complete


def test_a_full_disk_is_told_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Recording, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Recording, "save", full)
    with BatchServer() as server, pytest.raises(OSError, match="No space left") as caught:
        run(server.address, make_clips(tmp_path, "a.mp4"), tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out")


def test_a_server_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *[f"{number}.mp4" for number in range(6)])
    settings = BatchSettings(jobs=2, patience=replace(IMPATIENT, wait_seconds=60), options={"resume": False})
    servers = [BatchServer(Script(seconds_per_frame=0.2)).__enter__()]
    address = servers[0].address

    def restart() -> None:
        servers[0].stop()
        time.sleep(0.5)
        servers.append(BatchServer(address=address).__enter__())

    timer = threading.Timer(0.5, restart)
    timer.start()
    summary, events = run(address, clips, tmp_path / "out", settings)
    timer.join()
    servers[-1].stop()
    assert summary.is_complete
    assert sorted(name for name, kind in events if kind == "done") == sorted(clip.name for clip in clips)
    assert [kind for _, kind in events].count("retry") == 2  # those that were being tracked; the others waited


def test_a_server_that_does_not_come_back_ends_the_batch(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *NAMES)
    server = BatchServer(Script(seconds_per_frame=0.1)).__enter__()
    patience = Patience(retries=9, pause_seconds=0.05, wait_seconds=0.5)
    settings = BatchSettings(jobs=1, patience=patience, options={"resume": False})
    threading.Timer(0.3, server.stop).start()
    with pytest.raises(masklet.Unavailable, match=r"the server has not come back for 0\.5 s: nobody listens"):
        run(server.address, clips, tmp_path / "out", settings)
    assert "poisoned" not in str(ledger_states(tmp_path / "out"))


def test_a_batch_that_is_stopped_goes_on_in_the_next_run(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *NAMES)
    with (
        BatchServer(Script(frame_count=50, seconds_per_frame=0.05)) as server,
        masklet.Client(server.address) as client,
    ):
        batch = masklet.Batch(clips, tmp_path / "out", BatchSettings(jobs=2))
        kinds = Counter[str]()
        timer = threading.Timer(0.4, batch.stop)
        timer.start()
        begun = time.monotonic()
        summary = batch.run(client, lambda event: kinds.update([event.kind]))
        assert time.monotonic() - begun < 2.0
        assert summary.is_stopped
        assert summary.left == 3
        assert kinds == {"interrupted": 2}
        server.script.seconds_per_frame = 0.0
        assert run(server.address, clips, tmp_path / "out")[0].is_complete


def interrupt_when_begun(out: Path, ended: threading.Event) -> None:
    """Send SIGINT to this process once a clip has begun; again, much later, if Python could not raise the first one.

    A second one while the batch ends in order would leave clips as "started", as it should.
    """
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in out.glob("ledger*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    while not ended.wait(0.1):
        os.kill(os.getpid(), signal.SIGINT)
        if ended.wait(20):
            return


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT is raised as KeyboardInterrupt, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_in_a_program_ends_in_order(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *NAMES)
    with BatchServer(Script(frame_count=50, seconds_per_frame=0.05)) as server:
        ended = threading.Event()
        interrupter = threading.Thread(target=interrupt_when_begun, args=(tmp_path / "out", ended))
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            run(server.address, clips, tmp_path / "out")
        ended.set()
        interrupter.join()
        assert {states[-1] for states in ledger_states(tmp_path / "out").values()} == {"interrupted"}
        server.script.seconds_per_frame = 0.0
        assert run(server.address, clips, tmp_path / "out")[0].is_complete


def test_a_batch_runs_once(tmp_path: Path) -> None:
    with BatchServer() as server, masklet.Client(server.address) as client:
        batch = masklet.Batch(make_clips(tmp_path, "a.mp4"), tmp_path / "out")
        assert batch.run(client).is_complete
        with pytest.raises(masklet.FailedPrecondition, match="the batch has run; make another one"):
            batch.run(client)


def test_what_has_changed_is_done_again(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *NAMES)
    why: dict[str, str] = {}
    with BatchServer() as server:
        run(server.address, clips, tmp_path / "out")
        os.utime(tmp_path / "a.mp4", ns=(1, 1))  # touched alone: its bytes are the same
        (tmp_path / "d.mp4").write_bytes(b"another video")
        clips[1] = replace(clips[1], prompts=[masklet.Prompt(object_id=2, box=[1, 2, 30, 40])])
        _, events = run(server.address, clips, tmp_path / "out", on_event=lambda e: why.update({e.clip.name: e.again}))
        assert sorted(events) == [("a.mp4", "already-done"), ("b/c.mp4", "done"), ("d.mp4", "done")]
        assert why == {
            "a.mp4": "", "b/c.mp4": "its prompts, range or options have changed", "d.mp4": "its video has changed"
        }  # fmt: skip
        (tmp_path / "out" / "a.mp4" / "clip.json").unlink()
        (tmp_path / "out" / "a.mp4" / "result.jsonl").unlink()
        (tmp_path / "out" / "a.mp4").rmdir()
        _, events = run(server.address, clips, tmp_path / "out")
        assert ("a.mp4", "done") in events
    assert set(masklet.Recording.load(tmp_path / "out/b/c.mp4/result.jsonl").objects) == {2}


def test_a_video_that_changes_meanwhile_is_done_again(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4")
    with BatchServer(Script(seconds_per_frame=0.1)) as server:
        threading.Timer(0.25, lambda: (tmp_path / "a.mp4").write_bytes(b"another one")).start()
        _, events = run(server.address, clips, tmp_path / "out")
    assert events == [("a.mp4", "retry"), ("a.mp4", "done")]


def test_a_clip_without_boxes_is_done_by_name(tmp_path: Path) -> None:
    clip = make_clips(tmp_path, "a.mp4")[0]
    with BatchServer() as server:
        assert run(server.address, [clip], tmp_path / "out")[1] == [("a.mp4", "done")]
        clip = replace(clip, prompts=masklet.batch.PromptFile([]))
        for kind in ("empty", "already-done"):
            summary, events = run(server.address, [clip], tmp_path / "out")
            assert events == [("a.mp4", kind)]
            assert summary.is_complete
            assert not (tmp_path / "out" / "a.mp4").exists()  # what was there is of other prompts
        assert len(server.sessions) == 1


def test_shards_share_a_folder(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *[f"{number}.mp4" for number in range(12)])
    done: list[str] = []
    with BatchServer() as server:
        for number in (1, 2, 3):
            settings = BatchSettings(shard=Shard(number, 3))
            summary, events = run(server.address, clips, tmp_path / "out", settings)
            assert 0 < summary.clips < 12
            assert summary.is_complete
            done += [name for name, kind in events if kind == "done"]
        assert sorted(done) == sorted(clip.name for clip in clips)
        assert len(list((tmp_path / "out").glob("ledger-*-of-3.jsonl"))) == 3
        # All in all: nothing is left.
        summary, events = run(server.address, clips, tmp_path / "out")
        assert summary.done_before == 12
        assert len(server.sessions) == 12


def test_two_runs_do_not_work_in_one_folder(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *NAMES)
    refused: list[str] = []
    settings = BatchSettings(jobs=1, shard=Shard(1, 2))
    with BatchServer() as server, masklet.Client(server.address) as client:

        def try_others(event: BatchEvent) -> None:
            for shard in (Shard(1, 2), None, Shard(2, 3)):
                with pytest.raises(masklet.FailedPrecondition, match=r"is in use by another batch \(process \d+ on"):
                    masklet.Batch(clips, tmp_path / "out", BatchSettings(shard=shard)).run(client)
                refused.append(event.clip.name)
            masklet.Batch(clips, tmp_path / "out", BatchSettings(shard=Shard(2, 2))).run(client)

        summary = masklet.Batch(clips, tmp_path / "out", settings).run(client, try_others)
    assert len(refused) == 3 * summary.clips > 0
    assert len(server.sessions) == 3


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4")
    (tmp_path / "out" / "a.mp4").mkdir(parents=True)
    (tmp_path / "out" / "a.mp4" / "thesis.txt").write_text("years of work")
    with BatchServer() as server:
        summary, _ = run(server.address, clips, tmp_path / "out")
    assert "holds no results of a batch; move it away" in summary.failed[0].error
    assert (tmp_path / "out" / "a.mp4" / "thesis.txt").read_text() == "years of work"


# Runs batches, of which each dies at one step later that changes something on the disk, until one is whole.
_DYING = """
import os, pathlib, sys
from dataclasses import replace
import masklet
from masklet.batch import BatchSettings, find_clips
def die_at(steps):
    left = [steps]
    def counted(call):
        def step(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return call(*args, **kwargs)
        return step
    for name in ("fsync", "write", "rename", "replace", "mkdir", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))
    for name in ("rename", "write_text", "mkdir"):
        setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
    with masklet.Client(sys.argv[1]) as client:
        prompt = masklet.Prompt(point_coords=[[20, 20]])
        clips = [replace(clip, prompts=[prompt]) for clip in find_clips([sys.argv[2]])]
        masklet.Batch(clips, f"{sys.argv[3]}/{steps}", BatchSettings(jobs=1, exports=["coco"])).run(client)
    os._exit(0)
for steps in range(1, 100):
    child = os.fork()
    if not child:
        die_at(steps)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    if code == 0:
        break
print(steps)
"""


@pytest.mark.slow
def test_a_run_that_dies_at_any_step_goes_on(tmp_path: Path) -> None:
    """At each write, the next run finds everything as it must be: each clip is done once, or was not done."""
    make_clips(tmp_path / "in", "a.mp4", "b.mp4")
    clips = [replace(clip, prompts=[POINT]) for clip in masklet.batch.find_clips([tmp_path / "in"])]
    found = Counter[int]()
    with BatchServer() as server:
        command = [sys.executable, "-c", _DYING, server.address, str(tmp_path / "in"), str(tmp_path)]
        steps = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert steps > 20, "it dies at every step"
        for step in range(1, steps):
            out = tmp_path / str(step)
            before, there = len(server.sessions), {path.parent.name for path in out.glob("*/clip.json")}
            summary, _ = run(server.address, clips, out, BatchSettings(jobs=1, exports=["coco"]))
            assert summary.is_complete
            assert len(server.sessions) - before == 2 - len(there), step  # what is there is not tracked again
            found[len(there)] += 1
            for clip in clips:
                assert len(masklet.Recording.load(out / clip.name / "result.jsonl")) == 5
                assert (out / clip.name / "coco.json").exists()
            names = {path.name for path in out.iterdir()}
            assert names == {"a.mp4", "b.mp4", "ledger.jsonl", "lock.txt", "lock-guard.txt"}, step
            with Ledger(out / "ledger.jsonl") as ledger:
                last = [ledger.last(clip.name) for clip in clips]
            assert [entry.state for entry in last if entry] == ["done", "done"], step
    assert set(found) == {0, 1, 2}
