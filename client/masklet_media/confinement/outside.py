"""What a process may still reach that reads a camera or a network stream: the network, or one device, and no more.

It opens connections over IPv4 and IPv6, or its device, and reads the files that say how names are resolved and which
certificates are trusted. It can write no file, start no program, and open no other kind of socket. So it reaches none
of this machine's services that listen on Unix sockets.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from masklet_media.confinement.conditions import ERRNO, MAY_NOT, Condition

DESCRIPTORS = 64
"""Files and connections that such a process may have open at once."""

_READ_BY_RESOLVERS = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services",
    "/etc/protocols",
)  # fmt: skip
_CERTIFICATES = (
    "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
)  # fmt: skip
_RANDOM = "/dev/urandom"
_DRIVER = "/proc/driver/nvidia"
_NVIDIA = "nvidia*[!-]"  # nvidia0, nvidiactl, nvidia-uvm; not the folder nvidia-caps, which is for parts of a GPU


@dataclass(frozen=True)
class Outside:
    """What is left to a process that reads a camera or a stream.

    Attributes:
        network: Whether it may connect to the network.
        device: The path of a device that it may open; empty: none.
        gpu: Whether it may use the device files of NVIDIA's driver, which has been loaded before.
    """

    network: bool = False
    device: str = ""
    gpu: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether it may open nothing at all."""
        return not (self.network or self.device or self.gpu)

    @property
    def devices(self) -> list[str]:
        """Devices that it may open, to read, to write and to control."""
        ours = [self.device] if self.device else []
        return ours + ([str(path) for path in sorted(Path("/dev").glob(_NVIDIA))] if self.gpu else [])

    @property
    def readable(self) -> list[str]:
        """Files and folders that it may read, those that exist."""
        if self.gpu:
            return [path for path in (_DRIVER,) if Path(path).exists()]
        if not self.network:
            return []
        # What a resolver's file is a link to is made anew where the network changes.
        folder = str(Path("/etc/resolv.conf").resolve().parent)
        more = [] if folder == "/etc" else [folder]
        return [path for path in (*_READ_BY_RESOLVERS, *_CERTIFICATES, _RANDOM, *more) if Path(path).exists()]


# Numbers on x86-64 and on aarch64, as in `system_calls`.
_WAITING = {
    "poll": (7, -1),
    "select": (23, -1),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
}
_LOOKING = {
    "stat": (4, -1),
    "lstat": (6, -1),
    "uname": (63, 160),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "newfstatat": (262, 79),
    "statx": (332, 291),
}
_CONNECTING = {
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "shutdown": (48, 210),
    "bind": (49, 200),
    "listen": (50, 201),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "setsockopt": (54, 208),
    "getsockopt": (55, 209),
    "accept4": (288, 242),
    "recvmmsg": (299, 243),
    "sendmmsg": (307, 269),
}
_AF_INET, _AF_INET6 = 2, 10
_FIONREAD, _FIONBIO = 0x541B, 0x5421
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_V4L2 = (0xFF00, ord("V") << 8)  # the kind of an ioctl's number

_SOCKET = Condition((41, 198), 0, equals=(_AF_INET, _AF_INET6), otherwise=ERRNO | errno.EAFNOSUPPORT)
_IOCTL_OF_SOCKETS = Condition((16, 29), 1, equals=(_FIONREAD, _FIONBIO), otherwise=MAY_NOT)
_IOCTL_OF_CAMERAS = Condition((16, 29), 1, masked=_V4L2, otherwise=MAY_NOT)
_READ_ONLY = Condition((257, 56), 2, lacks_bits=_WRITING, otherwise=MAY_NOT)  # openat
_READ_AND_WRITE = Condition((257, 56), 2, lacks_bits=os.O_CREAT | os.O_TRUNC, otherwise=MAY_NOT)  # openat
# The resolver looks for modules when it needs them, and goes on without.
_NO_MODULES = Condition((9, 222), 2, lacks_bits=4, otherwise=MAY_NOT)  # mmap, PROT_EXEC


def allowed_calls(outside: Outside) -> dict[str, tuple[int, int]]:
    """The system calls that such a process needs beside those of a decoder."""
    if outside.network:
        return {**_WAITING, **_LOOKING, **_CONNECTING}
    if outside.gpu:
        # Its driver's numbers of ioctl are not published; Landlock says on which files it may be called.
        return {**_WAITING, **_LOOKING, "ioctl": (16, 29), "eventfd2": (290, 19)}
    return {**_WAITING, **_LOOKING} if outside.device else {}


def conditions(outside: Outside) -> list[Condition]:
    """Those that it needs with certain arguments; they take the place of a decoder's."""
    if outside.network:
        return [_SOCKET, _IOCTL_OF_SOCKETS, _READ_ONLY, _NO_MODULES]
    if outside.gpu:
        return [_READ_AND_WRITE, _NO_MODULES]
    return [_IOCTL_OF_CAMERAS, _READ_AND_WRITE, _NO_MODULES] if outside.device else []
