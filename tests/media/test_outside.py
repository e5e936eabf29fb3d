"""What a process that reads a camera or a stream can still do once it is confined: the process tries each thing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from masklet_media import confinement
from masklet_server.video.sandbox import layers

KILLED = -signal.SIGSYS
REFUSED = 7  # the exit status where the act raises OSError
PROGRAM = """
import ctypes, encodings.idna, fcntl, mmap, os, resource, signal, socket, sys, threading, time
from masklet_media.confinement import Outside, confine
libc = ctypes.CDLL(None, use_errno=True)
other, path, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
missing = confine(memory_bytes=2**31, cpu_seconds=5, outside=Outside({outside}))
try:
    {act}
except OSError:
    os._exit(7)
os._exit(0)
"""
NETWORK = "network=True"
DEVICE = "device='/dev/null'"
GPU = "gpu=True"

# What neither of them can do, and how it ends.
ACTS = {
    "kill another process": ("os.kill(other, signal.SIGKILL)", {KILLED}),
    "limit another process": ("resource.prlimit(other, resource.RLIMIT_NOFILE, (1, 1))", {REFUSED}),
    "read another process's memory": ("libc.process_vm_readv(other, None, 0, None, 0, 0)", {KILLED}),
    "trace another process": ("libc.ptrace(16, other, 0, 0)", {KILLED}),
    "read a file": ("open(path)", {REFUSED}),
    "write a file": ("os.open(path, os.O_WRONLY)", {REFUSED}),
    "make a file": ("os.open(path + '2', os.O_CREAT | os.O_RDWR)", {REFUSED}),
    "list a folder": ("os.listdir(os.path.dirname(path))", {REFUSED, KILLED}),
    "delete a file": ("os.unlink(path)", {KILLED}),
    "rename a file": ("os.rename(path, path + '3')", {KILLED}),
    "read passwords": ("open('/etc/passwd')", {REFUSED}),
    "fork": ("os.fork()", {KILLED}),
    "start a program": ("os.execv('/bin/sh', ['sh', '-c', 'exit 0'])", {KILLED}),
    "reach a service on a Unix socket": ("socket.socket(socket.AF_UNIX)", {REFUSED, KILLED}),
    "ask the kernel by a socket": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", {REFUSED, KILLED}),
    "make a pair of sockets": ("socket.socketpair()", {KILLED}),
    "make memory that can be executed": ("mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)", {REFUSED}),
    "make its memory executable": ("libc.mprotect(0x10000, 4096, 7)", {KILLED}),
    "type into a terminal": ("fcntl.ioctl(0, 0x5412, b'x')", {REFUSED}),  # TIOCSTI
    "make namespaces": ("libc.unshare(0x10000000)", {KILLED}),
    "mount": ("libc.mount(b'x', b'/', b'tmpfs', 0, None)", {KILLED}),
    "load a kernel's program": ("libc.syscall(321, 0, 0, 0)", {KILLED}),
}
# Calls that are not on the list are refused here, because the driver's are not known.
OF_GPU = {what: (act, {REFUSED, KILLED}) for what, (act, _) in ACTS.items() if "libc" not in act}
OF_GPU |= {
    "trace another process": ("assert libc.ptrace(16, other, 0, 0) == 0 or os._exit(7)", {REFUSED}),
    "make namespaces": ("libc.unshare(0x10000000) == 0 or os._exit(7)", {REFUSED}),
    "mount": ("libc.mount(b'x', b'/', b'tmpfs', 0, None) == 0 or os._exit(7)", {REFUSED}),
    "open another device": ("os.open('/dev/zero', os.O_RDWR)", {REFUSED}),
    "connect to the network": ("socket.create_connection(('127.0.0.1', port))", {REFUSED, KILLED}),
    "write to more memory": ("bytearray(2**31)", {1}),  # MemoryError
}
OF_NETWORK = {
    "open a device": ("os.open('/dev/null', os.O_RDWR)", {REFUSED}),
    "open many connections": ("[socket.socket() for _ in range(100)]", {REFUSED}),
}
OF_DEVICE = {
    "connect to the network": ("socket.create_connection(('127.0.0.1', port))", {KILLED}),
    "open another device": ("os.open('/dev/zero', os.O_RDWR)", {REFUSED}),
    "read how names are resolved": ("open('/etc/hosts')", {REFUSED}),
}


def run(outside: str, act: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(act=act, outside=outside), str(os.getpid()), *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("outside", "what", "act", "endings"),
    [
        *((NETWORK, what, *act) for what, act in {**ACTS, **OF_NETWORK}.items()),
        *((DEVICE, what, *act) for what, act in {**ACTS, **OF_DEVICE}.items()),
        *((GPU, what, *act) for what, act in OF_GPU.items()),
    ],
    ids=lambda one: one if isinstance(one, str) and len(one) < 40 else "",
)
def test_what_a_camera_s_process_can_not(outside: str, what: str, act: str, endings: set[int], tmp_path: Path) -> None:
    if {confinement.SECCOMP, confinement.LANDLOCK} & set(layers.missing_layers()):
        pytest.skip("this kernel has no seccomp filters, or no Landlock")
    file = tmp_path / "file"
    file.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = run(outside, act, file, server.getsockname()[1])
    assert done.returncode in endings, f"{what}: {done.stderr}"
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "secret")]


@pytest.mark.parametrize(
    ("outside", "act"),
    [
        (NETWORK, "socket.create_connection(('127.0.0.1', port)).sendall(b'x')"),
        (NETWORK, "socket.create_connection(('localhost', port)).sendall(b'x')"),
        (NETWORK, "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind(('::1', 0))"),
        (NETWORK, "open('/etc/hosts').read(1)"),
        (NETWORK, "open('/dev/urandom', 'rb').read(1)"),
        (NETWORK, "threading.Thread(target=bytearray, args=(10**7,)).start()"),
        (NETWORK, "time.sleep(0.01)"),
        (NETWORK, "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 64)"),
        (GPU, "mmap.mmap(-1, 2**33, prot=mmap.PROT_READ)"),
        (GPU, "threading.Thread(target=time.sleep, args=(0.01,)).start()"),
        (DEVICE, "os.write(os.open('/dev/null', os.O_RDWR), b'x')"),
        (DEVICE, "mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED)"),
        (DEVICE, "threading.Thread(target=time.sleep, args=(0.01,)).start()"),
    ],
)
def test_what_a_camera_s_process_can(outside: str, act: str, tmp_path: Path) -> None:
    """Names are resolved after the confinement, and connections made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = run(outside, act, tmp_path / "none", server.getsockname()[1])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_camera_is_asked_by_the_calls_of_its_kind_alone() -> None:
    """No camera is here to answer: that the question reached the device's driver is told by its own error."""
    program = """import errno; found = None
    try: fcntl.ioctl(os.open('/dev/null', os.O_RDWR), {number}, bytes(104))
    except OSError as error: found = error.errno
    assert found == errno.{name}, found"""
    for number, name in ((0x80685600, "ENOTTY"), (0x5401, "EPERM")):  # VIDIOC_QUERYCAP, TCGETS
        done = run(DEVICE, program.format(number=number, name=name), "none", 0)
        assert (done.returncode, done.stderr) == (0, "")
