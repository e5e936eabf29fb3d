"""What a decoding process can still do once it is confined: a process is confined, and tries each thing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from masklet_media import confinement
from masklet_server.video.sandbox import layers

KILLED = -signal.SIGSYS
PROGRAM = """
import ctypes, mmap, os, platform, resource, signal, socket, sys, threading
from masklet_server.video.worker import main
from masklet_media.confinement import confine
libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
other, path = int(sys.argv[1]), sys.argv[2]
missing = confine(memory_bytes=2**31, cpu_seconds=5)
try:
    {act}
except OSError:
    os._exit(7)
os._exit(0)
"""
REFUSED = 7  # the exit status where the act raises OSError

# Each act, and the ways in which it may end.
ACTS = {
    "kill the server": ("os.kill(other, signal.SIGKILL)", {KILLED}),
    "signal the server's thread": ("sys.exit(libc.tgkill(other, other, 9))", {KILLED}),
    "renice the server": ("os.setpriority(os.PRIO_PROCESS, other, 19)", {KILLED}),
    "limit the server": ("resource.prlimit(other, resource.RLIMIT_NOFILE, (1, 1))", {REFUSED}),
    "raise its own limits": ("resource.prlimit(0, resource.RLIMIT_NOFILE, (64, 64))", {REFUSED}),
    "read the server's memory": ("libc.process_vm_readv(other, None, 0, None, 0, 0)", {KILLED}),
    "trace the server": ("libc.ptrace(16, other, 0, 0)", {KILLED}),
    "take the server's descriptors": ("libc.syscall(438, other, 0, 0)", {KILLED}),
    "open a file": ("open(path)", {REFUSED}),
    "open a directory": ("os.listdir('/')", {REFUSED}),
    "make a file": ("os.open(path + '2', os.O_CREAT | os.O_RDWR)", {REFUSED}),
    "delete a file": ("os.unlink(path)", {KILLED}),
    "rename a file": ("os.rename(path, path + '3')", {KILLED}),
    "change a file's rights": ("os.chmod(path, 0o777)", {KILLED}),
    "fork": ("os.fork()", {KILLED}),
    "start a program": ("os.execv('/bin/sh', ['sh', '-c', 'exit 0'])", {KILLED}),
    "open a socket": ("socket.socket()", {KILLED}),
    "make a pair of sockets": ("socket.socketpair()", {KILLED}),
    "make memory of its own that others may share": ("os.memfd_create('x')", {KILLED}),
    "make shared memory of System V": ("libc.shmget(0, 4096, 0o1600)", {KILLED}),
    "make memory that can be executed": ("mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)", {KILLED}),
    "make namespaces": ("libc.unshare(0x10000000)", {KILLED}),
    "mount": ("libc.mount(b'x', b'/', b'tmpfs', 0, None)", {KILLED}),
    "load a kernel's program": ("libc.syscall(321, 0, 0, 0)", {KILLED}),
    "make a ring of its own for input and output": ("libc.syscall(425, 1, 0)", {KILLED}),
}


def run(act: str, path: Path) -> int:
    command = [sys.executable, "-c", PROGRAM.format(act=act), str(os.getpid()), str(path)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.parametrize("what", ACTS)
def test_a_decoder_can_not(what: str, tmp_path: Path) -> None:
    if confinement.SECCOMP in layers.missing_layers():
        pytest.skip("this kernel has no seccomp filters")
    file = tmp_path / "file"
    file.write_text("secret")
    act, endings = ACTS[what]
    assert run(act, file) in endings
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "secret")]


@pytest.mark.parametrize(
    "act",
    [
        "assert os.read(0, 1) == b''",
        "threading.Thread(target=bytearray, args=(10**7,)).start()",
        "bytearray(300 * 2**20)",
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (0, 0)",
        "assert missing or 0 < resource.getrlimit(resource.RLIMIT_NPROC)[0] <= 32 + 4 * os.cpu_count()",
        "libc.prctl(15, b'decoder')",
        "assert libc.syscall(96 if X86 else 169, None, None) == 0",  # gettimeofday
        "assert libc.syscall(309 if X86 else 168, None, None, None) == 0",  # getcpu
        "assert not X86 or libc.syscall(201, None) > 0",  # time
    ],
)
def test_a_decoder_can(act: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM.format(act=act), str(os.getpid()), str(tmp_path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_abort_ends_it_as_such(tmp_path: Path) -> None:
    assert run("os.abort()", tmp_path) == -signal.SIGABRT
