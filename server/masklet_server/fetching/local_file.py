"""Files on the server's own disks, from folders that the operator allows."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path
from urllib.parse import SplitResult, unquote

from masklet_server.fetching.rules import FetchRules, url_refused


def open_local_file(url: SplitResult, rules: FetchRules) -> FileIO:
    """Open the file of a ``file://`` URL.

    Raises:
        InvalidArgument: There is no such file in an allowed folder. The error is the same for files that exist
            elsewhere, so that a client cannot find out about them.
    """
    path = unquote(url.path)
    refused = url_refused("is no file in a folder that this server allows")
    if "\0" in path or not path.startswith("/"):
        raise refused
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        raise refused from None
    # Where the file really lies, whatever links led to it.
    real = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
    allowed = any(real.is_relative_to(folder.resolve()) for folder in rules.directories)
    if not allowed or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refused
    return os.fdopen(descriptor, "rb", buffering=0)
