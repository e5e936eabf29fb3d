"""What a clip's results depend on: the video as it is on disk, the prompts, the range, and the options."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from masklet._media.uploads import picture_files
from masklet.batch.clips import Clip
from masklet.errors import InvalidArgument
from masklet.importing.prompts import PromptFile
from masklet.prompts import Prompt

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """What tells a video from another one under the same path.

    Attributes:
        size: Bytes; of a folder, those of all its pictures.
        mtime_ns: When it was changed, nanoseconds since 1970; of a folder, the latest of its pictures.
        sha256: Digest of its bytes; of a folder, of the names and bytes of its pictures.
    """

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, video: Path) -> Fingerprint:
        """The fingerprint of a video, which is read as a whole.

        Raises:
            InvalidArgument: A folder holds no pictures, or it is neither a file nor a folder.
            OSError: It cannot be read.
        """
        size, changed = _stat(video)
        digest = hashlib.sha256()
        for file in _files(video):
            if video.is_dir():
                digest.update(file.name.encode() + b"\0" + file.stat().st_size.to_bytes(8, "big"))
            with file.open("rb") as opened:
                while chunk := opened.read(_CHUNK):
                    digest.update(chunk)
        return cls(size, changed, digest.hexdigest())

    def is_of(self, video: Path) -> bool:
        """Whether the video is still the same. It is read only where its size or its time has changed.

        Raises:
            InvalidArgument: A folder holds no pictures, or it is neither a file nor a folder.
            OSError: It cannot be read.
        """
        size, changed = _stat(video)
        if (size, changed) == (self.size, self.mtime_ns):
            return True
        return size == self.size and Fingerprint.of(video).sha256 == self.sha256

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Fingerprint:
        """The fingerprint that `to_dict` made this of."""
        return cls(int(entry["size"]), int(entry["mtime_ns"]), str(entry["sha256"]))


def _files(video: Path) -> list[Path]:
    return picture_files(video) if video.is_dir() else [video]


def _stat(video: Path) -> tuple[int, int]:
    found = [file.stat() for file in _files(video)]
    if not all(stat.S_ISREG(one.st_mode) for one in found):  # who reads a pipe may wait for ever
        raise InvalidArgument.of("clip", f"{video} is neither a file nor a folder of files; give a video file")
    return sum(one.st_size for one in found), max(one.st_mtime_ns for one in found)


def work_digest(clip: Clip, prompts: PromptFile, options: Mapping[str, Any]) -> str:
    """A short word for everything that results depend on beside the video itself.

    Args:
        clip: Gives range and direction.
        prompts: What is tracked, and how objects are called.
        options: Those that change masks; ready for JSON.
    """
    digest = hashlib.sha256()
    for part in _parts(clip, prompts, options):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(clip: Clip, prompts: PromptFile, options: Mapping[str, Any]) -> Iterator[bytes]:
    yield json.dumps([clip.start, clip.end, clip.direction, options], sort_keys=True).encode()
    for prompt in prompts.prompts:
        yield _prompt(prompt)
    for object_id, entry in sorted(prompts.objects.items()):
        yield json.dumps([object_id, entry.name, entry.class_name]).encode()


def _prompt(prompt: Prompt) -> bytes:
    plain = [prompt.object_id, prompt.frame_index, prompt.pts_seconds, prompt.keep_old_points]
    arrays = [
        None if array is None else [list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
        for array in (prompt.point_coords, prompt.point_labels, prompt.box, prompt.mask)
    ]
    return json.dumps([*plain, *arrays]).encode()
