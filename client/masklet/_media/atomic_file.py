"""Files that appear when they are whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from masklet.errors import InvalidArgument

_KEPT_OF_STEM = 40
_OF_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a temporary file, which replaces `path` at the end of the block, and is removed after an error.

    Args:
        path: The file that is to be written; its folder must exist. A device or a named pipe is never replaced: it is
            given itself.

    Raises:
        OSError: The folder is missing or cannot be written to, or the disk is full. It names `path`.
    """
    final = Path(path)
    if final.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(final))
    if final.exists() and not final.is_file():
        yield final
        return
    # The suffix stays: FFmpeg chooses the container by it. The stem is cut: names have a longest length.
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{final.stem[:_KEPT_OF_STEM]}.", suffix=f".partial{final.suffix}", dir=final.parent
        )
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(final)) from error  # nobody knows the other name
    os.close(handle)
    partial = Path(name)
    try:
        with naming(final, instead_of=partial):
            yield partial
            partial.chmod(0o666 & ~_umask())
            partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Have errors of the block that say that nothing can be written name a path, which Python leaves out.

    Args:
        path: What the caller writes.
        instead_of: A temporary file, which errors may name and the caller does not know.

    Raises:
        OSError: As raised in the block, with the path.
    """
    try:
        yield
    except OSError as error:
        named = instead_of is not None and error.filename in (str(instead_of), instead_of)
        if not named and (error.filename is not None or error.errno not in _OF_WRITING):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def refuse_same_file(source: object, path: str | os.PathLike[str], field: str) -> None:
    """Refuse to write a file over the one that it is made of.

    Args:
        source: What the file is made of; only paths of files can be the same.
        path: What is to be written.
        field: What the argument for `path` is called.

    Raises:
        InvalidArgument: Both are the same file, perhaps by a link.
    """
    if not isinstance(source, (str, os.PathLike)):
        return
    one, other = Path(source), Path(path)
    if one.exists() and other.exists() and one.samefile(other):
        raise InvalidArgument.of(field, f"{path} is the file that is read; give another path")


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
