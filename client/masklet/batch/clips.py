"""The clips of a batch: how they are found, what they are called, and which shard each belongs to."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from masklet._media.uploads import PICTURE_SUFFIXES
from masklet._sync.planned import DIRECTIONS, Mark, Plan
from masklet.errors import InvalidArgument
from masklet.importing.prompts import PromptFile, read_prompts
from masklet.prompts import Prompt
from masklet.recording import RecordedObject, unprintable

CLIP_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".mxf", ".y4m", ".gif"}
)
"""What the name of a clip in a folder ends in; a clip that is named itself may be called anything."""
BESIDE = (".prompts.json", ".prompts.yaml", ".prompts.yml")
"""What follows the name of a clip, without its suffix, in the name of the file with its prompts."""
ABOUT = "clip.json"
"""The file in a folder of results that says what they are of. Such a folder is not searched for clips."""
_LONGEST_PART = 200  # bytes of a folder's name
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class Clip:
    """One video, and what to track in it.

    Attributes:
        name: What it is called in the ledger and in the folder of results; may have slashes. Each clip of a batch has
            its own name, and keeps it between runs.
        video: A video file, or a folder of pictures.
        prompts: What to track: prompts, or a file of them. None: the file beside the clip, as in
            ``clip.prompts.json`` for ``clip.mp4``.
        start: The first frame of the results, such as "120", or a time, such as "4.5s"; None: the video's first one.
        end: The last frame of the results; None: the video's last one.
        direction: Where to track from the prompts on: "forward", "backward" or "both".
        names: What objects are called, by id, beside what the file of prompts says.

    Raises:
        InvalidArgument: The name cannot be that of a folder, the video's path cannot be one, or the range or the
            direction is wrong.
    """

    name: str
    video: Path
    prompts: Path | Sequence[Prompt] | PromptFile | None = None
    start: str | None = None
    end: str | None = None
    direction: str = "forward"
    names: Mapping[int, RecordedObject] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unprintable(self.name) or "\\" in self.name or any(map(_is_no_folder, self.name.split("/"))):
            raise InvalidArgument.of(
                "name",
                f"is {self.name!r}, must be a relative path without control characters and bytes that are not UTF-8, "
                f"whose parts do not begin with a dot and have at most {_LONGEST_PART} bytes; rename the file, or give "
                "the clip another name in a manifest",
            )
        for field_name, path in (("clip", self.video), ("prompts", self.prompts)):
            if isinstance(path, Path) and not _may_exist(path):
                raise InvalidArgument.of(field_name, f"is {str(path)!r}, which cannot be the path of a file")
        plan_of(self)

    def read_prompts(self) -> PromptFile:
        """The prompts, and what their objects are called. A detector may have found nothing: then there are none.

        Raises:
            InvalidArgument: Nothing says what to track, the file is wrong, or an object with a name has no prompt.
            OSError: The file cannot be read.
        """
        found = self._prompts()
        if not found.prompts and not isinstance(self.prompts, PromptFile):
            raise InvalidArgument.of("prompts", "are empty, so that nothing can be tracked")
        objects = {prompt.object_id: RecordedObject(prompt.object_id) for prompt in found.prompts} | found.objects
        for object_id, named in self.names.items():
            if object_id not in objects:
                known = ", ".join(map(str, sorted(objects)))
                raise InvalidArgument.of("names", f"object {object_id} has no prompt; the objects are {known}")
            earlier = objects[object_id]
            objects[object_id] = replace(
                earlier, name=named.name or earlier.name, class_name=named.class_name or earlier.class_name
            )
        return PromptFile(found.prompts, objects)

    def _prompts(self) -> PromptFile:
        if isinstance(self.prompts, PromptFile):
            return self.prompts
        if isinstance(self.prompts, Path):
            return read_prompts(self.prompts)
        if self.prompts is not None:
            return PromptFile(list(self.prompts))
        stem = self.video.name if self.video.is_dir() else self.video.stem
        for end in BESIDE:
            beside = self.video.with_name(stem + end)
            if beside.exists():
                return read_prompts(beside)
        raise InvalidArgument.of(
            "prompts", f"there are none: {self.video.with_name(stem + BESIDE[0])} does not exist; write it, or give "
            "--prompts, --detections or a manifest"
        )  # fmt: skip


def _is_no_folder(part: str) -> bool:
    """Whether a part of a name cannot be the name of a folder of results."""
    return not part or part.startswith(".") or len(part.encode()) > _LONGEST_PART


def _may_exist(path: Path) -> bool:
    """Whether the system has such paths at all; it refuses a null byte, and halves of pairs."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def plan_of(clip: Clip) -> Plan:
    """A clip's range and direction.

    Raises:
        InvalidArgument: They are wrong.
    """
    return Plan(
        start=None if clip.start is None else Mark(clip.start, "start"),
        end=None if clip.end is None else Mark(clip.end, "end"),
        direction=clip.direction,
    )


@dataclass(frozen=True)
class Shard:
    """One of several parts of a batch, which are worked on apart.

    Attributes:
        number: Which one, from 1.
        count: How many there are.

    Raises:
        InvalidArgument: There is no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InvalidArgument.of("shard", f"is {self}, must be I/N with I from 1 to N, such as 2/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, word: str) -> Shard:
        """Read ``I/N``.

        Raises:
            InvalidArgument: It is something else.
        """
        number, slash, count = word.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise InvalidArgument.of("shard", f"is {word!r}, must be I/N, such as 2/8")
        return cls(int(number), int(count))

    def holds(self, name: str) -> bool:
        """Whether a clip of this name belongs to the part; only the name counts, so that others may come and go."""
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % self.count == self.number - 1


def find_clips(inputs: Iterable[str | os.PathLike[str]]) -> list[Clip]:
    """The clips of files, folders and patterns, in order of their names.

    A file is called by its own name. What lies in a folder is called by its path within it. A folder with pictures and
    no video is one clip. What matches a pattern is called by its path from the first folder that has a wildcard.

    Args:
        inputs: Paths of video files or folders, or patterns such as ``videos/**/*.mp4``.

    Raises:
        InvalidArgument: A pattern matches nothing, a folder holds no video, a path cannot be a clip's name, or two
            clips have one name.
        FileNotFoundError: There is no such file.
    """
    found = [clip for word in inputs for clip in _of_input(os.fspath(word))]
    check_names(found)
    return sorted(found, key=lambda clip: clip.name)


def check_names(clips: Iterable[Clip]) -> None:
    """Refuse clips that would write into one folder.

    Raises:
        InvalidArgument: Two clips have one name, or one's name is a folder of another's.
    """
    by_name: dict[str, Clip] = {}
    for clip in clips:
        if (other := by_name.setdefault(clip.name, clip)) is not clip:
            raise InvalidArgument.of(
                "inputs",
                f"{other.video} and {clip.video} are both called {clip.name}; give the folder above both, or a "
                "manifest with a name for each",
            )
    for name in by_name:
        for parent in PurePosixPath(name).parents:
            if str(parent) in by_name:
                raise InvalidArgument.of(
                    "inputs",
                    f"the results of {name} would lie among those of {parent}; give a manifest with other names",
                )


def _of_input(word: str) -> Iterator[Clip]:
    path = Path(word)
    if not path.exists() and _WILDCARDS & set(word):
        yield from _of_pattern(word)
    elif path.is_dir():
        yield from _of_folder(path)
    elif not stat.S_ISREG(path.stat().st_mode):
        raise InvalidArgument.of("inputs", f"{path} is neither a file nor a folder; give a video file")
    else:
        yield _found(path.name, path)


def _found(name: str, path: Path) -> Clip:
    """A clip that was found on the disk.

    Raises:
        InvalidArgument: Its path cannot be a clip's name.
    """
    try:
        return Clip(name, path)
    except InvalidArgument as error:
        raise InvalidArgument.of("inputs", f"the name of {str(path)!r} {error.violations[0].description}") from None


def _of_pattern(pattern: str) -> Iterator[Clip]:
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if _WILDCARDS & set(part))
    root = Path(*parts[:fixed]) if fixed else Path()
    rest = [*parts[fixed:], *(["*"] if parts[-1] == "**" else [])]
    known = [
        path
        for path in sorted(root.glob("/".join(rest)))  # links to folders are not followed by **, so it comes to an end
        if (_is_video(path) or _is_pictures(path)) and not _is_hidden(path, root) and not _is_result(path, root)
    ]
    if not known:
        raise InvalidArgument.of("inputs", f"no video matches {pattern}")
    for path in known:
        yield _found(path.relative_to(root).as_posix(), path)


def _of_folder(folder: Path) -> Iterator[Clip]:
    if _is_pictures(folder):
        yield _found(folder.resolve().name, folder)
        return
    found = sorted(_within(folder, frozenset()))
    if not found:
        raise InvalidArgument.of("inputs", f"the folder {folder} holds neither videos nor folders of pictures")
    for path in found:
        yield _found(path.relative_to(folder).as_posix(), path)


def _within(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """The clips in a folder and the folders in it. A link to a folder above it is not followed: it would never end."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or (path / ABOUT).exists():
            continue
        if path.is_dir():
            if _is_pictures(path):
                yield path
            else:
                yield from _within(path, above | {real})
        elif _is_video(path):
            yield path


def _is_video(path: Path) -> bool:
    """Whether a path is called like a video. Pipes and devices are none: who reads them may wait for ever."""
    if path.suffix.lower() not in CLIP_SUFFIXES:
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # a link to nothing: the clip fails, and is told by name


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _is_result(path: Path, root: Path) -> bool:
    """Whether a path is that of a batch's results, or within them."""
    folders = [path, *(parent for parent in path.parents if parent.is_relative_to(root))]
    return any((folder / ABOUT).exists() for folder in folders)


def _is_pictures(path: Path) -> bool:
    if not path.is_dir():
        return False
    kinds = Counter[str]()
    for inside in path.iterdir():
        suffix = inside.suffix.lower()
        if (inside.is_dir() and not inside.name.startswith(".")) or (
            suffix in CLIP_SUFFIXES and suffix not in PICTURE_SUFFIXES
        ):
            kinds["other"] += 1
        elif suffix in PICTURE_SUFFIXES:
            kinds["picture"] += 1
    return bool(kinds["picture"]) and not kinds["other"]


__all__ = ["ABOUT", "BESIDE", "CLIP_SUFFIXES", "DIRECTIONS", "Clip", "Shard", "check_names", "find_clips", "plan_of"]
