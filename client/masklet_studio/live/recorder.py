"""Keeps a live session as a video of the project: the pictures as they were tracked, with their masks and prompts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream

from masklet.errors import ResourceExhausted
from masklet_studio.live.pictures import Found, LivePrompt, Picture
from masklet_studio.project.history import StudioObject
from masklet_studio.project.records import ABSENT, PROMPTED, MaskRecord, record_of
from masklet_studio.project.video_project import VideoProject
from masklet_studio.uploads import KEPT_FREE_BYTES

FILE_NAME = "video.mkv"
_MILLISECOND = Fraction(1, 1000)
_REMEMBERED = 64  # pictures back to which a click may still change masks
_CHECKED_EVERY = 1 << 24  # bytes between two looks at what the disk has left


class RecordingEnded(ResourceExhausted):
    """The recording cannot go on; what it has is whole."""


@dataclass(frozen=True)
class RecordingLimits:
    """What is known of a recording beforehand.

    Attributes:
        rate: About how many pictures come in a second; it stands in the header of the file. Each has its own time.
        max_bytes: The most that the video may take.
    """

    rate: float
    max_bytes: int


@dataclass
class _Frame:
    """What is known of a frame of the recording."""

    index: int
    objects: dict[int, bool] = field(default_factory=dict)  # whether the object has a mask there


@dataclass(frozen=True)
class _Click:
    """What a person has said of a frame, and the masks that the object has there with it and without it."""

    said: Mapping[str, object]
    record: MaskRecord
    before: MaskRecord


class Recorder:
    """Writes a video, and what was said and found of it, as they come.

    The video holds the JPEG files of the pictures as they are, so each frame is the very picture that was tracked and
    seen. A process that is killed leaves a video that can be read, and masks of its frames alone: a frame's masks are
    written once the frame after it is in the file, because only then the frame is.

    Attributes:
        frames: The number of frames so far.
        bytes: Their size.
        seconds: The time from the first to the last of them.

    Args:
        folder: The video's folder in the project.
        source: What was recorded, for people.
        limits: How much may come.

    Raises:
        OSError: The files cannot be opened.
    """

    def __init__(self, folder: Path, source: str, limits: RecordingLimits) -> None:
        self.frames = 0
        self.bytes = 0
        self.seconds = 0.0
        self._folder = folder
        self._limits = limits
        self._checked_at = 0
        self._project = VideoProject(folder)
        self._revision = self._project.do("record", {"source": source})
        self._file: av.container.OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._size = (0, 0)
        self._begun = 0.0
        self._stamp = -1
        self._indices: dict[int, _Frame] = {}
        self._held: list[tuple[_Frame, Found]] = []
        self._clicks: dict[LivePrompt, _Click] = {}

    def describe(self, one: StudioObject) -> None:
        """Take note of an object's name, class and colour.

        Raises:
            OSError: It cannot be written.
        """
        known = self._project.state.objects.get(one.object_id)
        if known != one:
            self._project.do(
                "add_object" if known is None else "change_object",
                {"object": one.object_id, "name": one.name, "class": one.class_name, "colour": one.colour},
            )

    def add(self, found: Found) -> None:
        """Take what was found on a picture; a picture that is new becomes a frame.

        Raises:
            RecordingEnded: There is no room, or the picture has another size.
            OSError: It cannot be written.
        """
        number = found.picture.number
        if found.is_new:
            self._check(found.picture)
            frame = _Frame(self.frames)
            self._write(found.picture)
            self._store_held()
            self._indices[number] = frame
            while len(self._indices) > _REMEMBERED:
                self._indices.pop(next(iter(self._indices)))
            self._held.append((frame, found))
        elif number in self._indices:
            frame = self._indices[number]
            if self._held and self._held[0][0] is frame:
                self._held.append((frame, found))
            else:
                self._store(frame, found)

    def _check(self, picture: Picture) -> None:
        size = picture.width, picture.height
        if self.frames and size != self._size:
            raise RecordingEnded(
                f"the camera now gives pictures of {size[0]} x {size[1]} pixels, not of {self._size[0]} x "
                f"{self._size[1]}, and a recording has one size; record again"
            )
        if self.bytes + len(picture.jpeg) > self._limits.max_bytes:
            raise RecordingEnded(
                f"the recording has {self.bytes / 2**30:.1f} GiB, the most that is allowed (--max-recording-gib)"
            )
        if self.bytes >= self._checked_at:
            self._checked_at = self.bytes + _CHECKED_EVERY
            free = shutil.disk_usage(self._folder).free
            if free < KEPT_FREE_BYTES + _CHECKED_EVERY:
                raise RecordingEnded(f"the disk has only {free / 2**20:.0f} MiB left")

    def _write(self, picture: Picture) -> None:
        if self._file is None:
            self._open(picture)
        assert self._file is not None
        assert self._stream is not None
        # Times are whole milliseconds, and no two frames have the same one.
        self._stamp = max(self._stamp + 1, round(1000 * (picture.pts_seconds - self._begun)))
        packet = av.Packet(picture.jpeg)
        packet.stream = self._stream
        packet.pts = packet.dts = self._stamp
        packet.time_base = _MILLISECOND
        packet.is_keyframe = True
        self._file.mux(packet)
        self.frames += 1
        self.bytes += len(picture.jpeg)
        self.seconds = self._stamp / 1000

    def _open(self, picture: Picture) -> None:
        self._size = picture.width, picture.height
        self._begun = picture.pts_seconds
        # Each frame is a cluster of its own, and is in the file as soon as the next one comes.
        options = {"flush_packets": "1", "cluster_time_limit": "1"}
        self._file = av.open(str(self._folder / FILE_NAME), "w", format="matroska", options=options)
        rate = max(1, round(self._limits.rate))
        stream = self._file.add_mux_stream("mjpeg", rate, width=picture.width, height=picture.height)
        assert isinstance(stream, VideoStream)
        stream.time_base = _MILLISECOND
        self._stream = stream

    def _store_held(self) -> None:
        held, self._held = self._held, []
        for frame, found in held:
            self._store(frame, found)

    def _store(self, frame: _Frame, found: Found) -> None:
        prompts = {prompt.object_id: prompt for prompt in found.prompts}
        records = []
        for object_id, result in found.objects.items():
            if object_id not in self._project.state.objects:
                continue
            prompt = prompts.get(object_id)
            if prompt is not None or (frame.index == 0 and not frame.objects.get(object_id) and result.area):
                self._prompt(frame, prompt, record_of(result, frame.index, self._project.next_number, PROMPTED))
            elif (object_id, frame.index) not in self._project.state.prompts:
                records.append(record_of(result, frame.index, self._revision))
            frame.objects[object_id] = result.area > 0
        if records:
            self._project.store(records)

    def _prompt(self, frame: _Frame, prompt: LivePrompt | None, record: MaskRecord) -> None:
        """Write what made an object: clicks; or the mask that it had when the recording began."""
        said: Mapping[str, object] = {
            "object": record.object_id,
            "frame": frame.index,
            "points": [list(point) for point in prompt.points] if prompt else [],
            "box": prompt.box and list(prompt.box) if prompt else None,
            "mask": None if prompt else record.counts.decode(),
            "corrects": prompt is not None and frame.objects.get(record.object_id, False),
        }
        if prompt is not None:
            tracked = self._project.tracked_record(record.object_id, frame.index)
            none = replace(record, flags=ABSENT, area=0, counts=b"")
            self._clicks[prompt] = _Click(said, record, tracked or none)
        self._project.do("prompt", said, [record])

    def take_back(self, prompt: LivePrompt) -> None:
        """Take back what a person has said of a frame; what was said before the recording is not in it.

        Raises:
            OSError: It cannot be written.
        """
        self._held = [
            (frame, replace(found, prompts=[one for one in found.prompts if one is not prompt]))
            for frame, found in self._held
        ]
        click = self._clicks.get(prompt)
        if click is not None:
            self._say({**click.said, "points": [], "box": None, "mask": None, "corrects": False}, click.before)

    def bring_back(self, prompt: LivePrompt) -> None:
        """Say again what was taken back.

        Raises:
            OSError: It cannot be written.
        """
        click = self._clicks.get(prompt)
        if click is not None:
            self._say(click.said, click.record)

    def _say(self, said: Mapping[str, object], record: MaskRecord) -> None:
        self._project.do("prompt", said, [replace(record, revision=self._project.next_number)])

    def close(self) -> None:
        """End the video, and write what was held back. May be called twice.

        Raises:
            OSError: It cannot be written.
        """
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
                self._store_held()
                self._project.sync()
        finally:
            self._project.close()
