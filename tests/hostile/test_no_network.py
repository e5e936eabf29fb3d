"""A server whose model is here opens no connection to anywhere: the kernel would end it at the first one."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

import masklet
from masklet import Prompt
from tests.support.e2e import h264

CONNECT = {"x86_64": 42, "aarch64": 203}.get(platform.machine())
# A filter of seccomp: load the number of the system call; if it is connect, end the process, and else allow it.
PROGRAM = """
import ctypes, struct, sys
number, *sys.argv[1:] = sys.argv[1:]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, int(number)), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0
"""
SERVE = PROGRAM + "from masklet.cli import main\nmain()\n"
CONNECTS = PROGRAM + "import socket\nsocket.create_connection(('127.0.0.1', 1))\n"


@pytest.mark.skipif(CONNECT is None, reason="the number of the system call is not known for this processor")
def test_the_filter_ends_what_connects() -> None:
    done = subprocess.run([sys.executable, "-c", CONNECTS, str(CONNECT)], timeout=60, check=False)
    assert done.returncode < 0


@pytest.mark.slow
@pytest.mark.skipif(CONNECT is None, reason="the number of the system call is not known for this processor")
def test_a_server_opens_no_connection() -> None:
    command = [sys.executable, "-c", SERVE, str(CONNECT), "serve", "--address", "127.0.0.1:0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split("listening on ")[1].split()[0]
            with masklet.Client(address) as client:
                found = list(client.track(h264(), Prompt(point_coords=[(40.0, 40.0)])))
                client.segment(np.zeros((64, 64, 3), np.uint8), point_coords=[(9.0, 9.0)])
            assert len(found) > 10
            assert server.poll() is None
        finally:
            server.terminate()
        assert server.wait(60) == 0
