"""All results of one video in one object: it can be saved, loaded, looked at and exported.

    with masklet.Client() as client:
        recording = client.track("clip.mp4", masklet.Prompt(point_coords=[[360, 480]])).recording()
    recording.name(1, "rabbit")
    recording.save("clip.jsonl")
    masklet.export.write(recording, "coco", "clip-coco.json")

A recording holds run-lengths alone. A mask is made when somebody asks for it, and is not kept. So the results of an
hour of video take about as much memory as they take on disk.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from masklet import rle
from masklet._media import result_files
from masklet._protocol.results import Box, FrameResult, ObjectEvent, ObjectResult, VideoInfo
from masklet.errors import InvalidArgument, NotFound
from masklet.notebook import Row, recording_html
from masklet.prompts import Prompt

__all__ = ["RecordedObject", "Recording"]

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, halves of pairs, and breaks of lines


def unprintable(text: str) -> list[str]:
    """The characters of a text that files cannot hold: control characters, breaks of lines, halves of pairs."""
    return [character for character in text if unicodedata.category(character) in _UNPRINTABLE]


@dataclass(frozen=True)
class RecordedObject:
    """An object of a recording.

    Attributes:
        object_id: As in the object's prompts.
        name: What people call it; empty where nobody named it.
        class_name: What kind of thing it is, such as "rabbit"; empty where nobody said so.
    """

    object_id: int
    name: str = ""
    class_name: str = ""

    @property
    def label(self) -> str:
        """The name, or "object 1" where there is none."""
        return self.name or f"object {self.object_id}"

    @property
    def category(self) -> str:
        """What formats with classes put the object into: its class, else its name, else "object"."""
        return self.class_name or self.name or "object"


@dataclass(frozen=True, slots=True)
class _Kept:
    """One object on one frame, as a recording holds it."""

    size: tuple[int, int]
    counts: str
    box: Box | None
    area: int
    predicted_iou: float
    object_score: float
    visible: bool
    event: ObjectEvent | None
    revision: int

    @classmethod
    def of(cls, result: ObjectResult, revision: int) -> _Kept:
        height, width = result.rle["size"]
        return cls(
            (height, width), result.rle["counts"], result.box, result.area, result.predicted_iou, result.object_score,
            result.visible, result.event, revision,
        )  # fmt: skip

    def result(self, object_id: int) -> ObjectResult:
        return ObjectResult(
            object_id=object_id,
            rle=rle.Rle(size=list(self.size), counts=self.counts),
            box=self.box,
            area=self.area,
            predicted_iou=self.predicted_iou,
            object_score=self.object_score,
            visible=self.visible,
            event=self.event,
        )


@dataclass(slots=True)
class _KeptFrame:
    """One frame, as a recording holds it."""

    pts_seconds: float
    objects: dict[int, _Kept]


class Recording:
    """All results of one video. Iterating over it gives a `FrameResult` for each frame, in order of the frames.

    A frame that was corrected comes once, with its valid results. Every `FrameResult` that comes out is new, so the
    masks that are decoded from it are freed with it.

    Args:
        frames: Results, as they come from `Client.track` and other calls; may be empty.
        video: What the video's header says, if that is known.
        source: The video's path, if it has one. Exports that need pictures and sound read it.

    Attributes:
        video: What the video's header says; None if that is not known.
        source: The video's path; empty if it has none.
    """

    def __init__(
        self, frames: Iterable[FrameResult] = (), *, video: VideoInfo | None = None, source: str | os.PathLike[str] = ""
    ) -> None:
        self.video = video
        self.source = os.fspath(source)
        self._objects: dict[int, RecordedObject] = {}
        self._frames: dict[int, _KeptFrame] = {}
        self._last = -1
        for frame in frames:
            self.add(frame)

    def add(self, frame: FrameResult) -> None:
        """Take a result. A correction replaces what is held of its objects on its frame.

        Args:
            frame: As it comes from `Client.track`, `Client.live` or `Annotation.propagate`.
        """
        kept = self._frames.get(frame.frame_index)
        if kept is None:
            kept = self._frames[frame.frame_index] = _KeptFrame(frame.pts_seconds, {})
            if frame.frame_index < self._last:
                self._frames = dict(sorted(self._frames.items()))
            self._last = max(self._last, frame.frame_index)
        for object_id, result in frame.objects.items():
            if object_id not in self._objects:
                self._objects[object_id] = RecordedObject(object_id)
            earlier = kept.objects.get(object_id)
            if earlier is None or earlier.revision <= frame.revision:
                kept.objects[object_id] = _Kept.of(result, frame.revision)

    def name(self, object_id: int, name: str | None = None, class_name: str | None = None) -> None:
        """Give an object a name or a class, or both.

        Args:
            object_id: As in the object's prompts. It need not have been found on any frame.
            name: What people call it; None: as before.
            class_name: What kind of thing it is; None: as before.

        Raises:
            InvalidArgument: A name has line breaks or other control characters, which many formats cannot hold.
        """
        for word, value in (("name", name), ("class_name", class_name)):
            if value is not None and unprintable(value):
                raise InvalidArgument.of(word, f"is {value!r}, must be a single line without control characters")
        found = self._objects.get(object_id, RecordedObject(object_id))
        if name is not None:
            found = replace(found, name=name)
        if class_name is not None:
            found = replace(found, class_name=class_name)
        self._objects[object_id] = found

    @property
    def objects(self) -> Mapping[int, RecordedObject]:
        """The objects by id, in ascending order."""
        return dict(sorted(self._objects.items()))

    @property
    def class_names(self) -> list[str]:
        """The classes of the objects (`RecordedObject.category`), each once, in the order of the objects."""
        return list(dict.fromkeys(found.category for found in self.objects.values()))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels.

        Raises:
            InvalidArgument: There is neither a header nor a result, so that nobody knows.
        """
        if self.video is not None:
            return self.video.height, self.video.width
        for frame in self._frames.values():
            for kept in frame.objects.values():
                return kept.size
        raise InvalidArgument.of("recording", "has no result and no header of a video, so its size is not known")

    @property
    def frame_rate(self) -> float:
        """Frames per second: by the header, else by the frames' times, else 30."""
        if self.video is not None and self.video.frame_rate > 0:
            return self.video.frame_rate
        indices = self.frame_indices
        if len(indices) > 1:
            seconds = self._frames[indices[-1]].pts_seconds - self._frames[indices[0]].pts_seconds
            if seconds > 0:
                return (indices[-1] - indices[0]) / seconds
        return 30.0

    @property
    def frame_count(self) -> int:
        """The number of frames of the video: by the header, and at least up to the last frame here."""
        return max(self._last + 1, self.video.frame_count if self.video is not None else 0)

    @property
    def frame_indices(self) -> list[int]:
        """The numbers of the frames that are here, in ascending order."""
        return list(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[FrameResult]:
        for frame_index in self.frame_indices:
            yield self[frame_index]

    def __contains__(self, frame_index: object) -> bool:
        return frame_index in self._frames

    def __getitem__(self, frame_index: int) -> FrameResult:
        """The results of one frame; a KeyError where the frame is not here."""
        kept = self._frames[frame_index]
        objects = {object_id: kept.objects[object_id].result(object_id) for object_id in sorted(kept.objects)}
        return FrameResult(frame_index, kept.pts_seconds, sequence=0, revision=0, objects=objects)

    def masklet(self, object_id: int) -> Iterator[tuple[int, ObjectResult]]:
        """One object through the video: the frame's number and the result, in order of the frames.

        Args:
            object_id: As in the object's prompts.
        """
        for frame_index, frame in self._frames.items():
            kept = frame.objects.get(object_id)
            if kept is not None:
                yield frame_index, kept.result(object_id)

    def only(self, object_ids: Iterable[int]) -> Recording:
        """A recording of the same frames with some of the objects alone.

        Args:
            object_ids: The objects that stay.

        Raises:
            NotFound: There is no object of one of these ids.
        """
        wanted = set(object_ids)
        if unknown := wanted - self._objects.keys():
            known = ", ".join(map(str, self.objects)) or "none"
            raise NotFound(f"the recording has no object {min(unknown)}; its objects are: {known}")
        found = Recording(video=self.video, source=self.source)
        found._objects = {i: entry for i, entry in self._objects.items() if i in wanted}
        for index, frame in self._frames.items():
            found._frames[index] = _KeptFrame(
                frame.pts_seconds, {i: kept for i, kept in frame.objects.items() if i in wanted}
            )
        found._last = self._last
        return found

    def prompts(self, frame_indices: Iterable[int] | None = None) -> list[Prompt]:
        """The masks as prompts, so that another call goes on from them.

        Args:
            frame_indices: The frames whose masks are used; None: for each object the first frame that it is visible on.

        Returns:
            A prompt with a mask for each visible object on each of the frames, in order of the frames.
        """
        wanted = None if frame_indices is None else set(frame_indices)
        begun: set[int] = set()
        found = []
        for frame_index, frame in self._frames.items():
            for object_id, kept in sorted(frame.objects.items()):
                if kept.visible and (object_id not in begun if wanted is None else frame_index in wanted):
                    begun.add(object_id)
                    mask = kept.result(object_id).mask
                    found.append(Prompt(object_id=object_id, frame_index=frame_index, mask=mask))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recording into a file, which appears when it is whole.

        Args:
            path: Its suffix says what is written. ``.jsonl``: JSON Lines, a header and then a line for each frame.
                ``.json``: one JSON object, as `masklet track --json` writes it. ``.parquet``: a table with a row for
                each object on each frame (needs pyarrow: ``pip install 'masklet[parquet]'``).

        Raises:
            InvalidArgument: The path has another suffix.
            Unavailable: pyarrow is needed and not installed.
            OSError: The file cannot be written.
        """
        result_files.write(Path(path), self.header(), (result_files.frame_to_dict(frame) for frame in self))

    def header(self) -> dict[str, Any]:
        """What stands before the frames in a file: version, video, source and objects, ready for JSON."""
        return result_files.header(self.video, source=self.source, objects=self.objects.values())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a recording from a file: what `save` wrote, or `masklet track --json` or ``--jsonl``.

        Args:
            path: The file. What is in it says what it is; only ``.parquet`` is known by its suffix.

        Raises:
            InvalidArgument: The file holds something else, or is damaged.
            Unavailable: pyarrow is needed and not installed.
            OSError: The file cannot be read.
        """
        found = cls()
        for header, frames in result_files.read(Path(path)):
            if header is not None:
                found.video = result_files.video_of(header) or found.video
                found.source = result_files.source_of(header) or found.source
                for entry in result_files.objects_of(header):
                    found.name(entry["object_id"], entry.get("name"), entry.get("class"))
            for frame in frames:
                found.add(frame)
        return found

    def __eq__(self, other: object) -> bool:
        """True where both have the same video, objects and results."""
        if not isinstance(other, Recording):
            return NotImplemented
        mine, theirs = self.header(), other.header()
        return (
            mine == theirs
            and len(self) == len(other)
            and all(
                result_files.frame_to_dict(a) == result_files.frame_to_dict(b) for a, b in zip(self, other, strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def _repr_html_(self) -> str:
        """A table of the objects with the frames on which they are visible, in notebooks."""
        return recording_html(repr(self), self.frame_count, map(self._row, self.objects))

    def _row(self, object_id: int) -> Row:
        found = self.objects[object_id]
        results = list(self.masklet(object_id))
        seen = [(index, result.predicted_iou) for index, result in results if result.visible]
        return Row(
            object_id=object_id,
            name=found.label,
            category=found.category,
            visible=[index for index, _ in seen],
            mean_iou=sum(score for _, score in seen) / max(1, len(seen)),
            events=[f"{r.event.replace('_', ' ')} at frame {index}" for index, r in results if r.event is not None],
        )

    def __repr__(self) -> str:
        names = ", ".join(f"{i}: {found.label!r}" for i, found in self.objects.items())
        return f"Recording({self.source or None!r}, frames={len(self)}, objects={{{names}}})"
