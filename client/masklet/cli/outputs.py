"""The files that `masklet track` writes while frames arrive."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import typer

import masklet
from masklet._media.atomic_file import naming, refuse_same_file, replacing
from masklet._media.result_files import flat_header, frame_to_dict, header
from masklet._protocol.results import FrameResult, VideoInfo
from masklet._urls import without_secrets
from masklet.drawing import MAX_INDEX
from masklet.integrations import library, rerun
from masklet.recording import Recording

Sink = Callable[[FrameResult], None]


class MaskFolder:
    """Writes the masks of every frame as an indexed PNG, as DAVIS's annotations are: 00000.png and so on.

    A pixel of such a file belongs to one object, and there are 255 of them. Where masks overlap, or an id is larger,
    the frame's masks are also written one by one: objects/2/00000.png.

    Attributes:
        folder: The folder.
        separate_frames: Frames so far whose masks were also written one by one.

    Args:
        folder: Made if it does not exist.
        size: Returns the video's height and width; called when the first frame is here.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, folder: Path, size: Callable[[], tuple[int, int]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.separate_frames = 0
        self._size = size

    def __call__(self, frame: FrameResult) -> None:
        """Write the masks of a frame."""
        with naming(self.folder):
            self._write(frame.masks, f"{frame.frame_index:05d}.png")

    def _write(self, masks: Mapping[int, npt.NDArray[np.bool_]], name: str) -> None:
        indexed = {object_id: mask for object_id, mask in masks.items() if object_id <= MAX_INDEX}
        masklet.save_indexed_masks(self.folder / name, indexed, size=self._size())
        if len(indexed) == len(masks) and not _overlap(masks.values()):
            return
        self.separate_frames += 1
        for object_id, mask in masks.items():
            folder = self.folder / "objects" / str(object_id)
            folder.mkdir(parents=True, exist_ok=True)
            masklet.save_mask(folder / name, mask)


def _overlap(masks: Iterable[npt.NDArray[np.bool_]]) -> bool:
    seen: npt.NDArray[np.bool_] | None = None
    for mask in masks:
        if seen is not None and (seen & mask).any():
            return True
        seen = mask if seen is None else seen | mask
    return False


class Described(Protocol):
    """What a running call knows of its video; `masklet.Tracking` is one."""

    @property
    def video(self) -> VideoInfo | None:
        """What the video's header says."""

    @property
    def undecoded_pts_seconds(self) -> tuple[float, ...]:
        """Times of the frames that could not be decoded."""


@dataclass(frozen=True)
class NamedCall:
    """A running call, and what its user knows of the video.

    Attributes:
        call: Knows the video.
        names: A recording without results that has the objects' names.
        source: The video's path; empty if it has none.
    """

    call: Described
    names: Recording
    source: str

    @property
    def video(self) -> VideoInfo | None:
        """What the video's header says."""
        return self.call.video

    @property
    def undecoded_pts_seconds(self) -> tuple[float, ...]:
        """Times of the frames that could not be decoded."""
        return self.call.undecoded_pts_seconds


@contextlib.contextmanager
def json_file(path: Path, call: Described, gap_before: Callable[[FrameResult], float]) -> Iterator[Sink]:
    """Write all results as one JSON object, frame by frame; the file appears at the end.

    If the block ends with an error after some frames, the file has these frames, and says what the error was.

    Args:
        path: The file, replaced if it exists; "-" for stdout.
        call: Knows the video.
        gap_before: Seconds without video before a frame, of a live source.

    Raises:
        OSError: The file cannot be written.
    """
    failure: BaseException | None = None
    with _written(path) as file:
        begun = False

        def begin() -> None:
            nonlocal begun
            file.write(json.dumps(_head(call))[:-1] + ', "frames": [')
            begun = True

        def write(frame: FrameResult) -> None:
            if begun:
                file.write(",\n")
            else:
                begin()
            file.write(json.dumps(_frame(frame, gap_before(frame))))

        try:
            yield write
        except BaseException as error:
            if not begun:
                raise
            failure = error
        if not begun:
            begin()
        undecoded = json.dumps(call.undecoded_pts_seconds)
        file.write(f'],\n"undecoded_pts_seconds": {undecoded}, "error": {json.dumps(_told(failure))}}}\n')
    if failure is not None:
        raise failure


@contextlib.contextmanager
def _written(path: Path) -> Iterator[IO[str]]:
    if is_stdout(path):
        yield sys.stdout
        return
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield file


class JsonLines:
    """Writes results as JSON Lines: an object on each line, which is there as soon as it is written.

    The field "kind" says what a line is: "video" (the first one), "frame", "end" (the last one, with the error if there
    was one), or what happened to a live source: "silent", "broken", "waiting", "connected". Threads may share it.

    Args:
        file: What to write to.
        call: Knows the video.
        gap_before: Seconds without video before a frame, of a live source.
    """

    def __init__(self, file: IO[str], call: Described, gap_before: Callable[[FrameResult], float]) -> None:
        self._file = file
        self._call = call
        self._gap_before = gap_before
        self._lock = threading.Lock()
        self._frames = 0
        self._early: list[dict[str, Any]] | None = []  # what happened before the video is known

    def __call__(self, frame: FrameResult) -> None:
        """Write a frame; before the first one the video."""
        if not self._frames:
            self._begin()
        self._frames += 1
        self.note({"kind": "frame", **_frame(frame, self._gap_before(frame))})

    def _begin(self) -> None:
        head = flat_header(_head(self._call))
        with self._lock:
            self._write(head, *(self._early or ()))
            self._early = None

    def note(self, entry: dict[str, Any]) -> None:
        """Write any other line; after the video's, which must be the first one."""
        with self._lock:
            if self._early is None:
                self._write(entry)
            else:
                self._early.append(entry)

    def _write(self, *entries: dict[str, Any]) -> None:
        for entry in entries:
            self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def end(self, failure: BaseException | None) -> None:
        """Write the last line, with the error if there was one."""
        if self._early is not None:
            with self._lock:
                self._write(*self._early)
                self._early = None
        undecoded = list(self._call.undecoded_pts_seconds)
        self.note({"kind": "end", "frames": self._frames, "undecoded_pts_seconds": undecoded, "error": _told(failure)})


@contextlib.contextmanager
def json_lines(path: Path, call: Described, gap_before: Callable[[FrameResult], float]) -> Iterator[JsonLines]:
    """Write results as JSON Lines while they come.

    Args:
        path: The file, replaced if it exists; "-" for stdout.
        call: Knows the video.
        gap_before: Seconds without video before a frame, of a live source.

    Raises:
        OSError: The file cannot be written.
    """
    stdout = contextlib.nullcontext(sys.stdout)
    with naming(path), stdout if is_stdout(path) else path.open("w", encoding="utf-8") as file:
        lines = JsonLines(file, call, gap_before)
        try:
            yield lines
        except BrokenPipeError:
            raise
        except BaseException as error:
            lines.end(error)
            raise
        lines.end(None)


def _head(call: Described) -> dict[str, Any]:
    """What stands before the results."""
    if isinstance(call, NamedCall):
        return header(call.video, source=call.source, objects=call.names.objects.values())
    return header(call.video)


def is_stdout(path: Path | None) -> bool:
    """Whether a path on the command line means the standard output."""
    return path is not None and str(path) == "-"


def _told(failure: BaseException | None) -> str | None:
    return None if failure is None else without_secrets(str(failure) or type(failure).__name__)


def _frame(frame: FrameResult, gap_seconds: float = 0.0) -> dict[str, Any]:
    entry = frame_to_dict(frame)
    if frame.latency_seconds is None:
        return entry
    taken = datetime.datetime.fromtimestamp(frame.capture_time_nanoseconds / 1e9, datetime.timezone.utc)
    return {
        "frame_index": frame.frame_index,
        "pts_seconds": frame.pts_seconds,
        "time": taken.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "latency_seconds": round(frame.latency_seconds, 4),
        "skipped_frame_indices": list(frame.skipped_frame_indices),
        "gap_seconds": round(gap_seconds, 3),
        "revision": frame.revision,
        **entry,
    }


@dataclass(frozen=True)
class OutputFiles:
    """The files to write; None where one is not asked for."""

    overlay: Path | None
    masks: Path | None
    json: Path | None
    jsonl: Path | None
    rerun: Path | None = None

    @classmethod
    def of(
        cls,
        *,
        overlay: Path | None,
        masks: Path | None,
        json: Path | None,
        jsonl: Path | None,
        rerun: str | None = None,
    ) -> OutputFiles:
        """The files of the command line.

        Raises:
            BadParameter: A folder does not exist or is a file, or two of them are stdout.
        """
        if json is not None and json.suffix.lower() == ".jsonl" and jsonl is None:
            json, jsonl = None, json
        rrd = None if rerun is None else rerun_file(rerun)
        for option, file in (("--overlay", overlay), ("--json", json), ("--jsonl", jsonl), ("--rerun", rrd)):
            if file is not None and not file.absolute().parent.is_dir():
                raise typer.BadParameter(f"the folder {file.parent} does not exist", param_hint=option)
        if masks is not None and masks.exists() and not masks.is_dir():
            raise typer.BadParameter(f"{masks} is a file; give a folder", param_hint="--masks")
        if is_stdout(json) and is_stdout(jsonl):
            raise typer.BadParameter("only one of --json and --jsonl can be -", param_hint="--jsonl")
        return cls(overlay, masks, json, jsonl, rrd)

    def check_none_is(self, video: str, exports: Iterable[Path]) -> None:
        """Refuse to write over the video.

        Raises:
            BadParameter: A file to write is the video itself.
        """
        paths = [(f"--{name}", path) for name, path in vars(self).items() if path is not None]
        for option, path in [*paths, *(("--export", path) for path in exports)]:
            check_not_read(video, path, option)

    @property
    def use_stdout(self) -> bool:
        """Whether results go to the standard output."""
        return is_stdout(self.json) or is_stdout(self.jsonl)

    def written(self) -> dict[str, Path | None]:
        """The files that are there; None in place of the others."""
        return {
            name: path if path and (is_stdout(path) or path.exists()) else None for name, path in vars(self).items()
        }


def rerun_file(target: str) -> Path | None:
    """The file that --rerun names; None for a viewer.

    Raises:
        BadParameter: It is neither a viewer nor a file of Rerun's.
        Unavailable: rerun-sdk is not installed.
    """
    library("rerun", "rerun-sdk", "rerun")
    if target == rerun.VIEWER or target.startswith(rerun.ADDRESSES):
        return None
    if not target.lower().endswith(".rrd"):
        raise typer.BadParameter(
            f"is {target}, must be {rerun.VIEWER}, a file that ends in .rrd, or a viewer's address such as "
            "rerun+http://127.0.0.1:9876/proxy",
            param_hint="--rerun",
        )
    return Path(target)


@contextlib.contextmanager
def rerun_sink(target: str, names: Recording, source: str) -> Iterator[Sink]:
    """Show results in Rerun's viewer as they come, or write them into its file.

    Args:
        target: The value of --rerun.
        names: The objects' names.
        source: The path of the video; empty for live video.

    Raises:
        Unavailable: rerun-sdk is not installed, or its viewer cannot be started.
        InvalidArgument: An object's id is above 65535.
        OSError: A file cannot be read or written.
    """
    known = Recording(source=source)
    for entry in names.objects.values():
        known.name(entry.object_id, entry.name, entry.class_name)
    with rerun.opened(target) as stream:
        yield rerun.FrameLogger(known, stream).add


def check_not_read(source: str | Path, path: Path, option: str) -> None:
    """Refuse to write a file over the one that is read.

    Args:
        source: The video or the picture.
        path: The file that is to be written.
        option: The option that names it.

    Raises:
        BadParameter: Both are the same file.
    """
    try:
        refuse_same_file(source, path, option)
    except masklet.InvalidArgument as error:
        raise typer.BadParameter(error.violations[0].description, param_hint=option) from None
