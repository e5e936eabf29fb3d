"""The fork server: one for all decoding processes, started again when it has died, ended with the server."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from masklet.errors import Unavailable
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import FORK
from masklet_server.video.sandbox import fork_server
from masklet_server.video.sandbox.picture_process import PictureProcess
from masklet_server.video.sources.clip import ClipSource
from masklet_server.video.worker.fork_server_main import ForkServer
from tests.support.clips import decode_clip, make_clip, take_all
from tests.support.processes import HEAVY_IMPORTS, decoders


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def lives(pid: int) -> bool:
    """Whether the process runs. A zombie does not: it depends on the machine whether orphans are reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def dies(pid: int) -> None:
    """Wait for it."""
    for _ in range(1000):
        if not lives(pid):
            break
        await asyncio.sleep(0.01)
    assert not lives(pid)


def oom_score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


# A fork server that does not answer for so long hangs.
QUICK = VideoLimits(decoder_start_seconds=5.0)


async def test_a_frozen_fork_server_is_noticed_and_replaced() -> None:
    frozen = fork_server.start()
    os.kill(frozen, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        async with ClipSource(32, QUICK):
            pass
    assert time.monotonic() - began < 25
    await dies(frozen)
    outcome = await decode_clip(make_clip(frames=3))
    assert (outcome.error, len(outcome.frames)) == (None, 3)


async def test_a_frozen_fork_server_does_not_keep_an_ended_stream() -> None:
    frozen = fork_server.start()
    began = time.monotonic()
    async with ClipSource(32, QUICK) as source:
        pid = source.pid
        os.kill(frozen, signal.SIGSTOP)
    assert time.monotonic() - began < 25
    await dies(pid)


@pytest.mark.slow
def test_a_frozen_fork_server_is_noticed_by_pictures_too() -> None:
    os.kill(fork_server.start(), signal.SIGSTOP)
    with pytest.raises(Unavailable):
        PictureProcess(QUICK)
    process = PictureProcess(QUICK)
    assert process.is_usable
    process.close()


@pytest.mark.slow
async def test_very_many_requests_do_not_wait_for_a_frozen_fork_server() -> None:
    os.kill(fork_server.start(), signal.SIGSTOP)
    began = time.monotonic()

    async def one() -> bool:
        try:
            async with ClipSource(32, QUICK):
                return True
        except Unavailable:
            return False

    # More than its socket takes.
    await asyncio.gather(*(one() for _ in range(40)))
    assert time.monotonic() - began < 60
    assert await one()


async def test_the_kernel_ends_decoders_before_the_server() -> None:
    async with ClipSource(32, VideoLimits()) as source:
        for _ in range(1000):  # it says so before it reads its first message
            if oom_score_of(source.pid) == 1000:
                break
            await asyncio.sleep(0.01)
        assert oom_score_of(source.pid) == 1000
    assert oom_score_of(os.getpid()) < 1000


async def test_one_process_forks_all_and_is_started_again_when_it_has_died() -> None:
    servers = []
    for _ in range(2):
        async with ClipSource(32, VideoLimits()) as one, ClipSource(32, VideoLimits()) as other:
            assert parent_of(one.pid) == parent_of(other.pid)
            assert {one.pid, other.pid} <= decoders()
            servers.append(parent_of(one.pid))
    assert servers[0] == servers[1]
    os.kill(servers[0], signal.SIGKILL)
    await dies(servers[0])  # until then it could still be asked
    outcome = await decode_clip(make_clip(frames=3))
    assert (outcome.error, len(outcome.frames)) == (None, 3)
    async with ClipSource(32, VideoLimits()) as source:
        assert parent_of(source.pid) not in servers


async def test_forked_processes_die_with_the_fork_server() -> None:
    async with ClipSource(32, VideoLimits()) as source:
        await source.feed(make_clip())
        await source.info()
        pid = source.pid
        assert lives(pid)
        os.kill(parent_of(pid), signal.SIGKILL)
        await dies(pid)
        outcome = await take_all(source)
        assert isinstance(outcome.error, Unavailable)
        assert "your input is not the cause, send it again" in outcome.error.message


@pytest.mark.slow
async def test_processor_time_of_what_has_ended_is_known() -> None:
    before = fork_server.processor_seconds()
    assert (await decode_clip(make_clip(frames=200, size=(640, 480)))).error is None
    assert 0.01 < fork_server.processor_seconds() - before < 60


def test_lines_about_processes() -> None:
    assert fork_server.process_id(b"17\n") == 17
    with pytest.raises(Unavailable, match="has died, or the machine has too many processes; try again"):
        fork_server.process_id(b"")
    assert fork_server.exit_code(b"-9 1000000 0.25\n") == -9
    assert fork_server.exit_code(b"") is None


def test_a_handle_kills_its_own_process_and_no_later_one() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        handle = fork_server.ProcessHandle(process.pid)
        handle.kill()
        assert process.wait() == -signal.SIGKILL
        handle.kill()
        handle.close()
        handle.close()
        # Its descriptor's number has another use now.
        with Path(os.devnull).open():
            handle.kill()


def test_the_fork_server_imports_only_what_decoding_needs_and_ends_with_its_socket() -> None:
    program = """
import sys
from masklet_server.video.sandbox import fork_server
print(fork_server.start())
import os
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not lives(pid)
    program = f"import sys, masklet_server.video.worker.fork_server_main; print({HEAVY_IMPORTS} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_a_fork_that_fails_harms_no_other_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", refuse)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    with ours, theirs, selectors.DefaultSelector() as selector, os.fdopen(reading, "rb") as words:
        server = ForkServer(theirs)
        for sent in ([writing] * 4, [writing]):  # the second as if the server had no room for more files
            socket.send_fds(ours, [FORK], sent)
            assert server.answer(selector), "it goes on"
        os.close(writing)
        with pytest.raises(Unavailable):
            fork_server.process_id(words.readline())
