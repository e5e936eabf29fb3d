"""A recording to be saved, exported and read back: two objects, one of which is lost and found again."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

import masklet
from masklet import FrameResult, ObjectResult, Recording, VideoInfo

HEIGHT, WIDTH, FRAMES = 90, 120, 8
FRAME_RATE = 25.0
LOST = (3, 4)  # frames without object 2
VIDEO = VideoInfo(HEIGHT, WIDTH, FRAME_RATE, FRAMES / FRAME_RATE, FRAMES, "mov,mp4,m4a,3gp,3g2,mj2", "h264", 0)


def mask_of(object_id: int, frame_index: int) -> npt.NDArray[np.bool_]:
    """Object 1 is a ring that moves right, in two parts on frame 5; object 2 a triangle, which is empty while lost."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    if object_id == 1:
        distance = np.hypot(y - 40, x - 35 - 2 * frame_index)
        mask = (distance < 22) & (distance > 9)
        if frame_index == 5:
            mask[38:42] = False
        return np.asarray(mask)
    if frame_index in LOST:
        return np.zeros((HEIGHT, WIDTH), np.bool_)
    return np.asarray((y > 50) & (y < 85) & (x > 80 - frame_index) & (x < 80 - frame_index + (y - 50)))


def result_of(object_id: int, mask: npt.NDArray[np.bool_], event: masklet.ObjectEvent | None = None) -> ObjectResult:
    rows, columns = np.nonzero(mask)
    box = None
    if rows.size:
        box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    seen = bool(rows.size)
    return ObjectResult(
        object_id=object_id,
        rle=masklet.encode_rle(mask),
        box=box,
        area=int(mask.sum()),
        predicted_iou=0.875 if seen else 0.0,
        object_score=4.5 if seen else -3.0,
        visible=seen,
        event=event,
    )


def frame_of(frame_index: int, object_ids: tuple[int, ...] = (1, 2), revision: int = 0) -> FrameResult:
    events: dict[int, masklet.ObjectEvent] = {LOST[0]: "lost", LOST[-1] + 1: "reacquired"}
    objects = {
        object_id: result_of(
            object_id, mask_of(object_id, frame_index), events.get(frame_index) if object_id == 2 else None
        )
        for object_id in object_ids
    }
    return FrameResult(frame_index, frame_index / FRAME_RATE, frame_index + 1, revision, objects)


def recording(source: str | Path = "clip.mp4") -> Recording:
    made = Recording(map(frame_of, range(FRAMES)), video=VIDEO, source=source)
    made.name(1, "ring", "toy")
    made.name(2, "sail", "boat")
    return made


def clip(path: Path, *, sound: bool = False) -> Path:
    """The video that belongs to the recording: a colour for each frame, and a tone where there is sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=int(FRAME_RATE), options={"crf": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        audio = container.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for index in range(FRAMES):
            picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
            picture[:] = colour_of_frame(index)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(video.encode(None))
        if audio is not None:
            count = int(48_000 * FRAMES / FRAME_RATE)
            tone = np.sin(np.arange(count) * 2 * math.pi * 440 / 48_000).astype(np.float32) * 0.4
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def colour_of_frame(frame_index: int) -> tuple[int, int, int]:
    return 200 - 10 * frame_index, 60 + 12 * frame_index, 90
