"""Files that appear when they are whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_KEPT_OF_STEM = 40


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a temporary file, which replaces `path` at the end of the block, and is removed after an error.

    Args:
        path: The file that is to be written; its folder must exist. A device or a named pipe is never replaced: it is
            given itself.

    Raises:
        OSError: The folder is missing or cannot be written to.
    """
    final = Path(path)
    if final.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(final))
    if final.exists() and not final.is_file():
        yield final
        return
    # The suffix stays: FFmpeg chooses the container by it. The stem is cut: names have a longest length.
    handle, name = tempfile.mkstemp(
        prefix=f".{final.stem[:_KEPT_OF_STEM]}.", suffix=f".partial{final.suffix}", dir=final.parent
    )
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
