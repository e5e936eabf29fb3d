"""What the name of a live source tells before it is opened."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from masklet._urls import without_secrets

STDIN = "-"
_URL = re.compile(r"(?P<scheme>rtsps?|rtmpt?s?|rtp|srt|udp|tcp|https?|mmsh?)://", re.IGNORECASE)
# HLS gives some seconds of video at a time.
_SILENCE_SECONDS, _SILENCE_SECONDS_OF_HTTP = 10.0, 30.0

Kind = Literal["pipe", "device", "network"]


@dataclass(frozen=True)
class LiveSource:
    """The name of a live source.

    Attributes:
        name: "-" for stdin, a URL, the path of a device or of a named pipe.
        kind: What it names.
        scheme: Of a URL, in lower case; empty for others.
    """

    name: str
    kind: Kind
    scheme: str = ""

    @classmethod
    def of(cls, name: str) -> LiveSource | None:
        """What a name means; None where it is a file, a folder, or nothing that exists."""
        if name == STDIN:
            return cls(name, "pipe")
        if match := _URL.match(name):
            return cls(name, "network", match["scheme"].lower())
        try:
            mode = Path(name).stat().st_mode
        except OSError:
            return None
        if stat.S_ISCHR(mode):
            return cls(name, "device")
        return cls(name, "pipe") if stat.S_ISFIFO(mode) else None

    def __str__(self) -> str:
        return "stdin" if self.name == STDIN else without_secrets(self.name)

    @property
    def reconnects(self) -> bool:
        """Whether it is connected again by default: cameras, which have no end of their own."""
        return self.kind == "device" or self.scheme in ("rtsp", "rtsps")

    @property
    def silence_seconds(self) -> float:
        """Seconds without video that are not usual any more."""
        return _SILENCE_SECONDS_OF_HTTP if self.scheme.startswith("http") else _SILENCE_SECONDS


def is_live(name: str) -> bool:
    """Whether a name is stdin, a URL, a device or a named pipe, and not a file or folder."""
    return LiveSource.of(name) is not None
